"""What first ratings say of a new item: from nothing to all there is to know."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_each_close

from metarec_jax.factors.item_factors import FACTORS, MEAN, NOTHING_KNOWN, REST
from metarec_jax.factors.update import Missing, after_ratings, path_of, taste_of
from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.learner import prior
from metarec_jax.learner.inputs import Context, Features

RANK = 3
NOISE = 0.5
APART = Missing(0.3, np.array([0.4, 0.2, 0.1]))
ROW = np.array([3.5, 1.2, 0.2, -0.1, 0.3], np.float32)
LEFT = 1.2 - APART.mean - APART.factors.sum()


def raters(n, seed=0):
    """Tastes known exactly, and ratings of an item whose truth differs from what was predicted."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[3.0], ROW[FACTORS:] + np.array([0.5, -0.4, 0.2])])
    tastes = rng.normal(size=(n, RANK))
    return (
        tastes,
        np.zeros((n, RANK, RANK)),
        truth[0] + tastes @ truth[1:] + rng.normal(size=n) * (NOISE + LEFT) ** 0.5,
        truth,
    )


def test_no_rating_changes_nothing():
    tastes, doubts, ratings, _ = raters(0)
    np.testing.assert_array_equal(after_ratings(ROW, tastes, doubts, ratings, NOISE, APART), ROW)


def test_many_ratings_tell_all():
    tastes, doubts, ratings, truth = raters(4000)
    found = after_ratings(ROW, tastes, doubts, ratings, NOISE, APART)
    assert_each_close(np.delete(found, REST), truth, floor=0.06, because="of 4,000 ratings")
    assert_each_close(found[REST], ROW[REST] - APART.mean - APART.factors.sum(), floor=0.01, because="of 4,000 ratings")


def test_one_rating_moves_the_belief_by_its_gain():
    """That of a Kalman filter, which takes the same step another way."""
    tastes, doubts, ratings, _ = raters(1)
    prior = np.diag(np.concatenate([[APART.mean], APART.factors]))
    known = np.concatenate([[1.0], tastes[0]])
    gain = prior @ known / (known @ prior @ known + NOISE + LEFT)
    before = np.concatenate([ROW[[MEAN]], ROW[FACTORS:]])
    want = before + gain * (ratings[0] - before @ known)
    found = after_ratings(ROW, tastes, doubts, ratings, NOISE, APART)
    assert_each_close(np.delete(found, REST), want)
    assert_each_close(found[REST], ROW[REST] - gain @ prior @ known)


def test_raters_of_whom_little_is_known_count_less():
    tastes, doubts, ratings, _ = raters(5)
    sure = after_ratings(ROW, tastes, doubts, ratings, NOISE, APART)
    unsure = after_ratings(ROW, tastes, doubts + 50 * np.eye(RANK), ratings, NOISE, APART)
    assert np.linalg.norm(unsure - ROW) < 0.3 * np.linalg.norm(sure - ROW)


def test_a_raters_taste_is_the_posterior_of_the_prior_path():
    """With gain, noise and choices as an outer loop may leave them, and of a user without a profile."""
    rng = np.random.default_rng(4)
    rows = np.concatenate([rng.uniform(1, 5, (6, 1)), rng.uniform(0.2, 1, (6, 1)), rng.normal(size=(6, RANK))], axis=1)
    ratings = rng.integers(1, 6, 6).astype(np.float32)
    tastes = no_tastes(RANK, 2)
    tastes["choice"] |= {name: rng.normal(size=np.shape(tastes["choice"][name])) for name in ("kernel", "middle")}
    params = {"log_noise": np.float32(-0.3), "log_gain": np.float32(0.8), "taste": tastes}
    statistic = np.concatenate([np.zeros((6, 2)), rows], axis=1).astype(np.float32)
    context = Context(np.zeros(2, np.float32), Features(np.zeros((6, 4)), statistic), ratings, np.ones(6, np.float32))
    want = prior.taste_of(*jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, context)))
    mean, covariance = taste_of(rows, ratings, params)
    gain = np.exp(0.4)  # of the path's factors, and so of what its tastes are told in
    assert_each_close(mean, gain * want.mean, tolerance=1e-4, floor=1e-5, because="the prior path computes in float32")
    assert_each_close(
        covariance, gain**2 * want.covariance, tolerance=1e-4, floor=1e-5, because="the prior path computes in float32"
    )
    assert np.abs(mean - taste_of(rows, ratings, params | {"log_gain": np.float32(0)})[0]).max() > 1e-2


def test_a_learner_without_a_prior_path_leaves_it_as_it_was_learned():
    beliefs = dataclasses.replace(NOTHING_KNOWN, noise=0.7)
    assert_each_close(np.exp(path_of({}, beliefs)["log_noise"]), 0.7, tolerance=1e-6, because="a few roundings")
    assert path_of({"prior": {"mean": 3.0}}, beliefs)["taste"] is beliefs.tastes
    own = {"log_noise": 1.0, "log_gain": 2.0, "taste": {}}
    assert path_of({"prior": own}, beliefs) is own
