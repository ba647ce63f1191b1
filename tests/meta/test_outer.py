"""The outer step: what it changes, how often it is compiled, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, assert_equal, interactions, tiny

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.types import Prepared
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.splits import item_statistics
from metarec_jax.meta.outer import TrainState, make_step, meta_loss, predict
from metarec_jax.train.sharding import replicate, shard_users, user_mesh


def first_state(case, optimiser):
    return TrainState(case.trainable, optimiser.init(case.trainable), jnp.zeros((), jnp.int32), jax.random.key(5))


@pytest.mark.usefixtures("x64")
def test_a_step_is_the_optimisers_step_down_the_meta_gradient():
    case = tiny(head="rating")
    rate = 0.5
    optimiser = optax.sgd(rate)
    state = first_state(case, optimiser)
    new, losses = jax.jit(make_step(case.model, optimiser))(state, case.tables, case.episodes)

    loss = jax.jit(jax.value_and_grad(lambda t: meta_loss(case.model, t, case.tables, case.episodes)[0]))
    value, gradient = loss(case.trainable)
    assert_close(losses.query / losses.rows, value)  # of before the step
    assert losses.rows == case.episodes.query.mask.sum()
    assert_close(new.trainable, jax.tree.map(lambda w, g: w - rate * g, case.trainable, gradient))
    assert new.step == 1
    assert_equal(jax.random.key_data(new.key), jax.random.key_data(state.key))


@pytest.mark.usefixtures("x64")
def test_the_loss_weighs_query_rows_alike_whatever_user_they_belong_to():
    case = tiny()
    outputs = jax.jit(lambda: predict(case.model, case.trainable, case.tables, case.episodes))()
    real = np.asarray(case.episodes.query.mask) > 0
    assert real.sum(axis=1).tolist() == [3, 2, 1]
    by_row = case.model.head.loss(outputs[real], case.episodes.query.rating[real])
    value, sums = jax.jit(lambda: meta_loss(case.model, case.trainable, case.tables, case.episodes))()
    assert_close(value, np.asarray(by_row).mean())
    assert_close(sums.query, np.asarray(by_row).sum())
    assert sums.rows == 6


def test_dropout_is_drawn_anew_each_step():
    """The first step has another loss than the same step taken with the counter one further."""
    case = tiny(head="rating", dtype=np.float32, hidden=16, dropout=0.5)
    optimiser = optax.sgd(0.0)
    step = jax.jit(make_step(case.model, optimiser))
    state = first_state(case, optimiser)
    later, first = step(state, case.tables, case.episodes)
    _, second = step(later, case.tables, case.episodes)
    assert_equal(later.trainable, state.trainable)
    assert first.query != second.query
    assert_equal(step(state, case.tables, case.episodes)[1], first)


def test_outer_steps_lower_the_loss():
    case = tiny(dtype=np.float32, hidden=16)
    optimiser = optax.adam(0.05)
    step = jax.jit(make_step(case.model, optimiser))
    state, losses = first_state(case, optimiser), []
    for _ in range(60):
        state, loss = step(state, case.tables, case.episodes)
        losses.append(float(loss.query / loss.rows))
    assert losses[-1] < 0.2 * losses[0]  # six query rows are learned by heart
    rates = (case.trainable.phi, state.trainable.phi)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *rates)
    assert min(jax.tree.leaves(moved)) > 1e-3, "the updater learns too"


@pytest.mark.parametrize("devices", [1, 8])
def test_the_step_is_compiled_once_for_each_bucket(devices, compilations):
    """However many epochs, on however many devices: the state that a step returns needs no program of its own."""
    counts = [5] * 9 + [9] * 3 + [16] * 9  # supports of 2, 6 and 13: three buckets of four
    user = np.repeat(np.arange(len(counts)), counts)
    item = np.concatenate([np.arange(count) for count in counts])
    data = interactions(user, item, 1 + item % 5)
    config = EpisodeConfig(min_ratings=4, max_ratings=0, query=3, buckets=(2, 4, 8, 13), validation=0.1, test=0.1)
    everyone = np.arange(len(counts))
    source = EpisodeSource(
        histories=histories(data, everyone),
        config=config,
        statistics=item_statistics(data, everyone),
        training=True,
        users_per_batch=8,
        seed=0,
        epochs=2,
    )
    assert source.batches == 2 + 1 + 2

    case = tiny(head="rating", dtype=np.float32, dropout=0.1)
    mesh = user_mesh(devices)
    tables = Prepared(np.ones((16, 3), np.float32), np.ones((len(counts), 3), np.float32))
    optimiser = optax.adamw(1e-3)
    step = jax.jit(make_step(case.model, optimiser), donate_argnums=0)
    with jax.set_mesh(mesh):
        state, tables = replicate(mesh, first_state(case, optimiser)), replicate(mesh, tables)
        compilations.clear()
        shapes = set()
        for index in range(len(source)):
            episodes = source[index]
            shapes.add(episodes.support.mask.shape)
            state, _ = step(state, tables, shard_users(mesh, episodes))
    assert shapes == {(8, 2), (8, 8), (8, 13)}
    assert compilations == ["jit(step)"] * 3
    assert state.step == len(source) == 10
