"""Texts packed into rows: each is there once, little is padding, and vectors and gradients are those of lone texts."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import random_params
from helpers import assert_close
from test_rotary_parity import GEMMA3, MIXED, MODERNBERT, QWEN3

from metarec_jax import encoder
from metarec_jax.encoder import BertConfig, Execution, Texts, Tokens
from metarec_jax.encoder.pooling import pool_rows
from metarec_jax.encoder.row_packing import Plan, most_rows, pack_rows
from metarec_jax.encoder.text_places import text_numbers
from metarec_jax.encoder.text_rows import NOWHERE

SIZES = {"vocab_size": 50, "hidden_size": 24, "num_layers": 2, "num_heads": 3, "intermediate_size": 40}
PADS = {"pad_token_id": 1, "max_positions": 20}
CONFIGS = {
    "bert": BertConfig(**SIZES, max_positions=16, type_vocab_size=2),
    "roberta": BertConfig(**SIZES, **PADS, model_type="roberta", type_vocab_size=1),
    "mpnet": BertConfig(**SIZES, **PADS, model_type="mpnet", type_vocab_size=0),
    "modernbert": dataclasses.replace(MODERNBERT, num_layers=2, window=8, max_positions=16, layer_types=MIXED),
    "qwen3": dataclasses.replace(QWEN3, num_layers=2),
    "gemma3": dataclasses.replace(GEMMA3, num_layers=2, window=5, layer_types=MIXED),
}
POOLED = {
    "bert": "mean",
    "roberta": "cls",
    "mpnet": "mean",
    "modernbert": "cls",
    "qwen3": "lasttoken",
    "gemma3": "mean",
}


def drawn(rng, sizes):
    return [rng.integers(0, 50, size).astype(np.int32) for size in sizes]


def tokens_of(rows):
    """The rows as an encoder's input."""
    ids, lengths = jnp.asarray(rows.ids), jnp.asarray(rows.lengths)
    mask = (text_numbers(lengths, ids.shape[1]) > 0).astype(jnp.float32)
    return Tokens(ids, mask, jnp.zeros_like(ids), rows.skip, lengths)


def laid_out(texts, rows):
    """Slot -> token ids, of some rows."""
    found = {}
    for part in rows:
        assert not part.lengths[int(part.count) :].any()
        for ids, lengths, slots in zip(part.ids, part.lengths, part.slots):
            start = 0
            for length, slot in zip(lengths, slots):
                assert slot not in found
                if slot != NOWHERE:
                    found[int(slot)] = ids[start : start + length].tolist()
                start += length
            assert (ids[start:] == texts.pad).all()
    return found


@pytest.mark.parametrize("alone", [0, 24])
def test_every_text_of_a_batch_has_one_place(alone):
    rng = np.random.default_rng(1)
    ids = drawn(rng, rng.integers(0, 25, 40))
    ids[7] = ids[9] = ids[3]
    texts = Texts.of(ids, tokens_per_call=48, width=24, shortest_row=8, pad=5, alone=alone)
    assert len(texts.size) == len({text.tobytes() for text in ids})
    used, real = rng.integers(0, 40, (8, 6)), rng.random((8, 6)) < 0.7

    def check(rows, slots, used, real):
        found = laid_out(texts, rows)
        assert len(found) == len({ids[row].tobytes() for row in used[real]})
        assert not slots[~real].any()
        assert all(found[slot] == ids[row].tolist() for row, slot in zip(used[real], slots[real]))

    check(*texts.pick(used, real, 48), used, real)
    assert all(len(rows.ids) % n == 0 for rows, n in zip(texts.pick(used, real, 48)[0], texts.plan.per_call))
    rows, slots = texts.pick_apart(used, real, 12, 4)
    for device in range(4):
        own = [jax.tree.map(lambda leaf, at=device: np.split(leaf, 4)[at], part) for part in rows]
        own = [part._replace(count=part.count[0]) for part in own]
        check(own, *(np.split(whole, 4)[device] for whole in (slots, used, real)))
    rows, slots = texts.pick_shared(used, real, 48, 4)
    found = {}
    for device in range(4):
        own = [jax.tree.map(lambda leaf, at=device: np.split(leaf, 4)[at], part) for part in rows]
        of_device = laid_out(texts, [part._replace(count=part.count[0]) for part in own])
        found |= {slot + device * texts.slots(12): text for slot, text in of_device.items()}
    assert all(found[slot] == ids[row].tolist() for row, slot in zip(used[real], slots[real]))


def test_rows_are_filled_as_far_as_texts_go():
    rng, plan = np.random.default_rng(2), Plan((16, 40), (8, 20), (3, 2))
    for count in (1, 7, 60, 300):
        sizes = rng.integers(2, 41, count)
        row, kind = pack_rows(sizes, plan.lengths)
        room = np.asarray(plan.lengths)[kind] - np.bincount(row, weights=sizes)
        assert (room >= 0).all()
        for number in range(len(kind)):
            later = sizes[row > number]
            assert not len(later) or later.min() > room[number], "no text of a later row has room"
        assert (kind == np.where([sizes[row == number].max() > 16 for number in range(len(kind))], 1, 0)).all()
        assert (np.bincount(kind, minlength=2) <= most_rows(sizes, plan, count)).all()
    halves = pack_rows(np.array([9, 9, 9, 7, 7, 7, 4, 4, 4, 4]), (16,))
    assert len(halves.kind) == 4, "where first fit by size would do as well"
    assert len(pack_rows(np.array([6, 6, 5, 5, 4, 4]), (15,)).kind) == 2, "6 + 5 + 4, not 6 + 6"


@pytest.mark.parametrize(("shortest", "longest"), [(4, 30), (8, 256)], ids=["titles", "mix"])
def test_little_of_what_a_step_computes_is_padding(shortest, longest):
    """Rows that are not full, and empty ones of the last call."""
    rng = np.random.default_rng(3)
    # Most titles are short.
    sizes = np.minimum(rng.integers(shortest, longest + 1, 3000), rng.integers(shortest, longest + 1, 3000))
    texts = Texts.of(drawn(rng, sizes), tokens_per_call=512, most=1500)
    used = rng.choice(3000, 1500, replace=False)
    rows, _ = texts.pick(used, np.ones(1500, bool), 3000)
    calls = [-(-int(part.count) // per_call) for part, per_call in zip(rows, texts.plan.per_call)]
    computed = sum(n * per_call * length for n, per_call, length in zip(calls, texts.plan.per_call, texts.plan.lengths))
    assert len(calls) <= 2
    assert texts.size[np.unique(texts.text_of[used])].sum() > 0.97 * computed


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_pooling_is_that_of_lone_texts(pooling):
    rng, sizes, skip = np.random.default_rng(6), np.array([4, 7, 1, 0]), np.array([1, 7, 0, 0], np.int32)
    last = rng.normal(size=(1, 14, 3)).astype(np.float32)
    found = pool_rows(jnp.asarray(last), jnp.asarray(sizes[None], jnp.int32), skip[None], pooling=pooling)
    ends = np.cumsum(sizes)
    for vector, start, end, left_out in zip(np.asarray(found), ends - sizes, ends, skip):
        own = last[0, start:end]
        wanted = {
            "mean": own[left_out:].sum(axis=0) / max(len(own) - int(left_out), 1),
            "cls": own[:1],
            "lasttoken": own[-1:],
        }
        assert_close(vector, np.zeros(3, np.float32) if not len(own) else wanted[pooling].reshape(3))


@pytest.mark.parametrize(("kind", "pooling"), POOLED.items())
def test_vectors_and_gradients_are_those_of_lone_texts(kind, pooling, x64):
    """With prompts that the mean leaves out, with the padding token inside texts, and with a text without tokens.

    Layers of packed rows are a loop, and computed again for the gradient.
    """
    config, rng = CONFIGS[kind], np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), random_params(config, 4))
    ids = drawn(rng, [3, 16, 9, 0, 1, 12, 5, 7])
    options = {"skip": [1, 2, 9, 0, 0, 3, 0, 2], "pad": config.pad_token_id}
    texts = Texts.of(ids, tokens_per_call=64, width=1000, shortest_row=40, **options)
    (rows,), slots = texts.everything()
    assert rows.ids.shape[1] > 16, "a row may be longer than the longest text"
    held = rows.slots.ravel() != NOWHERE
    place = np.flatnonzero(held)[np.argsort(rows.slots.ravel()[held])][slots]
    cotangent = jnp.asarray(rng.normal(size=(8, 24))) * jnp.asarray([[len(text) > 0] for text in ids])

    def slope(tokens, places, run):
        def loss(params):
            return jnp.vdot(encoder.encode(params, config, tokens, pooling=pooling, run=run)[places], cotangent)

        return jax.jit(jax.value_and_grad(loss))(params)

    lone = jax.tree.map(jnp.asarray, encoder.pack(ids, 16, **options))
    assert_close(
        slope(tokens_of(rows), place, Execution("tiled", remat=True, scan=True)), slope(lone, np.arange(8), Execution())
    )


@pytest.mark.parametrize("kind", ["bert", "modernbert", "qwen3"])
def test_no_text_sees_another(kind):
    """The gradient of a text's vector by the inputs of the other tokens of its row is exactly 0."""
    config, rng = CONFIGS[kind], np.random.default_rng(5)
    params = jax.tree.map(jnp.asarray, random_params(config, 5))
    lengths = jnp.asarray([[5, 9, 4, 0]], jnp.int32)
    tokens = Tokens(
        jnp.asarray(rng.integers(2, 50, (1, 24)), jnp.int32),
        jnp.ones((1, 24)),
        jnp.zeros((1, 24), jnp.int32),
        None,
        lengths,
    )
    numbers = text_numbers(lengths, 24)
    x = encoder.embed(params, config, tokens)

    @jax.jit
    def seen(x):
        def vectors(x):
            how = {"first": 0, "last": config.num_layers, "run": Execution("apart")}
            last = encoder.run_layers(params, config, x, numbers.astype(jnp.float32), **how)
            return jnp.sum(jnp.sin(pool_rows(last, lengths)), axis=1)

        return jnp.abs(jax.jacrev(vectors)(x)).max(axis=-1)[:, 0]

    found = np.asarray(seen(x))
    for text in range(3):
        own = np.asarray(numbers[0]) == text + 1
        assert found[text][own].all()
        assert not found[text][~own].any()
