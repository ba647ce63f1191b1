"""Metrics of published code against that code written again: one user at a time, with lists."""

import math

import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.core.types import Rows
from metarec_jax.metrics.metrics import evaluate_users
from metarec_jax.metrics.predictions import Predictions

LEVELS = (1.0, 2.0, 3.0, 4.0, 5.0)


def case(seed, users=30, query=12, full=False):
    """Predictions with many ties, and ratings; users with 5 to 12 query rows, padded, or all with 12."""
    rng = np.random.default_rng(seed)
    point, mean, score = (np.round(rng.uniform(1, 5, (users, query)) * 2) / 2 for _ in range(3))
    rating = rng.integers(1, 6, (users, query)).astype(np.float32)
    count = np.full(users, query) if full else rng.integers(5, query + 1, users)
    mask = (np.arange(query) < count[:, None]).astype(np.float32)
    rows = Rows(np.zeros((users, query), np.int32), rating * mask, mask, np.zeros((users, query, 2), np.float32))
    return Predictions(point, mean, score), rows, count


def by_loop(name, seed, function, **options):
    """The metric from this package, and from `function` of each user's lists of (point, mean, score, rating)."""
    predictions, rows, count = case(seed, **options)
    (found,) = evaluate_users(predictions, rows, metrics=(name,), levels=LEVELS).values()
    want = [
        function(*(np.asarray(x)[u, : count[u]].astype(float).tolist() for x in (*predictions[:3], rows.rating)))
        for u in range(len(count))
    ]
    return found, want


def falling(values):
    """Positions by falling value; of equal ones the earlier first, as a stable sort has them."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


# RecBole-MetaRec: top-k of predictions against top-k of labels, then RecBole's formulas


def recbole(measure, k):
    def of_user(point, mean, score, rating):
        positive = set(falling(rating)[:k])
        hits = [i in positive for i in falling(score)[:k]]
        if measure == "precision":
            return sum(hits) / k
        if measure == "recall":
            return sum(hits) / len(positive)
        if measure == "hit":
            return float(any(hits))
        if measure == "mrr":
            return next((1 / (rank + 1) for rank, hit in enumerate(hits) if hit), 0.0)
        dcg = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(hits))
        return dcg / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(positive))))

    return of_user


@pytest.mark.parametrize("measure", ["precision", "recall", "hit", "mrr", "ndcg"])
@pytest.mark.parametrize("seed", [0, 1])
def test_recbole_metarec(measure, seed):
    found, want = by_loop(f"{measure}_first@5", seed, recbole(measure, 5))
    assert_each_close(found.values, want, tolerance=1e-12, because="float64 throughout")
    assert found.weights.all()


def test_recboles_ties_go_by_the_order_of_the_input():
    """The metric of a constant prediction depends on the order of the rows: it is 1 where the best come first."""
    rating = np.float32([[5, 5, 5, 4, 4, 3, 2, 1, 1, 1]])
    rows = Rows(np.zeros((1, 10), np.int32), rating, np.ones((1, 10), np.float32), np.zeros((1, 10, 2), np.float32))
    constant = Predictions(*np.full((3, 1, 10), 3.0))
    turned = rows._replace(rating=rating[:, ::-1])
    first, last = (
        evaluate_users(constant, r, metrics=("precision_first@5", "precision@5"), levels=LEVELS) for r in (rows, turned)
    )
    assert first["precision_first@5"].values == [1.0]
    assert last["precision_first@5"].values == [0.0]
    assert first["precision@5"].values == last["precision@5"].values == [0.5]


# TaNP: utils/scorer.py


def tanp(measure, k):
    def of_user(point, mean, score, rating):
        ranked = [rating[i] for i in falling(score)]
        if measure == "ndcg":
            gain = [2**r - 1 for r in ranked]
            best = sorted((2**r - 1 for r in rating), reverse=True)
            dcg, idcg = (sum(g / math.log(i + 2, 2) for i, g in enumerate(part[:k])) for part in (gain, best))
            return dcg / idcg
        left = sorted(rating, reverse=True)[:k]
        hits, total = 0, 0.0
        for i, value in enumerate(ranked[:k]):
            if value in left:
                left.remove(value)
                hits += 1
                total += hits / (i + 1)
        return hits / k if measure == "precision" else total / k

    return of_user


@pytest.mark.parametrize("measure", ["precision", "ap", "ndcg"])
@pytest.mark.parametrize("k", [5, 7, 10])
def test_tanp(measure, k):
    found, want = by_loop(f"{measure}_tanp@{k}", k, tanp(measure, k), full=True)
    assert_each_close(found.values, want, tolerance=1e-12, because="float64 throughout")


def test_tanp_is_undefined_for_a_user_with_too_few_items():
    predictions, rows, count = case(3)
    (found,) = evaluate_users(predictions, rows, metrics=("precision_tanp@10",), levels=LEVELS).values()
    np.testing.assert_array_equal(found.weights > 0, count >= 10)


# MAMO: utils.py, on predicted levels


def nearest(value):
    return min(LEVELS, key=lambda level: (abs(level - value), level))


def mamo_mae(point, mean, score, rating):
    return sum(abs(nearest(p) - r) for p, r in zip(point, rating)) / len(rating)


def mamo_ndcg(point, mean, score, rating):
    levels = [nearest(p) for p in point]
    top = sorted((rating[i] for i in falling(levels)[:3]), reverse=True)
    best = sorted(rating, reverse=True)[:3]
    dcg, idcg = (sum((2**r - 1) / math.log2(n + 1) for n, r in enumerate(part, start=1)) for part in (top, best))
    return dcg / idcg


@pytest.mark.parametrize(("name", "function"), [("mae_mamo", mamo_mae), ("ndcg_mamo@3", mamo_ndcg)])
@pytest.mark.parametrize("seed", [0, 1])
def test_mamo(name, function, seed):
    found, want = by_loop(name, seed, function)
    assert_each_close(found.values, want, tolerance=1e-12, because="float64 throughout")


# MetaHIN: code/Evaluation.py


def metahin_ndcg(point, mean, score, rating):
    rating, mean = np.array(rating), np.array(mean)
    chosen = sorted(np.argsort(rating, kind="stable")[::-1][:5])
    real, predicted = rating[chosen], mean[chosen]

    def dcg(values):
        return values[0] + sum(v / math.log(i + 1, 2) for i, v in enumerate(values[1:], start=2))

    return dcg(predicted) / dcg(sorted(real, reverse=True))


METAHIN = {
    "mae_metahin": lambda point, mean, score, rating: np.abs(np.subtract(mean, rating)).mean(),
    "rmse_metahin": lambda point, mean, score, rating: math.sqrt(np.square(np.subtract(mean, rating)).mean()),
    "ndcg_metahin@5": metahin_ndcg,
}


@pytest.mark.parametrize("name", METAHIN)
@pytest.mark.parametrize("seed", [0, 1])
def test_metahin(name, seed):
    found, want = by_loop(name, seed, METAHIN[name])
    assert_each_close(found.values, want, tolerance=1e-12, because="float64 throughout")


def test_metahins_ndcg_is_best_for_the_greatest_rating_everywhere():
    predictions, rows, _ = case(0)
    greatest = predictions._replace(mean=np.full_like(predictions.mean, 5.0))
    (found,) = evaluate_users(greatest, rows, metrics=("ndcg_metahin@5",), levels=LEVELS).values()
    assert (found.values >= 1).all()


# MeLU


def test_melus_ndcg_is_linear():
    def of_user(point, mean, score, rating):
        dcg, idcg = rating[falling(score)[0]], max(rating)
        return dcg / idcg

    predictions, rows, count = case(2)
    distinct = predictions._replace(score=predictions.score + np.linspace(0, 0.1, 12))
    found = evaluate_users(distinct, rows, metrics=("ndcg_linear@1",), levels=LEVELS)["ndcg_linear@1"]
    want = [
        of_user(None, None, distinct.score[u, :n].tolist(), rows.rating[u, :n].tolist()) for u, n in enumerate(count)
    ]
    assert_each_close(found.values, want, tolerance=1e-12, because="float64 throughout")
