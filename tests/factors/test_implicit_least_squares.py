"""Implicit least squares: each half-sweep is the minimum of the loss written out, on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_each_close
from jax.sharding import AxisType

from metarec_jax.factors.implicit import Penalties, fit_clicks, fold_in
from metarec_jax.factors.row_products import AXIS

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
