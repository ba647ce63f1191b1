"""The loss on hidden words: against the naive form, and against PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from small import small_encoder
from test_masking import VOCABULARY

from metarec_jax.encoder import Tokens, add_lora, embed, run_layers
from metarec_jax.encoder.mlm_head import identity_head, logits
from metarec_jax.train.pretraining.masking import Hidden, hide
from metarec_jax.train.pretraining.mlm import mlm_loss
from metarec_jax.train.pretraining.text_batches import Passages

ENCODER = small_encoder()


def some_hidden() -> tuple[Passages, Hidden]:
    rng = np.random.default_rng(0)
    ids = rng.choice(VOCABULARY.ordinary, (5, 12)).astype(np.int32)
    mask = (np.arange(12) < np.array([12, 12, 9, 7, 3])[:, None]).astype(np.float32)
    word = np.where((mask > 0) & (np.arange(12) > 0), np.arange(12) // 2, -1).astype(np.int32)
    passages = Passages(Tokens(ids, mask, np.zeros_like(ids)), word)
    return passages, hide(jax.random.key(1), passages, VOCABULARY, share=0.4)


def moved_head(dtype) -> dict:
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), dtype), identity_head(ENCODER.config)
    )


@pytest.mark.slow
def test_loss_and_gradient_are_those_of_the_naive_form(x64):
    """Logits of every token, softmax over the whole vocabulary, and a mask of what was hidden."""
    passages, hidden = some_hidden()
    double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)  # noqa: E731
    encoder, head = double(ENCODER.params), moved_head(jnp.float64)
    tokens = hidden.tokens._replace(mask=jnp.asarray(passages.tokens.mask, jnp.float64))
    hidden = hidden._replace(tokens=tokens)
    which = np.zeros(passages.word.size, bool)
    which[np.asarray(hidden.position)[np.asarray(hidden.weight) > 0]] = True
    which = which.reshape(passages.word.shape)
    assert which.sum() >= 3

    def naive(weights):
        encoder, head = weights
        x = embed(encoder, ENCODER.config, tokens)
        x = run_layers(encoder, ENCODER.config, x, tokens.mask, first=0, last=2)
        scores = logits(head, encoder["embeddings"]["word"]["embedding"], ENCODER.config, x)
        log = jax.nn.log_softmax(scores, axis=-1)
        right = jnp.take_along_axis(log, jnp.asarray(passages.tokens.ids)[..., None], axis=-1)[..., 0]
        return -(right * which).sum()

    def ours(weights):
        found = mlm_loss(*weights, ENCODER.config, hidden)
        return found.total, found.weight

    (total, weight), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))((encoder, head))
    wanted, slope = jax.jit(jax.value_and_grad(naive))((encoder, head))
    assert weight == which.sum()
    assert_close(total, wanted)
    assert_close(gradient, slope)
    assert np.abs(gradient[1]["bias"]).max() > 1e-2
    assert np.abs(gradient[0]["layer_0"]["query"]["kernel"]).max() > 1e-6


def test_a_padded_slot_counts_nothing():
    _, hidden = some_hidden()
    head = moved_head(jnp.float32)
    compiled = jax.jit(lambda params, head, hidden: mlm_loss(params, head, ENCODER.config, hidden))
    loss = lambda hidden: compiled(ENCODER.params, head, hidden)  # noqa: E731
    real = np.asarray(hidden.weight) > 0
    other = hidden._replace(label=jnp.where(real, hidden.label, 7), position=jnp.where(real, hidden.position, 3))
    assert loss(hidden) == loss(other)
    nothing = loss(hidden._replace(weight=jnp.zeros_like(hidden.weight)))
    assert nothing == (0, 0)


def test_a_head_that_passes_on_knows_no_word_before_training():
    """It says the encoder's own state, normalised, against every word embedding: no bias, and no word preferred."""
    head = identity_head(ENCODER.config)
    states = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)), jnp.float32)
    word = ENCODER.params["embeddings"]["word"]["embedding"]
    got = logits(head, word, ENCODER.config, states)
    x = jax.nn.gelu(states, approximate=False)
    x = (x - x.mean(axis=1, keepdims=True)) / jnp.sqrt(x.var(axis=1, keepdims=True) + ENCODER.config.layer_norm_eps)
    assert_close(got, x @ word.T)


def test_bfloat16_products_give_losses_in_float32():
    _, hidden = some_hidden()
    head = moved_head(jnp.float32)
    half, whole = (
        jax.jit(lambda params, head, hidden, dtype=dtype: mlm_loss(params, head, ENCODER.config, hidden, dtype=dtype))(
            ENCODER.params, head, hidden
        )
        for dtype in ("bfloat16", None)
    )
    assert half.total.dtype == jnp.float32
    assert abs(half.total / whole.total - 1) < 0.02
    assert half.total != whole.total


def test_factors_of_low_rank_take_part():
    _, hidden = some_hidden()
    head = moved_head(jnp.float32)
    params = add_lora(ENCODER.params, [r"layer_\d/value"], rank=2, key=jax.random.key(0))
    slope = jax.jit(jax.grad(lambda p, head, hidden: mlm_loss(p, head, ENCODER.config, hidden).total))(
        params, head, hidden
    )
    assert np.abs(slope["layer_0"]["value"]["lora_b"]).max() > 0
