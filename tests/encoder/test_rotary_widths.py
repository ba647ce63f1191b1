"""Layers as wide as those of published encoders with rotary positions, against transformers, at every layer."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from bert_reference import random_tokens, recycled_params, run_torch, torch_model
from helpers import assert_close

from metarec_jax import encoder
from metarec_jax.train.aot.workload import ENCODERS

LENGTH = 140
"""Tokens of the longest text, more than a window of ModernBERT reaches in both directions."""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("modernbert-base", {"num_layers": 3, "layer_types": ()}),
        ("modernbert-large", {"num_layers": 2, "layer_types": ()}),
        ("qwen3-0.6b", {"num_layers": 2}),
        (
            "embeddinggemma-300m",
            {"num_layers": 2, "layer_types": ("sliding_attention", "full_attention"), "window": 33},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_layer_has_the_numbers_of_transformers(name, changes):
    """Within 1e-5 of the largest number of the layer's output; the published encoders but for depth and vocabulary."""
    from transformers.initialization import no_init_weights

    config = dataclasses.replace(ENCODERS[name], vocab_size=60, pad_token_id=0, max_positions=LENGTH, **changes)
    params = recycled_params(config, 0)
    tokens = random_tokens(np.random.default_rng(0), config, [LENGTH, 33, 1], LENGTH)
    with no_init_weights():
        model = torch_model(config, params)
    states, _ = run_torch(model, tokens)
    found = jax.jit(encoder.hidden_states, static_argnames="config")(params, config, tokens)
    real = tokens.mask > 0
    assert len(states) == len(found) == config.num_layers + 1
    for ours, theirs in zip(found, states):
        assert_close(np.asarray(ours)[real], theirs[real])
