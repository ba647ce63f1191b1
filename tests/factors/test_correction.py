"""The trained correction of item factors: its gradient, its updates, and that it is the same on several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from correction_case import drawn_case
from helpers import assert_close, assert_equal
from jax.sharding import NamedSharding

from metarec_jax.core.errors import MetarecError
from metarec_jax.factors import correction
from metarec_jax.factors.correction import FIRST, MULTIPLE, correct, descend, items_of, pick, place_of
from metarec_jax.meta.outer import TrainState, make_step, meta_loss, predict
from metarec_jax.train.aot.hlo import tally
from metarec_jax.train.sharding import by_user, place, replicate, shard_users, shardings, user_mesh


def first_state(case, optimiser):
    step, dense = jnp.zeros((), jnp.int32), case.trainable._replace(factors=None)
    squares = jnp.zeros(len(case.trainable.factors), case.trainable.factors.dtype)
    return TrainState(case.trainable, optimiser.init(dense), step, jax.random.key(5), squares)


def by_hand(episodes, table):
    """The batch with `table` added where other users rated the item."""

    def added(rows):
        own = jnp.where(rows.statistic[..., 1:2] > 0, table[place_of(rows.item, len(table))], 0.0)
        return rows._replace(statistic=jnp.asarray(rows.statistic).at[..., FIRST:].add(own))

    return episodes._replace(support=added(episodes.support), query=added(episodes.query))


def dense_gradient(case, trainable):
    """Gradient by the whole table, without its rows being picked."""
    bare = trainable._replace(factors=None)

    def loss(table):
        return meta_loss(case.model, bare, case.tables, by_hand(case.episodes, table))[0]

    return jax.jit(jax.grad(loss))(trainable.factors)


@pytest.fixture
def case(x64):
    return drawn_case(np.float64)


def test_the_gradient_of_the_picked_rows_is_the_dense_one(case):
    items = items_of(case.episodes)
    picked = pick(case.trainable.factors, items)
    assert_equal(picked.rows, case.trainable.factors[place_of(items, MULTIPLE)])

    def loss(rows):
        told = correct(case.episodes, rows)
        return meta_loss(case.model, case.trainable._replace(factors=None), case.tables, told)[0]

    dense = np.asarray(dense_gradient(case, case.trainable))
    sparse = jax.jit(jax.grad(loss))(picked.rows)
    assert np.abs(dense).max() > 1e-3
    assert_close(jnp.zeros_like(dense).at[place_of(items, MULTIPLE)].add(sparse), dense)


def test_losses_and_predictions_read_the_whole_table(case):
    bare, told = case.trainable._replace(factors=None), by_hand(case.episodes, case.trainable.factors)
    for function in (meta_loss, predict):
        of = jax.jit(functools.partial(function, case.model))
        assert_close(of(case.trainable, case.tables, case.episodes), of(bare, case.tables, told))


def test_steps_are_row_wise_adagrad_and_other_rows_stay_bit_by_bit(case):
    optimiser, rate = optax.sgd(0.1), 0.3
    step = jax.jit(make_step(case.model, optimiser, factor_rate=lambda step: rate / (1 + step)))
    state = first_state(case, optimiser)
    want, squares = np.array(case.trainable.factors), np.zeros(len(case.trainable.factors))
    moved = np.zeros(len(want), bool)
    for number in range(3):
        gradient = np.asarray(dense_gradient(case, state.trainable))
        squares += (gradient**2).mean(axis=1)
        some = gradient.any(axis=1)
        want[some] -= rate / (1 + number) * gradient[some] / np.sqrt(squares[some])[:, None]
        moved |= some
        state, _ = step(state, case.tables, case.episodes)
    assert_close(np.asarray(state.trainable.factors), want)
    assert_close(np.asarray(state.squares), squares)
    assert moved.any()
    assert_equal(state.trainable.factors[~moved], case.trainable.factors[~moved])
    assert not np.asarray(state.squares[~moved]).any()


def test_an_item_without_ratings_of_others_is_as_a_new_one(case):
    """It has neither a correction nor a gradient: its row in the batch stands for items that nobody rated."""
    counted = [rows.statistic[..., 1] > 0 for rows in (case.episodes.support, case.episodes.query)]
    met = {item for rows, some in zip(case.episodes[1:3], counted) for item in np.asarray(rows.item)[some]}
    never = sorted({*np.asarray(case.episodes.query.item).ravel()} - met)
    assert never
    never = place_of(np.array(never), MULTIPLE)
    assert not np.asarray(dense_gradient(case, case.trainable))[never].any()
    picked = pick(case.trainable.factors, items_of(case.episodes))
    told = correct(case.episodes, picked.rows)
    for before, after, some in zip(case.episodes[1:3], told[1:3], counted):
        assert_equal(after.statistic[~some], jnp.asarray(before.statistic)[~some])
        assert_equal(after.statistic[..., :FIRST], jnp.asarray(before.statistic)[..., :FIRST])
        assert (np.asarray(after.statistic)[some][:, FIRST:] != np.asarray(before.statistic)[some][:, FIRST:]).all()


def test_a_rate_of_zero_is_a_training_without_a_correction(case):
    optimiser, zero = optax.adam(0.05), jnp.zeros_like(case.trainable.factors)
    case = case._replace(trainable=case.trainable._replace(factors=zero))
    still = first_state(case, optimiser)
    plain = still._replace(trainable=case.trainable._replace(factors=None), squares=None)
    step = jax.jit(make_step(case.model, optimiser, factor_rate=lambda step: 0.0))
    for _ in range(3):
        (still, one), (plain, other) = (step(state, case.tables, case.episodes) for state in (still, plain))
        assert_close(one.query, other.query)
    assert_close(still.trainable._replace(factors=None), plain.trainable)
    assert_equal(still.trainable.factors, zero)


def test_a_row_without_gradient_stays():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(MULTIPLE, 3)), jnp.float32)
    gradient = jnp.asarray([[[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]])
    picked = pick(table, jnp.array([[1, 3]]))
    moved, squares = descend(table, jnp.zeros(MULTIPLE), picked.routes, gradient, 0.5)
    row = place_of(1, MULTIPLE)
    assert_close(moved, table.at[row].add(-0.5 * gradient[0, 0] / np.float32(np.sqrt(3))))
    assert_close(squares, jnp.zeros(MULTIPLE).at[row].set(3))


def test_every_item_has_a_row_of_its_own_and_neighbours_are_apart():
    for rows in (MULTIPLE, 7 * MULTIPLE):
        places = place_of(np.arange(rows), rows)
        np.testing.assert_array_equal(np.sort(places), np.arange(rows))
        for devices in (2, 8):
            for first in (0, 100):
                counts = np.bincount(places[first : first + 32] * devices // rows)
                assert np.abs(counts - 32 / devices).max() <= 1


def test_eight_devices_hold_an_eighth_of_the_rows_each_and_give_the_numbers_of_one(case):
    optimiser, found = optax.adam(0.05), {}
    step = jax.jit(make_step(case.model, optimiser, factor_rate=lambda step: 0.3))
    loss = jax.jit(lambda *arguments: meta_loss(case.model, *arguments))
    for devices in (1, 8):
        mesh = user_mesh(devices)
        with jax.set_mesh(mesh):
            state = place(mesh, jax.tree.map(jnp.copy, first_state(case, optimiser)))
            tables = replicate(mesh, case.tables)
            episodes = shard_users(mesh, jax.tree.map(np.asarray, case.episodes))
            for _ in range(3):
                state, losses = step(state, tables, episodes)
            judged = loss(state.trainable, tables, episodes)
        for leaf in (state.trainable.factors, state.squares):
            assert {len(part.data) for part in leaf.addressable_shards} == {MULTIPLE // devices}
        found[devices] = jax.device_get((state.trainable, state.squares, losses, judged))
    assert_close(found[8], found[1])
    with pytest.raises(MetarecError, match=r"there are 5 devices.*768 rows.*--train\.devices.*--factors\.no-train"):
        place(user_mesh(5), first_state(case, optimiser))


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("buffer", [1, 3, 64])
def test_rows_that_do_not_fit_a_buffer_take_several_turns(buffer, shards, monkeypatch):
    """Users of 8 devices, most of whose items are on one device; gradients of one item come from several."""
    monkeypatch.setattr(correction, "LEAST", buffer)
    monkeypatch.setattr(correction, "SPARE", 0)
    rng, rows, mesh = np.random.default_rng(0), 2 * MULTIPLE, user_mesh(8, shards)
    table = rng.normal(size=(rows, 3)).astype(np.float32)
    of_first = np.flatnonzero(place_of(np.arange(rows), rows) < rows // 8)
    items = rng.choice(of_first, (8, 40))
    items[:, 30:] = rng.integers(0, rows, (8, 10))
    gradient, squares = rng.normal(size=(8, 40, 3)).astype(np.float32), rng.random(rows).astype(np.float32)

    def step(table, squares, items, gradient):
        picked = pick(table, items)
        return picked.rows, picked.routes.turns, descend(table, squares, picked.routes, gradient, 0.5)

    with jax.set_mesh(mesh):
        found, turns, (moved, total) = jax.jit(step)(*shard_users(mesh, (table, squares, items, gradient)))
    assert (np.asarray(turns) > 1).all() == (buffer < 64)
    place = place_of(items, rows)
    assert_equal(np.asarray(found), table[place])
    whole = np.zeros_like(table)
    np.add.at(whole, place, gradient)
    want = squares + (whole**2).mean(axis=1)
    assert_close(np.asarray(total), want)
    assert_close(np.asarray(moved), table - 0.5 * whole / np.sqrt(want)[:, None])


def test_what_is_sent_does_not_grow_with_the_number_of_devices(case):
    """A device sends as much among 8 devices as among 2, where each has as many users."""
    sent = {}
    for devices in (2, 8):
        mesh = user_mesh(devices)
        table = jax.ShapeDtypeStruct((MULTIPLE, 2), jnp.float32, sharding=NamedSharding(mesh, by_user(mesh)))
        items = jax.ShapeDtypeStruct((devices, 400), jnp.int32, sharding=NamedSharding(mesh, by_user(mesh)))
        with jax.set_mesh(mesh):
            text = jax.jit(lambda table, items: pick(table, items).rows).lower(table, items).compile().as_text()
        sent[devices] = sum(tally(text).sent.values())
        assert "all-gather" not in text
    assert sent[8] < 2.1 * sent[2]  # with two devices a buffer is never larger than all rows of a device


@pytest.mark.parametrize("devices", [1, 8])
def test_a_step_makes_nothing_of_the_size_of_the_table(case, devices):
    """But the table itself, which it updates in place: of 2 million rows, and a batch that reads 16 of them."""
    rows, optimiser, mesh = 1 << 21, optax.adam(0.05), user_mesh(devices)
    shaped = jax.eval_shape(lambda: first_state(case, optimiser))
    table = jax.ShapeDtypeStruct((rows, shaped.trainable.factors.shape[1]), shaped.squares.dtype)
    squares = jax.ShapeDtypeStruct((rows,), table.dtype)
    shaped = shaped._replace(trainable=shaped.trainable._replace(factors=table), squares=squares)
    step = jax.jit(make_step(case.model, optimiser, factor_rate=lambda step: 0.3), donate_argnums=0)
    held = jax.tree.map(
        lambda leaf, split: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split),
        shaped,
        shardings(mesh, shaped),
    )
    tables, episodes = replicate(mesh, case.tables), shard_users(mesh, case.episodes)
    with jax.set_mesh(mesh):
        memory = step.lower(held, tables, episodes).compile().memory_analysis()
    own = 8 * rows * (table.shape[1] + 1) / devices
    assert own < memory.alias_size_in_bytes < 1.01 * own
    assert memory.temp_size_in_bytes < 0.01 * own
