"""The kernel of tastes: each iteration against the sums written out, and what it finds where the truth is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.factors.em import LEAST, batches, learn, low_rank


def drawn(users=60, items=9, seed=0):
    """Ratings of users whose tastes covary in a known way: (user, item, rating, covariance)."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(items, 2))
    truth = factors @ factors.T + 0.1 * np.eye(items)
    felt = rng.multivariate_normal(np.zeros(items), truth, size=users)
    rated = rng.random((users, items)) < 0.6
    user, item = np.nonzero(rated)
    return user, item, 3.0 + felt[user, item] + 0.3 * rng.normal(size=len(user)), truth


def one_iteration(user, item, rating, mean, kernel, noise, strength):
    """Expectation and maximisation with the posterior of every user over every item."""
    total, squares = np.zeros_like(kernel), 0.0
    first = kernel
    for u in np.unique(user):
        i, y = item[user == u], rating[user == u]
        gain = kernel[:, i] @ np.linalg.inv(kernel[np.ix_(i, i)] + noise * np.eye(len(i)))
        felt = gain @ (y - mean[i])
        covariance = kernel - gain @ kernel[i]
        total += covariance + np.outer(felt, felt)
        squares += np.sum((y - mean[i] - felt[i]) ** 2) + np.trace(covariance[np.ix_(i, i)])
    users = len(np.unique(user))
    return (total + strength * first) / (users + strength), squares / len(item)


def test_an_iteration_is_expectation_and_maximisation_over_all_items():
    user, item, rating, _ = drawn()
    mean, start = np.full(9, 2.9), np.eye(9) + 0.2
    got = learn(batches(user, item, rating), mean, start, noise=0.5, strength=4.0, iterations=1)
    kernel, noise = one_iteration(user, item, rating, mean, start, 0.5, 4.0)
    assert_each_close(got.kernel, kernel, tolerance=2e-4, floor=2e-5, because="inverses in float32")
    assert_each_close(got.noise, noise, tolerance=2e-4, because="inverses in float32")


def test_no_iteration_changes_nothing():
    user, item, rating, _ = drawn()
    start = np.eye(9) + 0.2
    got = learn(batches(user, item, rating), np.full(9, 3.0), start, noise=0.5, strength=4.0, iterations=0)
    np.testing.assert_array_equal(got.kernel, start.astype(np.float32))
    assert float(got.noise) == 0.5


def test_the_truth_is_found_where_there_are_many_users():
    user, item, rating, truth = drawn(users=3000)
    got = learn(batches(user, item, rating), np.full(9, 3.0), np.eye(9), noise=1.0, strength=1.0, iterations=60)
    assert_each_close(got.kernel, truth, floor=0.15 * np.abs(truth).max(), because="of 3,000 users")
    assert_each_close(float(got.noise), 0.09, floor=0.05, because="of 3,000 users")


def test_a_batch_holds_every_rating_once_whatever_the_order():
    user, item, rating, _ = drawn(users=200)
    shuffled = np.random.default_rng(1).permutation(len(user))
    for order in (np.arange(len(user)), shuffled):
        found = batches(user[order], item[order], rating[order])
        pairs = sorted(
            (int(i), float(r))
            for batch in found
            for i, r in zip(batch.item[batch.mask > 0], batch.rating[batch.mask > 0])
        )
        assert pairs == sorted(zip(item.tolist(), rating.astype(np.float32).tolist()))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_kernel_of_few_factors_is_found_again(rank):
    rng = np.random.default_rng(rank)
    factors = rng.normal(size=(20, rank))
    own = rng.uniform(0.5, 1.0, size=20)
    got, rest = low_rank(jnp.asarray(factors @ factors.T + np.diag(own), jnp.float32), rank=rank, turns=300)
    assert_each_close(
        got @ got.T + jnp.diag(rest),
        factors @ factors.T + np.diag(own),
        floor=0.02,
        because="the iteration stops before its limit",
    )


def test_the_diagonal_is_kept_whatever_the_rank():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 12))
    kernel = root @ root.T
    factors, rest = low_rank(jnp.asarray(kernel, jnp.float32), rank=4)
    kept = np.asarray(rest) > LEAST
    assert kept.sum() > 6  # elsewhere the factors alone are more than the whole
    whole = np.sum(np.square(factors), axis=1) + rest
    assert_each_close(whole[kept], np.diag(kernel)[kept])
    assert (whole >= np.diag(kernel).astype(np.float32) * (1 - 1e-5)).all()
