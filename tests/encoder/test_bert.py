from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import changed, random_params, random_tokens
from helpers import assert_each_close, assert_says

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.attention import attend

CONFIG = changed(vocab_size=90, max_positions=40, num_layers=2)
POOLINGS = ("mean", "cls")
encode = jax.jit(encoder.encode, static_argnames=("config", "pooling", "normalise", "dtype"))


@functools.partial(jax.jit, static_argnames="pooling")
def slope(params, tokens, weight, pooling="mean"):
    """The gradient of a loss that weighs each text."""

    def loss(params):
        vectors = encoder.encode(params, CONFIG, tokens, pooling=pooling, normalise=True)
        return jnp.sum(weight[:, None] * jnp.sin(3 * vectors + 1))

    return jax.grad(loss)(params)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG, 0)


@pytest.fixture(scope="module")
def tokens():
    return random_tokens(np.random.default_rng(0), CONFIG, [9, 4, 1], 12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 100, "num_heads": 12}, ["100", "12"]),
        ({"activation": "gelou"}, ["gelou", "gelu_new"]),
        ({"num_layers": 0}, ["num_layers", "0"]),
        ({"vocab_size": -1}, ["vocab_size", "-1"]),
        ({"pad_token_id": 50}, ["50", "vocab_size 50"]),
        ({"layer_norm_eps": float("nan")}, ["layer_norm_eps", "nan"]),
        ({"dropout": 1.0}, ["dropout", "1.0"]),
    ],
)
def test_an_impossible_architecture_is_refused_by_its_values(change, words):
    with pytest.raises(MetarecError) as error:
        changed(**change)
    assert_says(str(error.value), *words)


def test_init_draws_the_same_bits_on_every_platform():
    kernel = np.asarray(encoder.init(0, CONFIG)["layer_1"]["output"]["kernel"])
    digest = hashlib.sha256(kernel.astype("<f4").tobytes()).hexdigest()
    assert digest == "89f582bd29bbcaaf5e87a7cc88042908c629eacfc2cf8fa9de5f1729d22789cd"


def test_init_is_a_function_of_the_seed(tokens):
    one, same, other = (encoder.init(seed, CONFIG) for seed in (0, 0, 1))
    assert isinstance(one, dict)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    kernel = np.asarray(one["layer_1"]["output"]["kernel"])
    assert not np.array_equal(kernel, other["layer_1"]["output"]["kernel"])
    assert_each_close(kernel.std(), CONFIG.init_scale, tolerance=0.1, because="the spread of a sample")
    assert not np.array_equal(kernel, one["layer_0"]["output"]["kernel"])
    assert np.all(np.asarray(one["layer_0"]["output_norm"]["scale"]) == 1)
    assert np.all(np.asarray(one["layer_0"]["query"]["bias"]) == 0)
    assert encode(one, CONFIG, tokens).shape == (3, CONFIG.hidden_size)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_is_in_the_padding_and_how_much_there_is_changes_nothing(params, tokens, pooling):
    before = encode(params, CONFIG, tokens, pooling=pooling)
    padding = tokens.mask == 0
    other = tokens._replace(ids=np.where(padding, 7, tokens.ids), types=np.where(padding, 1, tokens.types))
    np.testing.assert_array_equal(encode(params, CONFIG, other, pooling=pooling), before)
    longer = encoder.Tokens(*(np.pad(field, ((0, 2), (0, 20))) for field in tokens[:3]))
    assert_each_close(
        encode(params, CONFIG, longer, pooling=pooling)[:3], before, floor=1e-6, because="sums over longer rows"
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_gradient_of_padding_is_exactly_zero(params, tokens, pooling):
    padding, real = tokens.mask == 0, tokens.mask == 1
    apart = tokens._replace(ids=np.where(padding, 50 + tokens.ids % 40, tokens.ids % 50))  # so that no id is in both
    gradient = slope(params, apart, np.ones(3), pooling)
    words, positions = (np.asarray(gradient["embeddings"][name]["embedding"]) for name in ("word", "position"))
    assert np.all(words[np.unique(apart.ids[padding])] == 0)
    assert np.all(np.abs(words[np.unique(apart.ids[real])]).max(axis=1) > 0)
    assert np.all(positions[9:] == 0)  # no text is longer than 9 tokens
    assert np.all(np.abs(positions[:9]).max(axis=1) > 0)


def test_one_text_does_not_see_another(params, tokens):
    apart = tokens._replace(ids=np.arange(36, dtype=np.int32).reshape(3, 12))
    for text in range(3):
        words = np.asarray(slope(params, apart, np.eye(3)[text])["embeddings"]["word"]["embedding"])
        others = [i for i in range(36) if i // 12 != text]
        assert np.all(words[others] == 0)
        assert np.abs(words[12 * text]).max() > 0


def test_a_text_without_tokens_is_finite_in_value_and_gradient(params, tokens):
    empty = tokens._replace(mask=np.zeros_like(tokens.mask))
    np.testing.assert_array_equal(encode(params, CONFIG, empty, normalise=True), 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope(params, empty, np.ones(3))))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_normalise_gives_unit_vectors_of_the_same_direction(params, tokens, pooling):
    raw, unit = (encode(params, CONFIG, tokens, pooling=pooling, normalise=n) for n in (False, True))
    assert_each_close(np.linalg.norm(unit, axis=1), 1, tolerance=1e-6, because="a few roundings")
    assert_each_close(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), floor=1e-6, because="a few roundings")


def test_gradient_agrees_with_finite_differences_in_float64_to_second_order():
    config = changed(num_layers=1, hidden_size=6, num_heads=2, intermediate_size=400, vocab_size=12, max_positions=5)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), random_params(config, 3))
        tokens = random_tokens(np.random.default_rng(3), config, [5, 2], 5)
        rng = np.random.default_rng(4)
        direction = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), params)

        def along(t):
            moved = jax.tree.map(lambda leaf, d: leaf + t * d, params, direction)
            return jnp.sum(jnp.sin(encode(moved, config, tokens)))

        first = jax.grad(along)
        derivatives = jax.jit(lambda t: (along(t), first(t), jax.grad(first)(t)))
        step = 1e-5
        (_, exact, curvature), after, before = (derivatives(t) for t in (0.0, step, -step))
        assert_each_close(exact, (after[0] - before[0]) / (2 * step), tolerance=1e-6, because="finite differences")
        assert_each_close(curvature, (after[1] - before[1]) / (2 * step), tolerance=1e-6, because="finite differences")


def test_bfloat16_computes_near_float32_and_returns_float32(params, tokens):
    exact = np.asarray(encode(params, CONFIG, tokens))
    rough = encode(params, CONFIG, tokens, dtype=jnp.bfloat16)
    assert rough.dtype == jnp.float32
    error = np.abs(np.asarray(rough) - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 3e-2  # bfloat16 keeps 8 bits: neither exact nor far off


def test_attention_weights_are_a_distribution_over_real_tokens():
    rng = np.random.default_rng(5)
    query, key = (jnp.asarray(rng.standard_normal((2, 6, 8)), jnp.float32) for _ in range(2))
    mask = jnp.asarray([[1.0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
    positions = jnp.broadcast_to(jnp.arange(6.0)[None, :, None], (2, 6, 8))
    mixed = attend(query, key, positions, mask, num_heads=2)
    assert np.all((mixed[0] > 0) & (mixed[0] < 3))
    np.testing.assert_array_equal(mixed[1], 0)  # only position 0 is real
    assert_each_close(
        attend(query, key, jnp.ones_like(key), mask, num_heads=2), 1, tolerance=1e-6, because="a few roundings"
    )


def test_texts_longer_than_the_positions_are_refused(params):
    tokens = random_tokens(np.random.default_rng(7), CONFIG, [41], 41)
    with pytest.raises(MetarecError, match=r"41 tokens.* 40 positions"):
        encoder.encode(params, CONFIG, tokens)


def test_a_pooler_that_is_not_there_is_refused(params, tokens):
    with pytest.raises(MetarecError, match="no pooler"):
        encoder.pooled(params, changed(has_pooler=False), tokens)
