"""Training, validation and test users, and statistics of items from training users alone."""

import dataclasses

import numpy as np
import pytest
from helpers import interactions, random_interactions

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data.splits import item_statistics, split_users

CONFIG = EpisodeConfig(min_ratings=3, max_ratings=6, query=2, buckets=(4,), validation=0.2, test=0.1)


def data(seed=0, users=60):
    return random_interactions(np.random.default_rng(seed), users=users, items=12, least=1, most=9)


def test_parts_are_disjoint_and_together_are_the_users_with_enough_ratings_and_not_too_many():
    found = split_users(data(), CONFIG, seed=3)
    count = np.bincount(data().user, minlength=60)
    eligible = np.flatnonzero((count >= 3) & (count <= 6))
    assert 20 < len(eligible) < 60
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), eligible)
    assert len(found.validation) == round(0.2 * len(eligible))
    assert len(found.test) == round(0.1 * len(eligible))
    assert all(part.dtype == np.int32 for part in found)


def test_without_a_limit_users_with_many_ratings_stay():
    found = split_users(data(), dataclasses.replace(CONFIG, max_ratings=0), seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.flatnonzero(np.bincount(data().user) >= 3))


def test_the_seed_is_the_draw():
    first, again, other = (split_users(data(), CONFIG, seed=seed) for seed in (3, 3, 4))
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert set(first.test) != set(other.test)


def test_the_draw_does_not_depend_on_what_users_rated():
    changed = dataclasses.replace(data(), rating=6 - data().rating)
    for a, b in zip(split_users(data(), CONFIG, seed=3), split_users(changed, CONFIG, seed=3)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("limit", [6, 0])
def test_too_few_users_are_refused_with_their_number_the_bounds_and_a_remedy(limit):
    few = interactions(np.repeat(np.arange(5), 3), np.tile(np.arange(3), 5), np.ones(15))
    with pytest.raises(MetarecError) as error:
        split_users(few, dataclasses.replace(CONFIG, max_ratings=limit, validation=0.05), seed=0)
    message = str(error.value)
    assert "5 of 5 users have at least 3" in message
    assert ("and at most 6" in message) == (limit == 6)
    assert "validation (0.05)" in message
    assert "--episodes.min-ratings" in message


def test_no_eligible_user_is_refused():
    nobody = interactions([0, 1], [0, 1], [1, 1])
    with pytest.raises(MetarecError, match="0 of 2 users"):
        split_users(nobody, CONFIG, seed=0)


def test_statistics_are_sum_and_number_of_the_given_users_ratings():
    small = interactions([0, 0, 1, 1, 2], [0, 1, 0, 2, 0], [5, 4, 3, 2, 1], items=5)
    found = item_statistics(small, np.array([2, 0]))
    np.testing.assert_array_equal(found.total, np.float32([6, 4, 0, 0, 0]), strict=True)
    np.testing.assert_array_equal(found.count, np.float32([2, 1, 0, 0, 0]), strict=True)


def test_statistics_of_training_users_know_nothing_of_the_others():
    parts = split_users(data(), CONFIG, seed=3)
    others = ~np.isin(data().user, parts.train)
    changed = dataclasses.replace(data(), rating=np.where(others, 6 - data().rating, data().rating))
    assert (changed.rating != data().rating).any()
    for a, b in zip(item_statistics(data(), parts.train), item_statistics(changed, parts.train)):
        np.testing.assert_array_equal(a, b)
