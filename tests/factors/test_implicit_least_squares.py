"""Implicit least squares: each half-sweep is the minimum of the loss written out, on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_each_close, assert_says
from jax.sharding import AxisType

from metarec_jax.core.errors import MetarecError
from metarec_jax.factors.implicit import Penalties, fit_clicks, fold_in, group_clicks, half_sweep
from metarec_jax.factors.row_batches import layout
from metarec_jax.factors.row_products import AXIS, one_device

USERS, ITEMS, RANK = 30, 20, 4
PENALTIES = Penalties(alpha=0.2, ridge=0.05, power=0.7)


def clicks(seed=0, users=USERS, items=ITEMS):
    rng = np.random.default_rng(seed)
    user, item = np.nonzero(rng.random((users, items)) < 0.2)
    return user, item, 0.5 + rng.random(len(user))


def loss(users, items, user, item, confidence, penalties=PENALTIES):
    """The loss written out, over all users and items."""
    score = users @ items.T
    ridge = []
    for owner, size, others in ((user, len(users), len(items)), (item, len(items), len(users))):
        count = jnp.asarray(np.bincount(owner, minlength=size))
        ridge.append(penalties.ridge * (count + penalties.alpha * others) ** penalties.power)
    clicked = jnp.sum(confidence * (1 - score[user, item]) ** 2)
    squares = ridge[0] @ jnp.sum(users**2, axis=1) + ridge[1] @ jnp.sum(items**2, axis=1)
    return clicked + penalties.alpha * jnp.sum(score**2) + squares


def test_the_items_after_a_sweep_are_where_the_loss_has_no_gradient():
    rows = clicks()
    with jax.enable_x64(True):
        found = fit_clicks(*rows, users=USERS, items=ITEMS, rank=RANK, penalties=PENALTIES, sweeps=1)
        gradient = jax.grad(loss, argnums=1)(jnp.asarray(found.users), jnp.asarray(found.items), *rows)
        scale = jnp.abs(jax.grad(loss, argnums=1)(jnp.asarray(found.users), 0.0 * found.items, *rows)).max()
    assert np.abs(gradient).max() < 1e-6 * scale  # confidences of the batches are float32


def test_sweeps_lower_the_loss():
    rows, losses = clicks(), []
    with jax.enable_x64(True):
        for sweeps in range(1, 6):
            found = fit_clicks(*rows, users=USERS, items=ITEMS, rank=RANK, penalties=PENALTIES, sweeps=sweeps)
            losses.append(float(loss(jnp.asarray(found.users), jnp.asarray(found.items), *rows)))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_new_user_is_folded_in_as_a_training_user_is():
    user, item, confidence = clicks()
    with jax.enable_x64(True):
        found = fit_clicks(user, item, confidence, users=USERS, items=ITEMS, rank=RANK, sweeps=300)
    gram = found.items.T @ found.items
    for u in range(3):
        own = user == u
        new = fold_in(item[own], confidence[own], found.items, gram)
        assert_each_close(new, found.users[u], tolerance=1e-4, floor=1e-4, because="sweeps have nearly converged")


@pytest.mark.parametrize("devices", [2, 8])
@pytest.mark.parametrize("x64", [True, False])
def test_devices_change_rounding_only(devices, x64):
    rows = clicks(users=200, items=70)
    with jax.enable_x64(x64):
        one, more = (
            fit_clicks(
                *rows,
                users=200,
                items=70,
                rank=RANK,
                sweeps=8 if x64 else 1,
                mesh=jax.make_mesh((n,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:n]),
            )
            for n in (1, devices)
        )
    assert_close(more._asdict(), one._asdict(), tolerance=1e-11 if x64 else 1e-5, because="sums in another order")


def test_users_and_items_without_clicks_have_no_factors():
    user, item, confidence = clicks()
    found = fit_clicks(user, item, confidence, users=USERS + 3, items=ITEMS + 2, rank=RANK, sweeps=3)
    assert not found.users[USERS:].any()
    assert not found.items[ITEMS:].any()
    assert np.isfinite(found.users).all()


@pytest.mark.parametrize("rank", [1, 5, 33])
def test_owners_with_few_and_with_many_clicks_solve_the_normal_equations(rank):
    """Blocks of owners with at most as many clicks as factors are solved in the space of clicks, others in theirs."""
    rng, items = np.random.default_rng(rank), 120
    count = np.array([100, 90, 80, 70, 40, 20, 17, 9, 6, 5, 4, 3, 2, 1, 1, 0, 0])
    user = np.repeat(np.arange(len(count)), count)
    item = np.concatenate([rng.permutation(items)[:n] for n in count])
    confidence = np.float32(0.5 + rng.random(len(user)))
    of_users, of_items = layout(len(count), 1, most=2), layout(items, 1)
    rows = group_clicks(user, item, confidence, of_users, of_items, rank)
    assert {False, True} <= set(rows.whole)
    other = rng.normal(size=(items, rank))
    with jax.enable_x64(True):
        table = half_sweep(rows, jnp.asarray(of_items.spread(other)), of_items, PENALTIES, one_device())
    found = of_users.joined(table)
    gram = other.T @ other
    for u, n in enumerate(count):
        want = (
            fold_in(item[user == u], confidence[user == u].astype(float), other, gram, PENALTIES) if n else 0 * other[0]
        )
        assert_each_close(found[u], want, tolerance=1e-9, floor=1e-9, because="the matrix is inverted in another space")


FEW = {
    "one item": (np.arange(5), np.zeros(5, int), 5, 1),
    "one user": (np.zeros(5, int), np.arange(5), 1, 5),
    "one click": (np.zeros(1, int), np.zeros(1, int), 1, 1),
    "everybody clicked everything": (*np.indices((6, 4)).reshape(2, -1), 6, 4),
    "no clicks": (np.zeros(0, int), np.zeros(0, int), 3, 2),
}


@pytest.mark.parametrize("case", FEW)
def test_more_factors_than_clicks_leave_everything_finite(case):
    user, item, users, items = FEW[case]
    found = fit_clicks(user, item, np.ones(len(user)), users=users, items=items, rank=32, sweeps=5)
    score = found.users @ found.items.T
    assert np.isfinite(score).all()
    assert (np.abs(score) <= 1).all()
    assert found.users[user].any(axis=1).all()
    if case != "no clicks":  # all users, and all items, are alike
        assert_close(score, np.full_like(score, score.mean()), tolerance=1e-4, because="float32")


MISTAKES = [
    ({"penalties": Penalties(ridge=0.0)}, ("ridge is 0.0", "at least")),
    ({"penalties": Penalties(alpha=-1.0)}, ("alpha is -1.0", "at least 0")),
    ({"penalties": Penalties(ridge=float("nan"))}, ("ridge is nan",)),
    ({"confidence": np.array([1.0, 0.0])}, ("click 1 is 0.0", "leave out")),
    ({"confidence": np.array([float("inf"), 1.0])}, ("click 0 is inf",)),
]


@pytest.mark.parametrize(("changes", "parts"), MISTAKES)
def test_weights_without_a_minimum_are_refused(changes, parts):
    arguments = {"confidence": np.ones(2)} | changes
    with pytest.raises(MetarecError) as error:
        fit_clicks(np.array([0, 1]), np.array([1, 0]), **arguments, users=2, items=2, rank=2)
    assert_says(str(error.value), *parts)
