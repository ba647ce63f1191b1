"""What first ratings say of a new item: from nothing to all there is to know."""

import numpy as np
import pytest

from metarec_jax.collaborative.beliefs import FACTORS, MEAN, REST
from metarec_jax.collaborative.online import Missing, after_ratings

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
    np.testing.assert_allclose(np.delete(found, REST), truth, atol=0.06)
    assert found[REST] == pytest.approx(ROW[REST] - APART.mean - APART.factors.sum(), abs=0.01)


def test_one_rating_moves_the_belief_by_its_gain():
    """That of a Kalman filter, which takes the same step another way."""
    tastes, doubts, ratings, _ = raters(1)
    prior = np.diag(np.concatenate([[APART.mean], APART.factors]))
    known = np.concatenate([[1.0], tastes[0]])
    gain = prior @ known / (known @ prior @ known + NOISE + LEFT)
    before = np.concatenate([ROW[[MEAN]], ROW[FACTORS:]])
    want = before + gain * (ratings[0] - before @ known)
    found = after_ratings(ROW, tastes, doubts, ratings, NOISE, APART)
    np.testing.assert_allclose(np.delete(found, REST), want, rtol=1e-5)
    assert found[REST] == pytest.approx(ROW[REST] - gain @ prior @ known, rel=1e-5)


def test_raters_of_whom_little_is_known_count_less():
    tastes, doubts, ratings, _ = raters(5)
    sure = after_ratings(ROW, tastes, doubts, ratings, NOISE, APART)
    unsure = after_ratings(ROW, tastes, doubts + 50 * np.eye(RANK), ratings, NOISE, APART)
    assert np.linalg.norm(unsure - ROW) < 0.3 * np.linalg.norm(sure - ROW)
