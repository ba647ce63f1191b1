"""Metrics per user, as sums that merge; every ranking metric is an exact expectation over ties (see `ties`).

`evaluate_users` gives each metric as a value and a weight for each user. Those are kept, because a paired bootstrap
resamples users; `sums` totals them, `merge` adds the totals of batches, and `compute` divides at the very end, so
that no mean of batch means can creep in.

A metric is written "name" or "name@k", for example "mae", "ndcg@5". `METRICS` defines the names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Array, Rows
from metarec_jax.evaluation.published import Judged, published_metric
from metarec_jax.metrics.auc import LikedScores, user_auc
from metarec_jax.metrics.predictions import Predictions
from metarec_jax.metrics.ties import expected_weight, no_positive_before, tie_groups, top_membership


@dataclasses.dataclass(frozen=True)
class Metric:
    """What a metric is, as tables and documents print it.

    Attributes:
        name: as it is asked for, with its cutoff: "ndcg@5".
        title: as a table heads its column: "nDCG@5".
        better: whether a "lower" or a "higher" value is better.
        definition: one line.
        root: whether the metric is the square root of its weighted mean.
        per_user: whether the metric is a mean over users, which `evaluate_users` can give.
    """

    name: str
    title: str
    better: Literal["lower", "higher"]
    definition: str
    root: bool = False
    per_user: bool = True


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("mae", "MAE", "lower", "mean over users of the user's mean absolute error of `point`"),
        Metric("rmse", "RMSE", "lower", "root of the mean squared error of `mean` over all query rows", root=True),
        Metric(
            "accuracy",
            "accuracy",
            "higher",
            "mean over users of the share of rows whose rating is the level nearest to `point`; "
            "half-way between two levels counts half",
        ),
        Metric(
            "ndcg@k",
            "nDCG@{k}",
            "higher",
            "gain 2^rating - 1, discount 1 / log2(1 + rank), over the best order of the query items",
        ),
        Metric(
            "ndcg_linear@k",
            "nDCG@{k} linear",
            "higher",
            "gain = rating, discount 1 / log2(1 + rank), over the best order of the query items",
        ),
        Metric(
            "ndcg_binary@k",
            "nDCG@{k} binary",
            "higher",
            "gain 1 for a positive, discount 1 / log2(1 + rank), over the best order of the query items",
        ),
        Metric("precision@k", "P@{k}", "higher", "positives among the first {k} ranks, over {k}"),
        Metric("recall@k", "R@{k}", "higher", "positives among the first {k} ranks, over the user's positives"),
        Metric("hit@k", "hit@{k}", "higher", "probability that a positive is among the first {k} ranks"),
        Metric("mrr@k", "MRR@{k}", "higher", "1 / rank of the first positive, 0 where it is beyond rank {k}"),
        Metric(
            "auc",
            "AUC",
            "higher",
            "share of a user's pairs of unequal ratings that are in the right order; tied scores count half",
        ),
        Metric(
            "auc_liked",
            "AUC liked",
            "higher",
            "share of a user's (liked, not liked) pairs that are in the right order; tied scores count half",
        ),
        Metric(
            "auc_global",
            "AUC liked, global",
            "higher",
            "share of all (liked, not liked) pairs, also of different users, that are in the right order",
            per_user=False,
        ),
        Metric("precision_first@k", "P@{k} in file order", "higher", "P@{k} of the {k} highest labels, ties by order"),
        Metric("recall_first@k", "R@{k} in file order", "higher", "R@{k} of the {k} highest labels, ties by order"),
        Metric("hit_first@k", "hit@{k} in file order", "higher", "hit@{k} of the {k} highest labels, ties by order"),
        Metric("mrr_first@k", "MRR@{k} in file order", "higher", "MRR@{k} of the {k} highest labels, ties by order"),
        Metric("ndcg_first@k", "nDCG@{k} binary, in file order", "higher", "gain 1 for the {k} highest labels"),
        Metric("precision_tanp@k", "P@{k} TaNP", "higher", "share of the {k} best ratings among the first {k} ranks"),
        Metric("ap_tanp@k", "MAP@{k} TaNP", "higher", "precision at each hit, summed, over {k}"),
        Metric("ndcg_tanp@k", "nDCG@{k} TaNP", "higher", "gain 2^rating - 1, ties by order"),
        Metric("mae_mamo", "MAE MAMO", "lower", "mean absolute error of the level nearest to `point`"),
        Metric("ndcg_mamo@k", "nDCG@{k} MAMO", "higher", "gain 2^rating - 1; the order in the first {k} is not judged"),
        Metric("mae_metahin", "MAE MetaHIN", "lower", "mean over users of the mean absolute error of `mean`"),
        Metric("rmse_metahin", "RMSE MetaHIN", "lower", "mean over users of the root of the mean squared error"),
        Metric("ndcg_metahin@k", "nDCG@{k} MetaHIN", "higher", "predicted ratings of the {k} best items as gains"),
    )
}
PUBLISHED = ("first", "tanp", "mamo", "metahin")
"""Ends of the names of metrics that repeat other people's code: `metarec_jax.evaluation.published`."""

DEFAULT_METRICS = (
    "mae",
    "rmse",
    "accuracy",
    "ndcg@5",
    "ndcg_linear@5",
    "ndcg_binary@5",
    "precision@5",
    "recall@5",
    "hit@5",
    "mrr@5",
    "auc",
    "auc_liked",
)
"""Protocol B's metrics, and what else the same predictions tell."""

TIES = "ranking metrics are exact expectations over the random order of equal scores"
"""The tie policy, as every table states it."""


@dataclasses.dataclass(frozen=True)
class Relevance:
    """Which query items are positives, for the metrics that need two kinds.

    Attributes:
        top: the `top` highest ratings of a user are the positives (equal ratings at the border drawn at random, and
            the expectation taken over the draws); 0 makes the liked items the positives.
        liked: an item is liked from this rating on. Both AUCs between liked and other items always use it.
    """

    top: int = 5
    liked: float = 4.0

    def __post_init__(self) -> None:
        if self.top < 0:
            raise MetarecError(
                f"relevance.top is {self.top}; it must be a number of items, or 0 to use relevance.liked"
            )

    def __str__(self) -> str:
        return (
            f"positives are the {self.top} highest ratings of a user, ties drawn at random"
            if self.top
            else f"positives are ratings of at least {self.liked:g}"
        )


class UserValues(NamedTuple):
    """A metric user by user; the metric over users is the weighted mean (its root, for RMSE).

    Attributes:
        values: 0 where the metric is undefined for a user.
        weights: 0 where it is undefined, and for users that only fill up a batch.
    """

    values: Float[np.ndarray, " users"]
    weights: Float[np.ndarray, " users"]


class Sum(NamedTuple):
    """Total of value x weight, and total weight."""

    total: float
    weight: float


def metric(name: str) -> Metric:
    """The metric called `name`, its cutoff filled in.

    Raises:
        MetarecError: no metric has that name, or its cutoff is missing, unwanted or not a whole number above 0.

    >>> metric("ndcg@5").title
    'nDCG@5'
    """
    base, _, cutoff = name.partition("@")
    template = METRICS.get(f"{base}@k" if cutoff else base)
    if template is None or (cutoff and not (cutoff.isascii() and cutoff.isdigit() and int(cutoff) > 0)):
        known = ", ".join(METRICS)
        raise MetarecError(f"no metric is called {name!r}; there are {known}, with a whole number above 0 for k")
    if not cutoff:
        return template
    k = str(int(cutoff))
    return dataclasses.replace(
        template,
        name=f"{base}@{k}",
        title=template.title.format(k=k),
        definition=template.definition.format(k=k),
    )


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
    """Judge a method's predictions on the query rows, user by user.

    Args:
        predictions: [users, query] each; padded slots may hold anything.
        query: the truth, [users, query].
        method: what to call the method in an error.
        users: what to call the users in an error; their positions where None.
        weight: [users], 0 for users that only fill up the batch; 1 for everyone where None.
        metrics: names, see `METRICS`.
        relevance: which items are positives; the 5 highest ratings where None.
        levels: values that a rating can take. Accuracy needs them, and is left out without them.

    Returns:
        Each metric by name. A user without query rows has weight 0; so has, for the metrics that need positives, a
        user without any (liked) positive, and for the AUCs a user without a pair to order. nDCG is undefined where
        the best order gains nothing.

    Raises:
        MetarecError: an unknown metric, a prediction or rating that is not finite, or a negative rating where nDCG
            is asked for (a gain below 0 would leave it without an upper bound).
    """
    rating, mask = np.asarray(query.rating, dtype=np.float64), np.asarray(query.mask) > 0
    fields = {name: np.asarray(getattr(predictions, name), dtype=np.float64) for name in ("point", "mean", "score")}
    for name, value in fields.items():
        if value.shape != rating.shape:
            raise ValueError(f"{method}: {name} has shape {value.shape}, but the query has {rating.shape}")
    who = list(range(len(rating))) if users is None else users
    for name, value in (*fields.items(), ("rating", rating)):
        _require_finite(value, mask, method, name, who)
    point, mean, score, rating = (np.where(mask, x, 0.0) for x in (*fields.values(), rating))

    weight = np.ones(len(rating)) if weight is None else np.asarray(weight, dtype=np.float64)
    rows = mask.sum(axis=1)
    weight = weight * (rows > 0)
    judge = _Judge(score, rating, mask, relevance or Relevance())
    result = {}
    for spec in (metric(name) for name in metrics):
        base, _, cutoff = spec.name.partition("@")
        if not spec.per_user:
            raise MetarecError(f"{spec.name} is no mean over users: compute it with global_auc(liked_scores(...))")
        if base == "mae":
            values, defined = _row_mean(np.abs(point - rating), rows), weight
        elif base == "rmse":
            values, defined = _row_mean(np.where(mask, mean - rating, 0.0) ** 2, rows), weight * rows
        elif base == "accuracy":
            if len(levels) == 0:
                continue
            values, defined = (
                _row_mean(_level_hits(point, rating, np.sort(np.asarray(levels, dtype=np.float64))) * mask, rows),
                weight,
            )
        elif base.rpartition("_")[2] in PUBLISHED:
            given = Judged(point, mean, score, rating, mask)
            values, exists = published_metric(base, int(cutoff or 0), given, levels)
            defined = weight * exists
        else:
            if base in ("ndcg", "ndcg_linear") and (rating < 0).any():
                row, column = np.argwhere(rating < 0)[0]
                raise MetarecError(
                    f"{spec.title} needs ratings of at least 0, but user {who[row]} gave {rating[row, column]:g}; "
                    "shift the ratings, or leave this metric out"
                )
            values, exists = judge.ranking(base, int(cutoff or 0))
            defined = weight * exists
        result[spec.name] = UserValues(np.where(defined > 0, values, 0.0), defined)
    return result


def liked_scores(
    predictions: Predictions, query: Rows, *, weight: Array | None = None, relevance: Relevance | None = None
) -> LikedScores:
    """What `metarec_jax.metrics.auc.global_auc` needs of these rows. Users of weight 0 are left out."""
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
    """The totals of all `parts` together."""
    names = dict.fromkeys(name for part in parts for name in part)
    found = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: Sum(sum(s.total for s in f), sum(s.weight for s in f)) for name, f in found.items()}


def compute(totals: Mapping[str, Sum]) -> dict[str, float]:
    """The metrics that `totals` stand for; NaN where no user had the metric defined."""
    result = {}
    for name, (total, weight) in totals.items():
        mean = total / weight if weight > 0 else math.nan
        result[name] = math.sqrt(mean) if metric(name).root else mean
    return result


def concatenate(parts: Sequence[Mapping[str, UserValues]]) -> dict[str, UserValues]:
    """The users of all `parts`, one after the other: batches of unequal length come together here."""
    return {
        name: UserValues(
            np.concatenate([part[name].values for part in parts]),
            np.concatenate([part[name].weights for part in parts]),
        )
        for name in parts[0]
    }


class _Judge:
    """The order of the predictions and the positives, worked out once for all ranking metrics that share them."""

    def __init__(self, score, rating, mask, relevance: Relevance) -> None:
        self.score, self.rating, self.mask = score, rating, mask
        self.liked = mask & (rating >= relevance.liked)
        self.groups = tie_groups(score, mask)
        self.membership = top_membership(rating, mask, relevance.top) if relevance.top else self.liked.astype(float)
        self.positives = np.rint(self.membership.sum(axis=1))

    def ranking(self, base: str, k: int) -> tuple[Float[np.ndarray, " users"], Bool[np.ndarray, " users"]]:
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
        if gain is self.membership:  # a draw of positives always has the same best order: positives first
            ideal = np.concatenate([[0.0], np.cumsum(discount)])[self.positives.astype(int)]
        else:
            ideal = (gain * expected_weight(tie_groups(gain, self.mask), discount)).sum(axis=1)
        return np.divide(gained, ideal, out=np.zeros(len(gained)), where=ideal > 0), ideal > 0


def _row_mean(value, rows) -> Float[np.ndarray, " users"]:
    return value.sum(axis=1) / np.maximum(rows, 1)


def _level_hits(point, rating, levels) -> Float[np.ndarray, "users query"]:
    """1 where the level nearest to `point` is the rating's, 1/2 where it is one of the two nearest."""
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
