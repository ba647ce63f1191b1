"""Expectations over ties, against every order that the ties allow."""

import itertools
import math

import numpy as np
from helpers import assert_each_close
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax.core.types import Rows
from metarec_jax.metrics.metrics import Relevance, evaluate_users
from metarec_jax.metrics.predictions import Predictions
from metarec_jax.metrics.ties import expected_weight, tie_groups, top_membership

EXACT = {"floor": 1e-12, "because": "float64 throughout"}


def rows(rating, mask=None):
    rating = np.atleast_2d(np.asarray(rating, dtype=float))
    mask = np.ones(rating.shape) if mask is None else np.atleast_2d(mask).astype(float)
    return Rows(np.zeros(rating.shape, dtype=int), rating, mask, np.zeros((*rating.shape, 2)))


def judged(score, rating, name, relevance=None):
    score = np.atleast_2d(np.asarray(score, dtype=float))
    found = evaluate_users(Predictions(score, score, score), rows(rating), metrics=(name,), relevance=relevance)
    return found[name].values[0], found[name].weights[0]


def orders(values):
    """Every order of positions that puts `values` from high to low: all are equally likely."""
    levels = sorted(set(values), reverse=True)
    groups = [[i for i, v in enumerate(values) if v == level] for level in levels]
    for choice in itertools.product(*(itertools.permutations(g) for g in groups)):
        yield [i for group in choice for i in group]


def positive_sets(rating, top):
    """Every set of the `top` highest ratings, each as likely as it is drawn."""
    return [frozenset(order[:top]) for order in orders(rating)]


def brute(score, rating, k, positives, formula):
    """Mean of `formula` over every order of the predictions and every set of positives."""
    found = [formula(order[:k], positive) for order in orders(score) for positive in positives]
    return math.fsum(found) / len(found)  # of up to half a million


def hit(first, positive):
    return float(any(i in positive for i in first))


def reciprocal(first, positive):
    return next((1 / (rank + 1) for rank, i in enumerate(first) if i in positive), 0.0)


def recall(first, positive):
    return sum(i in positive for i in first) / len(positive)


def binary_ndcg(first, positive):
    gained = sum(1 / math.log2(rank + 2) for rank, i in enumerate(first) if i in positive)
    return gained / sum(1 / math.log2(rank + 2) for rank in range(min(len(positive), len(first))))


tied = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 3), min_size=n, max_size=n),
        st.lists(st.integers(1, 3), min_size=n, max_size=n),
        st.integers(1, 4),
        st.integers(1, 4),
    )
)


@settings(max_examples=80, deadline=None)
@given(tied)
def test_ranking_metrics_equal_the_mean_over_every_order_of_predictions_and_of_positives(case):
    score, rating, k, top = case
    positives = positive_sets(rating, top)
    relevance = Relevance(top=top)
    for name, formula in (("hit", hit), ("mrr", reciprocal), ("recall", recall)):
        expected = brute(score, rating, k, positives, formula)
        assert_each_close(judged(score, rating, f"{name}@{k}", relevance)[0], expected, **EXACT, name=name)
    expected = brute(score, rating, k, positives, lambda first, positive: sum(i in positive for i in first) / k)
    assert_each_close(judged(score, rating, f"precision@{k}", relevance)[0], expected, **EXACT)
    expected = brute(score, rating, k, positives, binary_ndcg)
    assert_each_close(judged(score, rating, f"ndcg_binary@{k}", relevance)[0], expected, **EXACT)


@settings(max_examples=40, deadline=None)
@given(tied)
def test_graded_ndcg_equals_the_mean_over_every_order_of_predictions(case):
    score, rating, k, _ = case
    for name, gain in (("ndcg", lambda r: 2**r - 1), ("ndcg_linear", lambda r: r)):

        def dcg(order, gain=gain):
            return sum(gain(rating[i]) / math.log2(rank + 2) for rank, i in enumerate(order[:k]))

        best = dcg(sorted(range(len(rating)), key=lambda i: -rating[i]))
        found = [dcg(order) / best for order in orders(score)]
        assert_each_close(judged(score, rating, f"{name}@{k}")[0], sum(found) / len(found), **EXACT)


@settings(max_examples=40, deadline=None)
@given(tied, st.sampled_from([1.0, 2.0, 3.0]))
def test_positives_by_threshold_equal_the_mean_over_every_order_of_predictions(case, liked):
    score, rating, k, _ = case
    positive = frozenset(i for i, r in enumerate(rating) if r >= liked)
    relevance = Relevance(top=0, liked=liked)
    for name, formula in (("hit", hit), ("mrr", reciprocal), ("recall", recall), ("ndcg_binary", binary_ndcg)):
        value, weight = judged(score, rating, f"{name}@{k}", relevance)
        if positive:
            assert_each_close(value, brute(score, rating, k, [positive], formula), **EXACT, name=name)
        assert weight == (1 if positive else 0)


def test_a_tie_of_one_sure_positive_and_two_of_which_one_is_drawn():
    # Scores all tie. Rating 5 is a positive for sure, one of the two 4s is drawn, and 3 is not. So rank 1 misses with
    # probability 1/4 (it is the 3) + 2/4 * 1/2 (it is the 4 that was not drawn) = 1/2. The two positives stand on any
    # of the 6 pairs of ranks, equally likely: the first of them on rank 1, 2, 3 in 3, 2, 1 cases.
    assert_each_close(judged([0, 0, 0, 0], [5, 4, 4, 3], "hit@1", Relevance(top=2))[0], 1 / 2)
    expected = (3 * 1 + 2 * 1 / 2 + 1 * 1 / 3) / 6
    assert_each_close(judged([0, 0, 0, 0], [5, 4, 4, 3], "mrr@4", Relevance(top=2))[0], expected)


def test_membership_shares_the_places_that_tied_ratings_compete_for():
    rating = np.array([[5.0, 4.0, 4.0, 4.0, 3.0, 9.0]])
    mask = np.array([[True, True, True, True, True, False]])
    assert_each_close(top_membership(rating, mask, 2), [[1, 1 / 3, 1 / 3, 1 / 3, 0, 0]])
    assert_each_close(top_membership(rating, mask, 9), [[1, 1, 1, 1, 1, 0]])


def test_groups_are_the_runs_of_equal_scores_and_padding_comes_last():
    groups = tie_groups(np.array([[1.0, 3.0, 1.0, 99.0]]), np.array([[True, True, True, False]]))
    np.testing.assert_array_equal(groups.order, [[1, 0, 2, 3]])
    np.testing.assert_array_equal(groups.start, [[0, 1, 1, 3]])
    np.testing.assert_array_equal(groups.stop, [[1, 3, 3, 4]])
    assert_each_close(expected_weight(groups, np.array([8.0, 4.0, 2.0, 1.0])), [[3, 8, 3, 1]])


def test_a_long_tie_stays_exact():
    # 400 tied items, 5 sure positives: P(none in the first k) = C(395, k) / C(400, k), as exact fractions.
    rating = np.where(np.arange(400) < 5, 5.0, 1.0)
    missed = math.comb(395, 50) / math.comb(400, 50)
    assert_each_close(judged(np.zeros(400), rating, "hit@50")[0], 1 - missed)
