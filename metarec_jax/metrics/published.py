"""Metrics as published code computes them; the suffix of a metric's name is the publication.

Where the published code breaks ties by the order of its input, so do these metrics: the earlier row of the query comes
first. For torch's sorts, whose order of ties is undefined, this is the order for short inputs on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Judged(NamedTuple):
    """Predictions and true ratings of a batch; each field [users, query], mask False in padded slots."""

    point: Float[np.ndarray, "users query"]
    mean: Float[np.ndarray, "users query"]
    score: Float[np.ndarray, "users query"]
    rating: Float[np.ndarray, "users query"]
    mask: Bool[np.ndarray, "users query"]


def published_metric(
    base: str, k: int, given: Judged, levels: Sequence[float]
) -> tuple[Float[np.ndarray, " users"], Bool[np.ndarray, " users"]]:
    """Compute a metric of published code for each user.

    Args:
        base: its name without the cutoff, such as "ndcg_tanp".
        k: its cutoff; 0 where it has none.
        given: predictions and ratings.
        levels: values that a rating can take; MAMO rounds to the nearest.

    Returns:
        [users] values, and whether the metric is defined for the user.
    """
    measure, _, who = base.rpartition("_")
    some = np.asarray(given.mask.any(axis=1))
    if who == "first":
        return _first(measure, k, given), some
    if who == "tanp":
        return _tanp(measure, k, given), given.mask.sum(axis=1) >= k
    if who == "mamo":
        level = _nearest(given.point, levels)
        if measure == "mae":
            return _row_mean(np.abs(level - given.rating), given.mask), some
        return _mamo_ndcg(level, k, given), some
    assert who == "metahin", base
    if measure == "mae":
        return _row_mean(np.abs(given.mean - given.rating), given.mask), some
    if measure == "rmse":
        return np.sqrt(_row_mean((given.mean - given.rating) ** 2, given.mask)), some
    return _metahin_ndcg(k, given), some


def _row_mean(value, mask) -> Float[np.ndarray, " users"]:
    return np.where(mask, value, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)


def _discount(n: int) -> Float[np.ndarray, " n"]:
    return 1 / np.log2(np.arange(n) + 2)


def _falling(value, mask) -> np.ndarray:
    """Columns by descending `value`; the earlier column first among equal ones, padded slots last."""
    return np.argsort(np.where(mask, -value, np.inf), axis=1, kind="stable")


def _ordered(value, order, k: int) -> np.ndarray:
    return np.take_along_axis(value, order, axis=1)[:, :k]


def _first(measure: str, k: int, given: Judged) -> Float[np.ndarray, " users"]:
    """RecBole's top-k metrics, with the k highest labels as positives."""
    positive = np.zeros(given.mask.shape, bool)
    np.put_along_axis(positive, _falling(given.rating, given.mask)[:, :k], True, axis=1)
    positive &= given.mask
    hits = _ordered(positive, _falling(given.score, given.mask), k)
    number = np.maximum(positive.sum(axis=1), 1)
    if measure == "precision":
        return hits.sum(axis=1) / k
    if measure == "recall":
        return hits.sum(axis=1) / number
    if measure == "hit":
        return hits.any(axis=1).astype(float)
    if measure == "mrr":
        return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)
    assert measure == "ndcg", measure
    ideal = np.cumsum(_discount(hits.shape[1]))[np.minimum(number, hits.shape[1]) - 1]
    return hits @ _discount(hits.shape[1]) / ideal


def _tanp(measure: str, k: int, given: Judged) -> Float[np.ndarray, " users"]:
    ranked = _ordered(given.rating, _falling(given.score, given.mask), k)
    best = _ordered(given.rating, _falling(given.rating, given.mask), k)
    if measure == "ndcg":
        gained, ideal = (
            np.exp2(part) @ _discount(part.shape[1]) - _discount(part.shape[1]).sum() for part in (ranked, best)
        )
        return np.divide(gained, ideal, out=np.zeros(len(gained)), where=ideal > 0)
    # The n-th of the ranked items with some rating is a hit where the k best hold that rating n times or more.
    same = ranked[:, :, None] == ranked[:, None, :]
    earlier = np.tril(np.ones((same.shape[1], same.shape[1]), bool))
    hit = (same & earlier).sum(axis=2) <= (ranked[:, :, None] == best[:, None, :]).sum(axis=2)
    if measure == "precision":
        return hit.sum(axis=1) / k
    assert measure == "ap", measure
    return (hit * np.cumsum(hit, axis=1) / np.arange(1, hit.shape[1] + 1)).sum(axis=1) / k


def _nearest(value, levels: Sequence[float]) -> np.ndarray:
    if len(levels) < 2:
        return value
    ladder = np.sort(np.asarray(levels, np.float64))
    return ladder[np.searchsorted((ladder[1:] + ladder[:-1]) / 2, value)]


def _mamo_ndcg(level, k: int, given: Judged) -> Float[np.ndarray, " users"]:
    # A rating of 0 makes the gain of a padded slot 2^0 - 1 = 0.
    rating = np.where(given.mask, given.rating, 0)
    chosen = -np.sort(-_ordered(rating, _falling(level, given.mask), k), axis=1)
    best = -np.sort(-rating, axis=1)[:, :k]
    gained, ideal = ((np.exp2(part) - 1) @ _discount(part.shape[1]) for part in (chosen, best))
    return np.divide(gained, ideal, out=np.zeros(len(gained)), where=ideal > 0)


def _metahin_ndcg(k: int, given: Judged) -> Float[np.ndarray, " users"]:
    # As argsort()[::-1] in the published code: the later of equal true ratings comes first.
    last = given.mask.shape[1] - 1
    order = last - _falling(given.rating[:, ::-1], given.mask[:, ::-1])
    top = np.sort(np.where(_ordered(given.mask, order, k), order[:, :k], last + 1), axis=1)
    real = top <= last
    place = np.minimum(top, last)
    predicted, true = (np.where(real, np.take_along_axis(x, place, axis=1), 0.0) for x in (given.mean, given.rating))
    ideal = -np.sort(-true, axis=1) @ _discount(true.shape[1])
    return np.divide(predicted @ _discount(true.shape[1]), ideal, out=np.zeros(len(ideal)), where=ideal > 0)
