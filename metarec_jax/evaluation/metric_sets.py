"""Sets of metrics: this package's own, and those of published code for comparison with published results.

Methods are compared by the package's own metrics (`metarec_jax.metrics.metrics`). Each of the other sets repeats the
computation of one repository, including its omissions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.metrics.definitions import DEFAULT_METRICS


class Mode(NamedTuple):
    """A set of metrics.

    Attributes:
        metrics: names, in the order of the table.
        headline: those that the command line prints unless it is asked for all.
        definition: description for tables.
        source: address of the code or paper; "" for the package's own.
        traps: known defects of the metrics.
    """

    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    definition: str
    source: str = ""
    traps: str = ""


MODES: Mapping[str, Mode] = {
    "own": Mode(
        (*DEFAULT_METRICS, "auc_global"),
        ("mae", "rmse", "ndcg@5", "auc"),
        "this package's metrics: exact expectations over ties, sums over users",
    ),
    "melu": Mode(
        ("mae", "ndcg_linear@1", "ndcg_linear@3"),
        ("mae", "ndcg_linear@1", "ndcg_linear@3"),
        "MeLU's MAE and nDCG@1, @3 over the query items, nDCG with gain = rating",
        "https://github.com/hoyeoplee/MeLU (no evaluation code is published) and arXiv 1908.00413, section 4.1",
        "the paper's formula has gain 2^R - 1, but its level is that of a linear gain, which is used here; ties are "
        "averaged over, since how they were broken is not known",
    ),
    "recbole-metarec": Mode(
        ("precision_first@5", "recall_first@5", "hit_first@5", "ndcg_first@5", "mrr_first@5"),
        ("precision_first@5", "ndcg_first@5", "mrr_first@5"),
        "RecBole-MetaRec's: the 5 highest labels are the positives, ties go to the earlier row",
        "https://github.com/RUCAIBox/RecBole-MetaRec, MetaCollector.eval_collect and RecBole's top-k metrics",
        "P@5 = R@5, and hit@5 is about 1, by construction; which of equal labels are positives, and in what order "
        "equal predictions stand, goes by the input order: a constant then scores what the file's order gives",
    ),
    "tanp": Mode(
        tuple(f"{name}_tanp@{k}" for k in (5, 7, 10) for name in ("precision", "ndcg", "ap")),
        ("precision_tanp@5", "ndcg_tanp@5", "ap_tanp@5"),
        "TaNP's: hits are counted by rating value, so that every order of equal labels counts alike",
        "https://github.com/IIEdm/TaNP, TaNP/utils/scorer.py",
        "with 10 query items P@10 is 1 and MAP@10 is 1 by construction; equal predictions stand in input order; AP "
        "divides by k. A user with fewer than k query items has no metric (the code fails there)",
    ),
    "mamo": Mode(
        ("mae_mamo", "ndcg_mamo@3"),
        ("mae_mamo", "ndcg_mamo@3"),
        "MAMO's: MAE of the predicted rating level; nDCG@3 of the 3 items with the highest predicted level",
        "https://github.com/dongmanqing/Code-for-MAMO, utils.py, mae and ndcg",
        "the order among the first 3 has no effect (they are sorted by their true rating before the gain is summed), "
        "and predictions are levels, so that many are tied, in input order",
    ),
    "metahin": Mode(
        ("mae_metahin", "rmse_metahin", "ndcg_metahin@5"),
        ("mae_metahin", "rmse_metahin", "ndcg_metahin@5"),
        "MetaHIN's: means over users of MAE and RMSE; nDCG@5 of predicted ratings as gains",
        "https://github.com/rootlu/MetaHIN, code/Evaluation.py",
        "the ranking is never used: the 5 items with the highest true ratings are taken in input order, and their "
        "*predicted* ratings are summed with the usual discount over the best order of the true ones, so that it can "
        "exceed 1, and predicting the greatest rating for everything is best; RMSE is a mean of users' roots",
    ),
}
"""Sets of metrics by name, as ``--metrics`` takes it."""


def mode(name: str) -> Mode:
    """Find a set of metrics by name.

    Raises:
        MetarecError: there is no such set.
    """
    if name not in MODES:
        raise MetarecError(f"no metrics are called {name!r}; there are {', '.join(MODES)}")
    return MODES[name]
