"""The same numbers as transformers' ModernBertModel, Qwen3Model and Gemma3TextModel, at every layer."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_parity, check, random_params, random_tokens, run_torch, torch_model
from helpers import assert_close, assert_each_close

from metarec_jax import encoder

MODERNBERT = encoder.ModernBertConfig(
    vocab_size=50, hidden_size=24, num_layers=4, num_heads=3, intermediate_size=40, max_positions=400, pad_token_id=0
)
QWEN3 = encoder.Qwen3Config(
    vocab_size=50,
    hidden_size=24,
    num_layers=3,
    num_heads=4,
    intermediate_size=40,
    max_positions=400,
    num_key_value_heads=2,
    head_dim=10,
)
GEMMA3 = encoder.Gemma3Config(
    vocab_size=50,
    hidden_size=24,
    num_layers=3,
    num_heads=4,
    intermediate_size=40,
    max_positions=400,
    num_key_value_heads=2,
    head_dim=10,
    query_scale=10,
    window=65,
    layer_types=("sliding_attention", "sliding_attention", "full_attention"),
)
MIXED = ("sliding_attention", "full_attention")
every_kind = pytest.mark.parametrize("config", [MODERNBERT, QWEN3, GEMMA3], ids=["modernbert", "qwen3", "gemma3"])


@pytest.mark.parametrize(
    "length", [pytest.param(n, marks=[pytest.mark.slow] * (n in (9, 300))) for n in (9, 65, 66, 300)]
)
@every_kind
def test_short_texts_and_texts_beyond_the_window(config, length):
    tokens = random_tokens(np.random.default_rng(1), config, [length, max(length // 2, 1), 1], length)
    check(config, random_params(config, 1), tokens)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(MODERNBERT, norm_bias=True, attention_bias=True, mlp_bias=True, activation="silu"),
        dataclasses.replace(MODERNBERT, window=8, layer_types=("sliding_attention", "full_attention") * 2),
        dataclasses.replace(MODERNBERT, global_theta=1000.0, local_theta=50.0, layer_norm_eps=1e-3, num_heads=12),
        dataclasses.replace(QWEN3, attention_bias=True, num_key_value_heads=1, theta=10_000.0),
        dataclasses.replace(QWEN3, num_key_value_heads=4, head_dim=6, layer_norm_eps=1e-2, activation="gelu"),
        dataclasses.replace(GEMMA3, window=5, query_scale=3, global_theta=500.0, local_theta=50.0),
        dataclasses.replace(GEMMA3, attention_bias=True, num_key_value_heads=4, layer_norm_eps=1e-2, window=1),
    ],
    ids=[
        "biases",
        "window of 8",
        "bases",
        "one head of keys",
        "a head of keys for each of queries",
        "scaled scores",
        "window of 1",
    ],
)
def test_odd_configurations(config):
    check(config, random_params(config, 2), random_tokens(np.random.default_rng(2), config, [20, 1, 7], 20))


@every_kind
def test_padding_on_the_left_is_as_padding_on_the_right(config):
    params = random_params(config, 3)
    tokens = random_tokens(np.random.default_rng(3), config, [12, 5, 1], 12)
    turned = [np.stack([np.roll(row, 12 - n) for row, n in zip(field, (12, 5, 1))]) for field in tokens[:3]]
    left = encoder.Tokens(*turned)
    pooling = "lasttoken" if config.architecture.causal else "mean"
    real = left.mask > 0
    theirs, _ = run_torch(torch_model(config, params), left)
    assert_parity(np.asarray(encoder.hidden_states(params, config, left))[:, real], theirs[:, real])
    on_the_right = encoder.encode(params, config, tokens, pooling=pooling)
    found = encoder.encode(params, config, left, pooling=pooling)
    assert_each_close(found, on_the_right, floor=1e-5, because="angles of other positions, in float32")


@pytest.mark.parametrize("attention", [pytest.param("xla", marks=pytest.mark.slow), "tiled"])
@every_kind
def test_tiled_attention_and_loops_give_the_same_values_and_gradients(config, attention, x64):
    kinds = {} if config.architecture.causal else {"window": 8, "layer_types": GEMMA3.layer_types + MIXED}
    config = dataclasses.replace(config, num_layers=5, **kinds)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), random_params(config, 4))
    tokens = jax.tree.map(jnp.asarray, random_tokens(np.random.default_rng(4), config, [14, 3, 0, 8, 14], 14))

    def slope(run):
        def loss(params):
            return jnp.sum(jnp.sin(encoder.encode(params, config, tokens, pooling="lasttoken", run=run)))

        return jax.jit(jax.value_and_grad(loss))(params)

    plain = slope(encoder.Execution())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(plain))
    assert_close(slope(encoder.Execution(attention, remat=True, scan=True)), plain)
