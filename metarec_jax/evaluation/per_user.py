"""From predictions row by row to metrics user by user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metarec_jax.core.types import Rows
from metarec_jax.data.tasks import TaskSource
from metarec_jax.evaluation.predictions_table import Questions, ask, questions_of
from metarec_jax.evaluation.report import SeedResult
from metarec_jax.metrics.auc import LikedScores, global_auc
from metarec_jax.metrics.definitions import DEFAULT_METRICS
from metarec_jax.metrics.metrics import Relevance, evaluate_users
from metarec_jax.metrics.predictions import Function, Predictions
from metarec_jax.train.catalogue import Scale
from metarec_jax.train.experiment import Experiment, Part


def judge(
    experiment: Experiment,
    part: Part[TaskSource],
    name: str,
    method: Function,
    settings: Mapping[str, float] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> SeedResult:
    """One method on the tasks of one part.

    Args:
        experiment: what the method was made from.
        part: whose tasks.
        name: what to call the method in an error.
        method: from (tables, episodes) to predictions.
        settings: what was chosen for it.
        metrics: names.
    """
    questions = questions_of(experiment.data, part.source, experiment.catalogue.statistics)
    return judge_rows(
        questions,
        ask(part, method),
        experiment.catalogue.scale,
        seed=experiment.config.seed,
        name=name,
        settings=settings,
        metrics=metrics,
    )


def judge_rows(
    questions: Questions,
    predictions: Predictions,
    scale: Scale,
    *,
    seed: int,
    name: str,
    settings: Mapping[str, float] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> SeedResult:
    """Metrics of each user over all query rows of the user, also where they are of several tasks."""
    users, rows, mask = by_user(questions.user)
    relevance = relevance_of(scale)
    picked = Predictions(*(np.where(mask, np.asarray(p)[rows], 0.0) for p in predictions[:3]))
    rating = np.where(mask, questions.rating[rows], 0)
    nothing = np.zeros((*mask.shape, 2), np.float32)
    values = evaluate_users(
        picked,
        Rows(questions.item[rows], rating, mask.astype(np.float32), nothing),
        method=name,
        users=users,
        metrics=metrics,
        relevance=relevance,
        levels=tuple(map(float, scale.levels)),
    )
    liked = questions.rating >= relevance.liked
    score = np.asarray(predictions.score)
    overall = {"auc_global": global_auc(LikedScores(score[liked], score[~liked]))}
    return SeedResult(seed=seed, users=users, values=values, overall=overall, settings=settings or {})


def by_user(user: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of each user side by side: the users, ascending; rows int64 [users, n]; which of those slots are real."""
    users, count = np.unique(user, return_counts=True)
    order = np.argsort(user, kind="stable")
    mask = np.arange(count.max(initial=1)) < count[:, None]
    start = np.cumsum(count) - count
    rows = order[np.where(mask, start[:, None] + np.arange(mask.shape[1]), 0)]
    return users, rows, mask


def relevance_of(scale: Scale) -> Relevance:
    """Ratings: the 5 highest are the positives, and 4 or more is liked. Clicks: what was clicked is both."""
    return Relevance(top=0, liked=1.0) if scale.kind == "click" else Relevance()
