"""Checkpoints with dense layers after pooling, in the layout of sentence-transformers, and their vectors by PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax import encoder

MODULE = "sentence_transformers.models."
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
LAYERS = ((64, 96, True, TANH), (96, 40, False, IDENTITY))
"""Inputs, outputs, bias and activation of two dense layers after an encoder of width 64."""


def write_dense(folder: Path, layers: tuple[tuple[int, int, bool, str], ...] = LAYERS, **stated: Any) -> Path:
    """Write an untrained BERT with dense layers of random weights; `stated` changes the config.json of each."""
    import torch
    from safetensors.torch import save_file

    encoder.save(encoder.load("random"), folder)
    kinds = ["Transformer", "Pooling", *["Dense"] * len(layers), "Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": MODULE + kind}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True})
    )
    generator = torch.Generator().manual_seed(0)
    for i, (inputs, outputs, bias, activation) in enumerate(layers, start=2):
        own = folder / f"{i}_Dense"
        own.mkdir()
        sizes = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": activation}
        (own / "config.json").write_text(json.dumps(sizes | stated))
        tensors = {"linear.weight": torch.randn(outputs, inputs, generator=generator)}
        if bias:
            tensors["linear.bias"] = torch.randn(outputs, generator=generator)
        save_file(tensors, own / "model.safetensors")
    return folder


def by_torch(folder: Path, texts: list[str], dims: int | None = None, length: int = 128) -> np.ndarray:
    """Unit vectors of texts by PyTorch: the mean of the tokens, the dense layers, and the first `dims` numbers.

    Texts are cut to `length` tokens.
    """
    import torch
    import transformers
    from safetensors.torch import load_file

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=length)["input_ids"]])
        with torch.no_grad():
            vector = model(ids).last_hidden_state[0].mean(dim=0)
            for path in sorted(folder.glob("*_Dense")):
                tensors = load_file(path / "model.safetensors")
                vector = torch.nn.functional.linear(vector, tensors["linear.weight"], tensors.get("linear.bias"))
                if json.loads((path / "config.json").read_text())["activation_function"] == TANH:
                    vector = torch.tanh(vector)
        vectors.append(torch.nn.functional.normalize(vector[:dims], dim=0).numpy())
    return np.stack(vectors)
