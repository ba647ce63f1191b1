"""The inverse of small matrices, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.learner.spd_inverse import inverse, solve


def positive(size, seed=0):
    root = np.random.default_rng(seed).normal(size=(size, size))
    return jnp.asarray(np.eye(size) + root @ root.T)


@pytest.mark.parametrize("size", [1, 2, 5, 32])
def test_it_is_the_inverse(size):
    with jax.enable_x64(True):
        matrix = positive(size)
        assert_each_close(
            inverse(matrix), np.linalg.inv(matrix), tolerance=1e-9, floor=1e-12, because="roundings times the condition"
        )


@pytest.mark.parametrize(("size", "sides"), [(1, 1), (8, 2), (9, 1), (33, 3)])
def test_halves_give_the_solution(size, sides):
    with jax.enable_x64(True):
        matrix, right = positive(size), np.random.default_rng(1).normal(size=(size, sides))
        assert_each_close(
            solve(matrix, jnp.asarray(right)),
            np.linalg.solve(matrix, right),
            tolerance=1e-9,
            floor=1e-12,
            because="roundings times the condition",
        )


def test_single_precision_is_enough_for_a_support_that_repeats_itself():
    """A hundred equal rows: eigenvalues from 1 to 7,201, which is what a rounding is multiplied with."""
    rows = np.ones((100, 8), np.float32) * 3
    matrix = jnp.asarray(np.eye(8, dtype=np.float32) + rows.T @ rows)
    error = np.abs(inverse(matrix) - np.linalg.inv(np.asarray(matrix, np.float64))).max()
    assert error < np.finfo(np.float32).eps * np.linalg.cond(np.asarray(matrix, np.float64)) / 8


def test_first_and_second_derivatives_agree_with_finite_differences():
    with jax.enable_x64(True):
        matrix, turn = positive(4), positive(4, seed=1)

        def value(t):
            return jnp.sum(jnp.sin(inverse(matrix + t * turn)))

        step = 1e-5
        first, second = jax.grad(value), jax.grad(jax.grad(value))
        assert_each_close(
            first(0.0), (value(step) - value(-step)) / (2 * step), tolerance=1e-6, because="finite differences"
        )
        assert_each_close(
            second(0.0), (first(step) - first(-step)) / (2 * step), tolerance=1e-6, because="finite differences"
        )


def test_many_at_once_are_each_by_itself():
    matrices = jnp.stack([positive(3, seed) for seed in range(4)])
    assert_each_close(
        jax.vmap(inverse)(matrices),
        jnp.stack([inverse(m) for m in matrices]),
        tolerance=1e-6,
        because="a few roundings",
    )
