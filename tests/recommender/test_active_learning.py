"""Questions to a new user: chosen by what their answers would tell."""

import itertools

import numpy as np
import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Rows
from metarec_jax.recommender.active_learning import TastePosterior, choose, taste_posterior

RNG = np.random.default_rng(3)
RANK, ITEMS = 3, 9
FACTORS = RNG.normal(size=(ITEMS, RANK))
SPREAD = RNG.uniform(0.5, 1.5, ITEMS)
WEIGHT = RNG.dirichlet(np.ones(ITEMS))
EVERY = np.ones(ITEMS, bool)


def open_variance(rows):
    """Weighted variance of what tastes explain, once `rows` were rated: by the precision form."""
    told = sum((np.outer(FACTORS[r], FACTORS[r]) / SPREAD[r] for r in rows), np.eye(RANK))
    return float(WEIGHT @ np.einsum("ir,rs,is->i", FACTORS, np.linalg.inv(told), FACTORS))


def about(rows=()):
    covariance = np.linalg.inv(sum((np.outer(FACTORS[r], FACTORS[r]) / SPREAD[r] for r in rows), np.eye(RANK)))
    return TastePosterior(covariance, FACTORS, SPREAD)


def test_a_gain_is_the_reduction_of_the_variance():
    rows, gains = choose(about(), np.ones(ITEMS), WEIGHT, EVERY, 4)
    asked = [open_variance(rows[:n]) for n in range(5)]
    np.testing.assert_allclose(-np.diff(asked), gains, rtol=1e-9)
    assert open_variance(rows[:1]) == min(open_variance([r]) for r in range(ITEMS))


def test_greedy_questions_come_close_to_the_best_set():
    rows, _ = choose(about(), np.ones(ITEMS), WEIGHT, EVERY, 3)
    best = min(open_variance(some) for some in itertools.combinations(range(ITEMS), 3))
    assert open_variance(()) - open_variance(rows) >= 0.9 * (open_variance(()) - best)


def test_a_later_question_depends_on_earlier_answers():
    first, _ = choose(about(), np.ones(ITEMS), WEIGHT, EVERY, 1)
    rest, gains = choose(about(first), np.ones(ITEMS), WEIGHT, EVERY, 1)
    _, both = choose(about(), np.ones(ITEMS), WEIGHT, EVERY, 2)
    if rest[0] != first[0]:
        np.testing.assert_allclose(gains[0], both[1], rtol=1e-9)
    assert open_variance([*first, *rest]) < open_variance(first)


def test_items_without_ratings_are_not_asked_about():
    chance = np.where(np.arange(ITEMS) < 4, 1.0, 1e-6)
    rows, _ = choose(about(), chance, WEIGHT, EVERY, 4)
    assert sorted(rows) == [0, 1, 2, 3]
    allowed = np.arange(ITEMS) == 5
    rows, gains = choose(about(), chance, WEIGHT, allowed, 4)
    assert rows.tolist() == [5]
    assert len(gains) == 1


def test_the_taste_posterior_is_that_of_the_real_support_rows():
    items = np.concatenate([np.zeros((ITEMS, 3)), SPREAD[:, None] - 0.25, FACTORS], axis=1)
    prior = {"log_gain": np.log(4.0), "log_noise": np.log(0.25)}
    none = np.zeros(4, np.float32)
    support = Rows(np.array([2, 7, 0, 0], np.int32), none, np.array([1, 1, 0, 0], np.float32), none)
    found = taste_posterior(prior, items, support)
    np.testing.assert_allclose(found.factors, 2 * FACTORS)
    np.testing.assert_allclose(found.noise, SPREAD)
    told = sum(np.outer(2 * FACTORS[r], 2 * FACTORS[r]) / SPREAD[r] for r in (2, 7))
    np.testing.assert_allclose(np.linalg.inv(found.covariance), np.eye(RANK) + told, rtol=1e-9)
    padded = taste_posterior(prior, items, support._replace(item=np.array([2, 7, 5, 5], np.int32)))
    np.testing.assert_array_equal(padded.covariance, found.covariance)


def test_rated_and_unknown_items_are_not_asked_about(believer):
    state = believer.adapt()
    first = believer.interview(state, 4)
    assert len({question.id for question in first}) == 4
    rated = believer.adapt({f"id:{first[0].id}": 5, f"id:{first[1].id}": 1})
    later = believer.interview(rated, 4, skip=[f"id:{first[2].id}"])
    assert not {question.id for question in first[:3]} & {question.id for question in later}
    assert max(question.gain for question in later) < first[0].gain
    assert all(0 < question.known <= 1 for question in first)
    assert len(believer.interview(state, 10_000)) == len(believer.catalogue.items)


def test_questions_can_be_restricted_to_known_items(believer):
    """And what the answers tell counts for these alone."""
    some = [f"id:{identity}" for identity in believer.catalogue.items.ids[5:12]]
    asked = believer.interview(believer.adapt(), 3, among=some)
    assert {f"id:{question.id}" for question in asked} < set(some)
    rated = believer.adapt({some[0]: 4})
    left = believer.interview(rated, 10_000, skip=[some[1]], among=some)
    assert {f"id:{question.id}" for question in left} == set(some[2:])
    # An item that tells of itself alone: what it tells is all there is to know.
    (only,) = believer.interview(believer.adapt(), among=some[:1])
    spread = believer.interview(believer.adapt(), 10_000)
    assert only.gain > max(question.gain for question in spread if question.id == only.id)


def test_an_impossible_interview_is_refused(believer, recommender):
    for k in (0, -1):
        with pytest.raises(MetarecError, match=f"k is {k}; it must be at least 1"):
            believer.interview(believer.adapt(), k)
    with pytest.raises(MetarecError, match="no item is called 'Nobody'"):
        believer.interview(believer.adapt(), skip=["Nobody"])
    with pytest.raises(MetarecError, match=r"train one with --factors\.rank 32"):
        recommender.interview(recommender.adapt())
