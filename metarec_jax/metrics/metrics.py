"""Metrics of each user, and their sums over users; ranking metrics are exact expectations over ties (see `ties`).

`evaluate_users` returns a value and a weight of each metric for each user, since a paired bootstrap resamples users.
`sums` totals them, `merge` adds the totals of batches, and `compute` divides at the end: a mean of batch means would
weight users of unequal batches unequally.

`metarec_jax.metrics.definitions` defines the metrics by name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import LIKED, Scale
from metarec_jax.core.types import Array, Rows
from metarec_jax.metrics.auc import LikedScores, user_auc
from metarec_jax.metrics.definitions import DEFAULT_METRICS, PUBLISHED, metric
from metarec_jax.metrics.predictions import Predictions
from metarec_jax.metrics.published import Judged, published_metric
from metarec_jax.metrics.ties import expected_weight, no_positive_before, tie_groups, top_membership


@dataclasses.dataclass(frozen=True)
class Relevance:
    """Which query items are positives, for the metrics that divide items into positives and negatives.

    Attributes:
        top: the `top` highest ratings of a user are the positives (a random choice among equal ratings at the border;
            metrics are expectations over the choice); 0 makes the liked items the positives.
        liked: the least rating of a liked item, on the standard scale. "auc_liked" and "auc_global" compare liked
            items with the others.
    """

    top: int = 5
    liked: float = LIKED

    def __post_init__(self) -> None:
        if self.top < 0:
            raise MetarecError(
                f"relevance.top is {self.top}; it must be a number of items, or 0 to use relevance.liked"
            )

    @classmethod
    def of(cls, scale: Scale) -> Relevance:
        """The positives of a data set: for ratings the 5 highest; for clicks what was clicked."""
        return cls(top=0 if scale.kind == "click" else 5, liked=scale.least_liked)

    def __str__(self) -> str:
        return (
            f"positives are the {self.top} highest ratings of a user, ties drawn at random"
            if self.top
            else "positives are liked items"
        )


class UserValues(NamedTuple):
    """Values of a metric for each user; the metric over users is the weighted mean (its root, for RMSE).

    Attributes:
        values: values; 0 where the metric is undefined for a user.
        weights: weights; 0 where it is undefined, and for users that only fill up a batch.
    """

    values: Float[np.ndarray, " users"]
    weights: Float[np.ndarray, " users"]


class Sum(NamedTuple):
    """Sum of value x weight, and sum of weights."""

    total: float
    weight: float


def evaluate_users(
    predictions: Predictions,
    query: Rows,
    *,
    method: str = "the method",
    users: Sequence[object] | Array | None = None,
    weight: Array | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    relevance: Relevance | None = None,
    levels: Sequence[float] = (),
) -> dict[str, UserValues]:
    """Compute metrics of a method's predictions on the query rows, user by user.

    Args:
        predictions: [users, query] each; padded slots may hold anything.
        query: the true ratings, [users, query]. They and the predictions are on the standard scale: 1 to 5, or for
            clicks 0 to 1.
        method: what to call the method in an error.
        users: what to call the users in an error; their positions where None.
        weight: [users], 0 for users that only fill up the batch; 1 for everyone where None.
        metrics: names, see `metarec_jax.metrics.definitions.METRICS`.
        relevance: which items are positives; the 5 highest ratings where None.
        levels: values that a rating can take; accuracy needs them, and is left out without them.

    Returns:
        Each metric by name. The weight is 0 where a metric is undefined: for a user without query rows; for the metrics
        that need positives, without a (liked) positive; for AUC, without a pair of unequal labels; for nDCG, where the
        best order gains nothing.

    Raises:
        MetarecError: an unknown metric, a prediction or rating that is not finite, or a negative rating where nDCG
            is asked for (with a gain below 0 it would have no upper bound).
    """
    rating, mask = np.asarray(query.rating, dtype=np.float64), np.asarray(query.mask) > 0
    fields = {name: np.asarray(getattr(predictions, name), dtype=np.float64) for name in ("point", "mean", "score")}
    for name, value in fields.items():
        if value.shape != rating.shape:
            raise ValueError(f"{method}: {name} has shape {value.shape}, but the query has {rating.shape}")
    who = list(range(len(rating))) if users is None else users
    for name, value in (*fields.items(), ("rating", rating)):
        _require_finite(value, mask, method, name, who)
    point, mean, score, rating = (np.where(mask, value, 0.0) for value in (*fields.values(), rating))
    given = Judged(point, mean, score, rating, mask)

    weight = np.ones(len(rating)) if weight is None else np.asarray(weight, dtype=np.float64)
    weight = weight * mask.any(axis=1)
    ranking = _Ranking(given, relevance or Relevance())
    result = {}
    for spec in map(metric, metrics):
        base, _, cutoff = spec.name.partition("@")
        if not spec.per_user:
            raise MetarecError(f"{spec.name} is not a mean over users: compute it with global_auc(liked_scores(...))")
        if base == "accuracy" and len(levels) == 0:
            continue
        if base in ("ndcg", "ndcg_linear") and (given.rating < 0).any():
            row, column = np.argwhere(given.rating < 0)[0]
            raise MetarecError(
                f"{spec.title} needs ratings of at least 0, but user {who[row]} gave {given.rating[row, column]:g}; "
                "shift the ratings, or leave this metric out"
            )
        values, defined = _values(base, int(cutoff or 0), given, ranking, levels)
        result[spec.name] = UserValues(np.where(weight * defined > 0, values, 0.0), weight * defined)
    return result


def _values(
    base: str, k: int, given: Judged, ranking: _Ranking, levels: Sequence[float]
) -> tuple[Float[np.ndarray, " users"], Array]:
    """Metric `base` at cutoff `k` (0 without one) for each user, and its weight: 0 where it is undefined."""
    rows = given.mask.sum(axis=1)
    if base == "mae":
        return _row_mean(np.abs(given.point - given.rating), rows), rows > 0
    if base == "rmse":
        return _row_mean((given.mean - given.rating) ** 2, rows), rows
    if base == "accuracy":
        return _row_mean(_level_hits(given.point, given.rating, levels) * given.mask, rows), rows > 0
    if base.rpartition("_")[2] in PUBLISHED:
        return published_metric(base, k, given, levels)
    return ranking.metric(base, k)


def liked_scores(
    predictions: Predictions, query: Rows, *, weight: Array | None = None, relevance: Relevance | None = None
) -> LikedScores:
    """Collect the scores that `metarec_jax.metrics.auc.global_auc` reads; users of weight 0 are left out.

    Args:
        predictions: ``score`` is read, [users, query].
        query: the true ratings, [users, query].
        weight: [users], 0 for users that only fill up the batch; None gives all users weight 1.
        relevance: ``liked`` is read; None takes the default.

    Returns:
        Scores of liked rows and of other rows.
    """
    mask = np.asarray(query.mask) > 0
    if weight is not None:
        mask = mask & (np.asarray(weight) > 0)[:, None]
    score = np.asarray(predictions.score, dtype=np.float64)[mask]
    liked = np.asarray(query.rating)[mask] >= (relevance or Relevance()).liked
    return LikedScores(score[liked], score[~liked])


def sums(values: Mapping[str, UserValues]) -> dict[str, Sum]:
    """Totals over the users."""
    return {name: Sum(float(v.values @ v.weights), float(v.weights.sum())) for name, v in values.items()}


def merge(parts: Sequence[Mapping[str, Sum]]) -> dict[str, Sum]:
    """Add up the totals of several batches."""
    names = dict.fromkeys(name for part in parts for name in part)
    found = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: Sum(sum(s.total for s in f), sum(s.weight for s in f)) for name, f in found.items()}


def compute(totals: Mapping[str, Sum]) -> dict[str, float]:
    """The metrics over all users, from their totals; NaN where the metric is undefined for every user."""
    result = {}
    for name, (total, weight) in totals.items():
        mean = total / weight if weight > 0 else math.nan
        result[name] = math.sqrt(mean) if metric(name).root else mean
    return result


def concatenate(parts: Sequence[Mapping[str, UserValues]]) -> dict[str, UserValues]:
    """Concatenate the values of several batches along users."""
    return {
        name: UserValues(
            np.concatenate([part[name].values for part in parts]),
            np.concatenate([part[name].weights for part in parts]),
        )
        for name in parts[0]
    }


class _Ranking:
    """The order of the predictions and the positives, computed once for all ranking metrics."""

    def __init__(self, given: Judged, relevance: Relevance) -> None:
        self.score, self.rating, self.mask = given.score, given.rating, given.mask
        self.liked = self.mask & (self.rating >= relevance.liked)
        self.groups = tie_groups(self.score, self.mask)
        self.membership = (
            top_membership(self.rating, self.mask, relevance.top) if relevance.top else self.liked.astype(float)
        )
        self.positives = np.rint(self.membership.sum(axis=1))

    def metric(self, base: str, k: int) -> tuple[Float[np.ndarray, " users"], Bool[np.ndarray, " users"]]:
        """Metric `base` at cutoff `k` for each user, and whether it is defined there."""
        if base == "auc":
            values, pairs = user_auc(self.score, self.rating, self.mask)
            return values, pairs > 0
        if base == "auc_liked":
            values, pairs = user_auc(self.score, self.liked.astype(float), self.mask)
            return values, pairs > 0
        if base == "ndcg":
            return self._ndcg(np.where(self.mask, np.exp2(self.rating) - 1, 0.0), k)
        if base == "ndcg_linear":
            return self._ndcg(self.rating, k)
        if base == "ndcg_binary":
            return self._ndcg(self.membership, k)
        exists = self.positives > 0
        if base in ("precision", "recall"):
            found = (self.membership * expected_weight(self.groups, self._first(k))).sum(axis=1)
            return found / (k if base == "precision" else np.maximum(self.positives, 1)), exists
        nothing = no_positive_before(self.groups, self.membership, min(k, self.mask.shape[1]))
        if base == "hit":
            return 1 - nothing[:, -1], exists
        assert base == "mrr", base
        return -np.diff(nothing, axis=1) @ (1 / np.arange(1, nothing.shape[1])), exists

    def _first(self, k: int) -> Float[np.ndarray, " query"]:
        return (np.arange(self.mask.shape[1]) < k).astype(float)

    def _ndcg(self, gain, k: int) -> tuple[Float[np.ndarray, " users"], Bool[np.ndarray, " users"]]:
        discount = self._first(k) / np.log2(np.arange(self.mask.shape[1]) + 2)
        gained = (gain * expected_weight(self.groups, discount)).sum(axis=1)
        if gain is self.membership:  # the best order has the positives first, whichever of equal ratings they are
            ideal = np.concatenate([[0.0], np.cumsum(discount)])[self.positives.astype(int)]
        else:
            ideal = (gain * expected_weight(tie_groups(gain, self.mask), discount)).sum(axis=1)
        return np.divide(gained, ideal, out=np.zeros(len(gained)), where=ideal > 0), ideal > 0


def _row_mean(value, rows) -> Float[np.ndarray, " users"]:
    return value.sum(axis=1) / np.maximum(rows, 1)


def _level_hits(point, rating, levels) -> Float[np.ndarray, "users query"]:
    """1 where the level nearest to `point` is that of the rating, 1/2 where it is one of two equally near levels."""
    levels = np.sort(np.asarray(levels, dtype=np.float64))
    nearest = np.full(point.shape, np.inf)
    shared = np.zeros(point.shape)
    for level in levels:
        distance = np.abs(point - level)
        shared = np.where(distance < nearest, 1.0, shared + (distance == nearest))
        nearest = np.minimum(nearest, distance)
    # A float32 rating of 0.1 is not the level 0.1, so the truth is a level too before the two are compared.
    truth = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, rating)]
    return (np.abs(point - truth) == nearest) / shared


def _require_finite(value, mask, method: str, name: str, users: Sequence[object] | Array) -> None:
    bad = mask & ~np.isfinite(value)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        what = f"a rating in the query of user {users[row]}" if name == "rating" else f"{name} of user {users[row]}"
        raise MetarecError(
            f"{method}: {what} (query slot {column}) is {value[row, column]}, and {int(bad.sum()) - 1} more are not "
            "finite; metrics need finite numbers, so check the training loss for divergence and the input for gaps"
        )
