"""Evaluation: metrics, baselines, paired comparisons, tables and plots.

`metarec_jax.evaluation.plots` is not imported here, since it needs matplotlib.
"""

from metarec_jax.evaluation.baselines import Baseline, fit_baselines
from metarec_jax.evaluation.bootstrap import Interval, paired_bootstrap
from metarec_jax.metrics.auc import LikedScores, global_auc, merge_scores
from metarec_jax.metrics.definitions import DEFAULT_METRICS, METRICS, Metric, metric
from metarec_jax.metrics.metrics import (
    Relevance,
    Sum,
    UserValues,
    compute,
    concatenate,
    evaluate_users,
    liked_scores,
    merge,
    sums,
)
from metarec_jax.metrics.predictions import Predictions

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Baseline",
    "Interval",
    "LikedScores",
    "Metric",
    "Predictions",
    "Relevance",
    "Sum",
    "UserValues",
    "compute",
    "concatenate",
    "evaluate_users",
    "fit_baselines",
    "global_auc",
    "liked_scores",
    "merge",
    "merge_scores",
    "metric",
    "paired_bootstrap",
    "sums",
]
