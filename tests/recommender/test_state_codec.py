"""User states as bytes, and updates of them."""

from __future__ import annotations

import zlib

import jax
import numpy as np
import pytest
from test_recommender import untrained

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.meta.updaters.meta_sgd import MetaSgdConfig
from metarec_jax.recommender.recommender import Rated, Recommender
from metarec_jax.recommender.state_codec import MAX_ADAPTED_BYTES, MAX_BYTES, Seal

LIKES = {1: 5, 2: 1, 3: 4, 40: 2}


def same(a, b) -> bool:
    return jax.tree.all(
        jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), (a.adapted, a.support), (b.adapted, b.support))
    )


def test_a_decoded_state_equals_the_state(recommender):
    state = recommender.adapt(LIKES)
    data = recommender.to_bytes(state)
    assert len(data) < 32_768
    again = recommender.from_bytes(data)
    assert same(state, again)
    np.testing.assert_array_equal(again.history.rows, state.history.rows)
    assert recommender.recommend(again) == recommender.recommend(state)


def test_a_state_without_its_adapted_parameters_is_adapted_again():
    wide = untrained(side="none", learner=LearnerConfig(hidden=256), updater=MetaSgdConfig(steps=1, rate=1e-3))
    state = wide.adapt(LIKES)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state.adapted)) > MAX_ADAPTED_BYTES
    data = wide.to_bytes(state)
    assert wide.codec.decode(data).adapted is None
    assert same(state, wide.from_bytes(data))


def test_a_state_of_another_model_is_refused(recommender):
    theta = jax.tree.map(np.array, jax.device_get(recommender.executor.trainable))
    theta.theta["output"]["bias"][0] += 1
    other = Recommender(recommender.config, recommender.catalogue, theta, recommender.texts.encoder)
    with pytest.raises(MetarecError, match="the state belongs to another run: adapt to the history again"):
        other.from_bytes(recommender.to_bytes(recommender.adapt(LIKES)))


def test_malformed_states_are_refused(recommender):
    data = recommender.to_bytes(recommender.adapt(LIKES))
    whole = zlib.decompress(data)
    hostile = [b"", b"x", data[:-9], data[:20], zlib.compress(b""), zlib.compress(whole[:100])]
    hostile += [zlib.compress(b"\xff" * 64), zlib.compress(bytes(MAX_BYTES + 1)), zlib.compress(whole + b"more")]
    hostile += [zlib.compress(whole.replace(b'\\"1\\"', b'\\"x\\"'))]
    nan = np.frombuffer(whole, np.uint8).copy()
    nan[-4:] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    hostile.append(zlib.compress(nan.tobytes()))
    for bad in hostile:
        with pytest.raises(MetarecError, match=r"the state is malformed|no item has the id"):
            recommender.from_bytes(bad)


@pytest.mark.parametrize("ratings", [{7: 3}, {1: 1}, {}])
@pytest.mark.parametrize("forget", [[], [3]])
def test_an_update_equals_adapting_to_the_new_history(recommender, ratings, forget):
    updated = recommender.update(recommender.adapt(LIKES), ratings, forget)
    history = {i: r for i, r in LIKES.items() if i not in ratings and i not in forget} | ratings
    assert same(updated, recommender.adapt(history))


def test_only_items_of_the_history_can_be_forgotten(recommender):
    with pytest.raises(MetarecError, match="9 is to be forgotten, but it is not in the user's history"):
        recommender.update(recommender.adapt(LIKES), {}, [9])


def test_a_state_keeps_ratings_beyond_the_support(recommender):
    history = [Rated(i, 1 + i % 5) for i in range(1, 100)]
    state = recommender.from_bytes(recommender.to_bytes(recommender.adapt(history)))
    shorter = recommender.update(state, {}, [99])
    assert same(shorter, recommender.adapt(history[:-1]))
    assert len(shorter.history.rows) == 98


def test_a_seal_opens_with_its_key_and_purpose_only():
    seal = Seal(b"a" * 32)
    text = seal.close("state", b"some bytes")
    assert seal.open("state", text) == b"some bytes"
    assert Seal(b"b" * 32).open("state", text) is None
    for wrong in (text[:-1], text + "A", "B" + text[1:], "", "é", text + "\n"):
        assert seal.open("state", wrong) is None
