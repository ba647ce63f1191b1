"""Parameters that are no numbers any more are found and named, logarithms by what becomes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from metarec_jax.core.params import names_as_used, unusable_names, usable
from metarec_jax.meta.model import Trainable

GOOD = Trainable(
    theta={"kernel": np.full((2, 2), 1e30, np.float32), "nothing": np.zeros((0, 3), np.float32)},
    phi={"log_rate": {"kernel": np.array([88.0, -1e30], np.float32)}, "rate": np.array(100.0, np.float32)},
)
NAMES = ["theta/kernel", "theta/nothing", "exp(phi/log_rate/kernel)", "phi/rate"]


def spoiled(leaf, value):
    """`GOOD` with one number of one leaf replaced."""
    theta, phi = {**GOOD.theta}, {"log_rate": {**GOOD.phi["log_rate"]}, "rate": GOOD.phi["rate"]}
    parent, key = {0: (theta, "kernel"), 2: (phi["log_rate"], "kernel"), 3: (phi, "rate")}[leaf]
    parent[key] = parent[key].copy()
    parent[key].flat[-1] = value
    return Trainable(theta, phi)


def test_all_is_well():
    """Large numbers, arrays without any, and the logarithm of a number that is nearly zero."""
    assert names_as_used(GOOD) == NAMES
    assert unusable_names(GOOD) == []
    assert all(jax.jit(usable)(GOOD))


@pytest.mark.parametrize(
    ("leaf", "value"),
    [(0, np.nan), (0, np.inf), (3, -np.inf), (2, np.nan), (2, -np.inf), (2, np.inf), (2, 89.0)],
    ids=lambda value: str(value),
)
def test_one_number_spoils_its_leaf(leaf, value):
    """89 is finite, and in single precision its exponential is not."""
    tree = spoiled(leaf, value)
    assert unusable_names(tree) == [NAMES[leaf]]
    assert np.flatnonzero(np.logical_not(jax.jit(usable)(tree))).tolist() == [leaf]


def test_the_limit_of_a_logarithm_is_that_of_its_precision():
    for dtype, last, first in ((np.float32, 88.7, 88.8), (np.float64, 709.7, 709.8)):
        assert unusable_names({"log_rate": np.array(last, dtype)}) == []
        assert unusable_names({"log_rate": np.array(first, dtype)}) == ["exp(log_rate)"]
        assert np.isfinite(np.exp(np.array(last, dtype)))


@pytest.mark.parametrize("kind", ["gradient", "momentum", "learned", "meta-sgd", "imaml", "ridge"])
def test_what_an_updater_starts_with_can_be_used(kind):
    case = tiny(kind=kind, users=1, dtype=np.float32, adapted=("output/.*",))
    assert unusable_names(case.trainable) == []
    worse = case.trainable._replace(phi={**case.trainable.phi, "log_more": jnp.array(100.0)})
    assert unusable_names(worse) == ["exp(phi/log_more)"]
