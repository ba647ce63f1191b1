"""transformers is imported where a text or a checkpoint is read, and works without PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys


def output_of(code: str) -> str:
    """What a process prints, errors and warnings included."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRANSFORMERS_")}
    environment |= {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, text=True, timeout=120, stdout=-1, stderr=subprocess.STDOUT)
    return done.stdout


def test_the_encoder_is_imported_without_it():
    code = "import sys, metarec_jax.encoder; print(sorted({'transformers', 'tokenizers', 'torch'} & set(sys.modules)))"
    assert output_of(code) == "[]\n"


def test_a_checkpoint_is_read_where_pytorch_is_not_installed(minilm_folder):
    code = (
        "import sys; sys.modules['torch'] = None; from metarec_jax import encoder; "
        f"bert = encoder.load({str(minilm_folder)!r}); "
        "print(encoder.tokenize(bert.tokenizer, ['a film'], 16).ids[0].tolist())"
    )
    assert output_of(code) == "[101, 1037, 2143, 102]\n"
