"""Eight devices, one user an eighth: the same numbers as on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_equal, tiny
from jax.sharding import PartitionSpec

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.learner.inputs import learned
from metarec_jax.meta.outer import TrainState, make_step, meta_loss, predict
from metarec_jax.train import sharding
from metarec_jax.train.frozen_program import on_all_devices
from metarec_jax.train.optimizer import make_optimiser
from metarec_jax.train.sharding import USERS, replicate, round_up, shard_users, user_mesh


def test_a_mesh_takes_all_devices_or_the_first_few():
    assert user_mesh().shape == {USERS: 8}
    assert user_mesh(0).devices.tolist() == jax.devices()
    assert user_mesh(3).devices.tolist() == jax.devices()[:3]


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(MetarecError, match=r"train\.devices is 9, but only 8 cpu device.*device_count=N"):
        user_mesh(9)


@pytest.mark.parametrize(("users", "devices", "rounded"), [(0, 8, 0), (1, 8, 8), (8, 8, 8), (9, 8, 16), (7, 1, 7)])
def test_users_are_rounded_up_to_what_splits_evenly(users, devices, rounded):
    assert round_up(users, user_mesh(devices)) == rounded


def test_users_are_split_and_all_else_is_everywhere():
    mesh = user_mesh(8)
    tree = {"a": np.arange(16), "b": np.arange(32.0).reshape(16, 2)}
    split = shard_users(mesh, tree)
    for name, leaf in split.items():
        assert leaf.sharding.spec == PartitionSpec(USERS)
        for i, shard in enumerate(leaf.addressable_shards):
            np.testing.assert_array_equal(shard.data, tree[name][2 * i : 2 * i + 2])
    for name, leaf in replicate(mesh, tree).items():
        assert leaf.is_fully_replicated
        assert len(leaf.addressable_shards) == 8
        np.testing.assert_array_equal(leaf, tree[name])


@pytest.mark.parametrize("small", [0, pytest.param(sharding.SMALL, marks=pytest.mark.slow)])
def test_one_device_and_eight_give_the_same_numbers(small, monkeypatch):
    """Loss, gradient, predictions, and three outer steps of the real optimiser, with dropout.

    Leaves of the gradient are summed one by one, or together.

    What differs is the order in which float32 sums over users are taken. Adam divides a gradient by its own size, so
    an element whose gradient is nothing but rounding may move either way: each has one far above it here.
    """
    monkeypatch.setattr(sharding, "SMALL", small)
    case = tiny(head="rating", dtype=np.float32, users=16, support=20, query=17, hidden=16, dropout=0.2)
    optimiser = make_optimiser(Config(), 3)
    slope = jax.value_and_grad(meta_loss, argnums=1, has_aux=True)
    functions = (
        jax.jit(lambda trainable, tables, episodes: slope(case.model, trainable, tables, episodes)),
        jax.jit(lambda trainable, tables, episodes: predict(case.model, trainable, tables, episodes)),
    )

    def everything(devices):
        gradient, predictions = functions
        mesh = user_mesh(devices)
        on_devices = {"exchange": sharding.sums(mesh), "spread": functools.partial(on_all_devices, mesh)}
        step = jax.jit(make_step(case.model, optimiser, **on_devices))
        with jax.set_mesh(mesh):
            state = TrainState(
                case.trainable, optimiser.init(case.trainable), jnp.zeros((), jnp.int32), jax.random.key(7)
            )
            state, tables = replicate(mesh, (state, case.tables))
            episodes = shard_users(mesh, jax.tree.map(np.asarray, case.episodes))
            found = [gradient(state.trainable, tables, episodes), predictions(state.trainable, tables, episodes)]
            assert len(found[1].sharding.device_set) == devices
            for _ in range(3):
                state, losses = step(state, tables, episodes)
                found.append(losses)
            sent = step.lower(state, tables, episodes).as_text().count("stablehlo.all_reduce")
            trained = jax.tree.leaves((learned(case.trainable.theta)[0], case.trainable.phi))
            assert sent == (0 if devices == 1 else 2 if small else 2 + len(trained))
            assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state.trainable))
        return jax.device_get(found), jax.device_get((state.trainable, state.optimiser, state.step))

    (one, one_state), (eight, eight_state) = everything(1), everything(8)
    assert_close(eight, one)
    assert_close(eight_state, one_state)
    start = jax.device_get(case.trainable)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start.theta["hidden"], one_state[0].theta["hidden"])
    assert min(jax.tree.leaves(moved)) > 1e-3, "three steps went somewhere"
    assert_equal(start.theta["input"], one_state[0].theta["input"])
