"""The metrics by name: their titles, directions and definitions, as printed in tables and documents.

A metric is written "name" or "name@k", for example "mae" or "ndcg@5". Gains are of ratings on the standard scale of
1 to 5 (`metarec_jax.core.scale`): the least rating of the data is 1 there and the greatest 5, whatever its own unit is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from metarec_jax.core.errors import MetarecError, shown


@dataclasses.dataclass(frozen=True)
class Metric:
    """Name, title and definition of a metric.

    Attributes:
        name: name with the cutoff: "ndcg@5".
        title: title of its column in a table: "nDCG@5".
        better: whether a "lower" or a "higher" value is better.
        definition: one-line definition.
        root: whether the metric is the square root of its weighted mean.
        in_ratings: whether the metric is in the unit of the ratings.
        per_user: whether the metric is a mean over users, which `evaluate_users` can give.
    """

    name: str
    title: str
    better: Literal["lower", "higher"]
    definition: str
    root: bool = False
    in_ratings: bool = False
    per_user: bool = True


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("mae", "MAE", "lower", "mean over users of the user's mean absolute error of `point`", in_ratings=True),
        Metric(
            "rmse",
            "RMSE",
            "lower",
            "root of the mean squared error of `mean` over all query rows",
            root=True,
            in_ratings=True,
        ),
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
            "gain 2^rating - 1 of the rating on a scale of 1 to 5, discount 1 / log2(1 + rank), over the best order of "
            "the query items",
        ),
        Metric(
            "ndcg_linear@k",
            "nDCG@{k} linear",
            "higher",
            "gain = rating on a scale of 1 to 5, discount 1 / log2(1 + rank), over the best order of the query items",
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
        Metric("mae_mamo", "MAE MAMO", "lower", "mean absolute error of the level nearest to `point`", in_ratings=True),
        Metric("ndcg_mamo@k", "nDCG@{k} MAMO", "higher", "gain 2^rating - 1; the order in the first {k} is not judged"),
        Metric(
            "mae_metahin",
            "MAE MetaHIN",
            "lower",
            "mean over users of the mean absolute error of `mean`",
            in_ratings=True,
        ),
        Metric(
            "rmse_metahin",
            "RMSE MetaHIN",
            "lower",
            "mean over users of the root of the mean squared error",
            in_ratings=True,
        ),
        Metric("ndcg_metahin@k", "nDCG@{k} MetaHIN", "higher", "predicted ratings of the {k} best items as gains"),
        Metric(
            "recall_list@k", "recall@{k}", "higher", "targets among the first {k} of the list, over min({k}, targets)"
        ),
        Metric(
            "ndcg_list@k",
            "nDCG@{k}",
            "higher",
            "gain 1 for a target, discount 1 / log2(1 + rank), over the best list of min({k}, targets)",
        ),
        Metric("hit_list@k", "hit@{k}", "higher", "probability that a target is among the first {k} of the list"),
        Metric("map_list@k", "MAP@{k}", "higher", "precision at the rank of each hit, summed, over min({k}, targets)"),
        Metric("mrr_list", "MRR", "higher", "1 / rank of the first target in the list of all candidates"),
        Metric(
            "coverage_list@k",
            "coverage@{k}",
            "higher",
            "share of the candidates that are among the first {k} of at least one user's list",
            per_user=False,
        ),
        Metric(
            "novelty_list@k",
            "novelty@{k}",
            "higher",
            "mean of -log2((training clicks + 1) / (training users + 1)) over the first {k}, in bits",
        ),
        Metric(
            "popularity_list@k",
            "popularity@{k}",
            "lower",
            "mean over the first {k} of the share of training users who clicked the item: the bias to popular items",
        ),
    )
}
LISTS = (
    "recall_list@20",
    "recall_list@50",
    "ndcg_list@10",
    "ndcg_list@100",
    "mrr_list",
    "hit_list@20",
    "map_list@20",
    "novelty_list@20",
    "popularity_list@20",
    "coverage_list@20",
)
"""Metrics of tables of lists over the catalogue."""
PUBLISHED = ("first", "tanp", "mamo", "metahin")
"""Suffixes of the names of metrics that reproduce published code: `metarec_jax.metrics.published`."""

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
"""The default metrics of tables."""

TIES = "ranking metrics are exact expectations over the random order of equal scores"
"""The tie policy, as every table states it."""


def metric(name: str) -> Metric:
    """Find a metric by name; its title and definition get the cutoff.

    Raises:
        MetarecError: no metric has that name, or its cutoff is missing, not allowed or not a whole number above 0.

    >>> metric("ndcg@5").title
    'nDCG@5'
    """
    base, _, cutoff = name.partition("@")
    template = METRICS.get(f"{base}@k" if cutoff else base)
    if template is None or (
        cutoff and not (cutoff.isascii() and cutoff.isdigit() and len(cutoff) < 8 and int(cutoff) > 0)
    ):
        known = ", ".join(METRICS)
        raise MetarecError(
            f"no metric is called {shown(name)}; there are {known}, with a whole number above 0 for k (at most 7 "
            "digits)"
        )
    if not cutoff:
        return template
    k = str(int(cutoff))
    return dataclasses.replace(
        template,
        name=f"{base}@{k}",
        title=template.title.format(k=k),
        definition=template.definition.format(k=k),
    )
