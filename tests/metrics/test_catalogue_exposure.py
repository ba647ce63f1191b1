"""What lists show: expectations over ties against all orders written out."""

import itertools

import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.metrics.catalogue_exposure import exposure, top_chance


@pytest.mark.parametrize("seed", range(8))
def test_figures_are_means_over_every_order_that_ties_allow(seed):
    rng = np.random.default_rng(seed)
    users, items, training_users = 3, 6, 9
    k = int(rng.integers(1, 8))  # at times more than there are candidates
    scores = rng.integers(0, rng.integers(1, 5), (users, items)).astype(np.float32)
    clicks = rng.integers(0, training_users, items).astype(np.float32)
    shown = [rng.permutation(items)[: rng.integers(0, 3)] for _ in range(users)]
    found = exposure(scores, shown, clicks, training_users, k)
    missing = np.ones(items)
    for user in range(users):
        left = np.setdiff1d(np.arange(items), shown[user])
        orders = [o for o in itertools.permutations(left) if (np.diff(scores[user, list(o)]) <= 0).all()]
        tops = [list(order[:k]) for order in orders]
        bits = np.mean([np.mean(-np.log2((clicks[top] + 1) / (training_users + 1))) for top in tops])
        share = np.mean([np.mean(clicks[top] / training_users) for top in tops])
        assert_each_close(found.novelty[user], bits, tolerance=1e-6, because="logarithms of float32 counts", floor=1e-9)
        assert_each_close(found.popularity[user], share, tolerance=1e-6, because="float32 counts", floor=1e-9)
        missing *= [1 - np.mean([item in top for top in tops]) for item in range(items)]
    assert_each_close(found.coverage, np.mean(1 - missing), tolerance=1e-9, because="sums in float64", floor=1e-12)


def test_coverage_of_groups_of_users_adds_up():
    rng = np.random.default_rng(0)
    scores, clicks = rng.normal(size=(10, 30)), np.ones(30, np.float32)
    shown = [np.zeros(0, int)] * 10
    whole = exposure(scores, shown, clicks, 5, 4)
    parts = [exposure(scores[some], shown[some], clicks, 5, 4) for some in (slice(0, 3), slice(3, 10))]
    listed = np.unique(np.argsort(-scores, axis=1)[:, :4])
    assert whole.coverage == len(listed) / 30
    assert np.array_equal(parts[0].missing + parts[1].missing, whole.missing)


def test_a_list_beyond_the_catalogue_has_everything():
    assert top_chance(np.array([1.0, 2.0]), 5).tolist() == [1, 1]
