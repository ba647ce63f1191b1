"""The same numbers as transformers' PyTorch BertModel, at every layer."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from bert_reference import PARITY, SMALL, changed, random_params, random_tokens, run_torch, torch_model
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax import encoder
from metarec_jax.encoder.activations import ACTIVATIONS


def real(states: np.ndarray, tokens: encoder.Tokens) -> np.ndarray:
    """Hidden states of the real tokens: what a padded token holds is nobody's business."""
    return np.asarray(states)[:, np.asarray(tokens.mask) > 0]


@functools.partial(jax.jit, static_argnames="config")
def everything(params, config: encoder.BertConfig, tokens: encoder.Tokens):
    """Hidden states, both poolings and the pooler, compiled once a shape."""
    vectors = {pooling: encoder.encode(params, config, tokens, pooling=pooling) for pooling in ("mean", "cls")}
    pooled = encoder.pooled(params, config, tokens) if config.has_pooler else None
    return encoder.hidden_states(params, config, tokens), vectors, pooled


def check(config: encoder.BertConfig, params, tokens: encoder.Tokens) -> None:
    theirs, pooler = run_torch(torch_model(config, params), tokens)
    ours, vectors, pooled = everything(params, config, tokens)
    np.testing.assert_allclose(real(ours, tokens), real(theirs, tokens), rtol=0, atol=PARITY)
    mask = np.asarray(tokens.mask)[..., None]
    np.testing.assert_allclose(vectors["mean"], (theirs[-1] * mask).sum(1) / mask.sum(1), rtol=0, atol=PARITY)
    np.testing.assert_allclose(vectors["cls"], theirs[-1][:, 0], rtol=0, atol=PARITY)
    if config.has_pooler:
        np.testing.assert_allclose(pooled, pooler, rtol=0, atol=PARITY)


@pytest.fixture(scope="module")
def torch_minilm(minilm_folder):
    import transformers

    return transformers.BertModel.from_pretrained(minilm_folder).eval()


def test_minilm_on_real_titles_at_every_layer(minilm, titles, torch_minilm):
    by_length = sorted(set(titles), key=len)
    sample = by_length[::10] + by_length[-8:]
    ids = encoder.tokenize(minilm.tokenizer, sample, 512).ids
    for chunk in encoder.chunks(ids, limit=512, tokens_per_call=1024):
        theirs, pooler = run_torch(torch_minilm, chunk.tokens)
        ours, vectors, pooled = everything(minilm.params, minilm.config, chunk.tokens)
        assert len(ours) == minilm.config.num_layers + 1
        np.testing.assert_allclose(real(ours, chunk.tokens), real(theirs, chunk.tokens), rtol=0, atol=PARITY)
        mask = np.asarray(chunk.tokens.mask)[..., None]
        mean = (theirs[-1] * mask).sum(1) / np.maximum(mask.sum(1), 1)
        rows = slice(len(chunk.rows))
        np.testing.assert_allclose(vectors["mean"][rows], mean[rows], rtol=0, atol=PARITY)
        np.testing.assert_allclose(vectors["cls"][rows], theirs[-1][rows, 0], rtol=0, atol=PARITY)
        np.testing.assert_allclose(pooled[rows], pooler[rows], rtol=0, atol=PARITY)


def test_minilm_on_real_text_of_512_tokens(minilm, titles, torch_minilm):
    texts = [" ".join(titles[:200]), " ".join(titles[500:560])]
    ids = encoder.tokenize(minilm.tokenizer, texts, 512).ids
    assert len(ids[0]) == 512
    tokens = encoder.pack(ids, 512)
    theirs, _ = run_torch(torch_minilm, tokens)
    ours = jax.jit(encoder.hidden_states, static_argnames="config")(minilm.params, minilm.config, tokens)
    np.testing.assert_allclose(real(ours, tokens), real(theirs, tokens), rtol=0, atol=PARITY)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    config = changed(activation=activation)
    check(config, random_params(config, 1), random_tokens(np.random.default_rng(1), config, [7, 3], 9))


@pytest.mark.parametrize(
    "config",
    [
        changed(num_heads=1),
        changed(num_heads=24),
        changed(num_layers=4),
        changed(intermediate_size=7),
        changed(type_vocab_size=1),
        changed(type_vocab_size=5),
        changed(has_pooler=False),
        changed(layer_norm_eps=1e-3),
        changed(vocab_size=1),
        changed(pad_token_id=49),
        changed(hidden_size=3),
        changed(max_positions=512),
        changed(hidden_size=390, num_heads=13, intermediate_size=1000),
    ],
    ids=lambda c: "-".join(f"{k}={v}" for k, v in vars(c).items() if v != getattr(SMALL, k)),
)
def test_odd_configurations(config):
    rng = np.random.default_rng(2)
    full = config.max_positions
    check(config, random_params(config, 2), random_tokens(rng, config, [full, 1, 5], full))


@settings(max_examples=4, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_configuration(data):
    heads, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    positions = data.draw(st.integers(1, 30))
    config = encoder.BertConfig(
        vocab_size=data.draw(st.integers(1, 40)),
        hidden_size=heads * (width + 1),
        num_layers=data.draw(st.integers(1, 2)),
        num_heads=heads,
        intermediate_size=data.draw(st.integers(1, 30)),
        max_positions=positions,
        type_vocab_size=data.draw(st.integers(1, 3)),
        activation=data.draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
    )
    lengths = data.draw(st.lists(st.integers(1, positions), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 1000))
    tokens = random_tokens(np.random.default_rng(seed), config, lengths, positions)
    check(config, random_params(config, seed), tokens)
