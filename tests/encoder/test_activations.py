from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import assert_each_close

from metarec_jax.encoder.activations import ACTIVATIONS, erf, gelu

GRID = np.linspace(-9, 9, 400_001, dtype=np.float32)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_the_one_that_transformers_means(name):
    import torch
    from transformers.activations import ACT2FN

    theirs = ACT2FN[name](torch.from_numpy(GRID.copy())).numpy()
    assert_each_close(
        np.asarray(jax.jit(ACTIVATIONS[name])(GRID)), theirs, floor=3e-6, because="both are float32 approximations"
    )


def test_erf_is_accurate_in_float32():
    error = np.abs(np.asarray(jax.jit(erf)(GRID), np.float64) - scipy.special.erf(GRID.astype(np.float64)))
    assert error.max() < 3.5e-7


def test_erf_at_the_ends():
    x = jnp.array([-jnp.inf, -20.0, -0.0, 0.0, 20.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(erf(x), np.array([-1, -1, 0, 0, 1, 1, np.nan], np.float32))


def test_erf_is_odd_and_never_leaves_the_unit_interval():
    y = np.asarray(erf(jnp.asarray(GRID)))
    np.testing.assert_array_equal(y, -np.asarray(erf(jnp.asarray(-GRID))))
    assert np.abs(y).max() == 1


def test_erf_has_the_gaussian_as_derivative_and_its_derivative_as_the_second():
    x = jnp.linspace(-4, 4, 101)
    gaussian = 2 / math.sqrt(math.pi) * np.exp(-(np.asarray(x, np.float64) ** 2))
    first = jax.vmap(jax.grad(erf))(x)
    second = jax.vmap(jax.grad(jax.grad(erf)))(x)
    assert_each_close(first, gaussian, floor=2e-7, because="erf is float32")
    assert_each_close(second, -2 * np.asarray(x) * gaussian, floor=5e-7, because="erf is float32")


def test_gelu_in_float64_agrees_with_finite_differences_twice():
    with jax.enable_x64(True):
        x = jnp.linspace(-5.0, 5.0, 41)
        step = 1e-4
        slope = jax.vmap(jax.grad(gelu))
        assert_each_close(
            slope(x), (gelu(x + step) - gelu(x - step)) / (2 * step), floor=1e-8, because="finite differences"
        )
        curvature = jax.vmap(jax.grad(jax.grad(gelu)))(x)
        assert_each_close(
            curvature, (slope(x + step) - slope(x - step)) / (2 * step), floor=1e-8, because="finite differences"
        )


def test_erf_keeps_bfloat16():
    assert erf(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
