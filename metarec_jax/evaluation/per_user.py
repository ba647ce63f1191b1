"""Metrics of each user, from predictions of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metarec_jax.core.types import Rows
from metarec_jax.data.tasks import TaskSource
from metarec_jax.evaluation.predictions_table import Questions, ask, questions_of
from metarec_jax.evaluation.table import SeedResult
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
    """Evaluate one method on the tasks of one part.

    Args:
        experiment: experiment of the part.
        part: the tasks.
        name: name of the method, for error messages.
        method: (tables, episodes) -> predictions.
        settings: hyperparameters that were chosen for the method.
        metrics: names.

    Returns:
        Metrics of each user.

    Raises:
        MetarecError: a prediction is not finite.
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
    """Compute metrics of each user over all query rows of the user, which may belong to several tasks.

    Args:
        questions: the query rows.
        predictions: predictions of the query rows.
        scale: scale of the ratings.
        seed: seed of the division.
        name: name of the method, for error messages.
        settings: hyperparameters that were chosen for the method.
        metrics: names.

    Returns:
        Metrics of each user.

    Raises:
        MetarecError: a prediction is not finite.
    """
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
    """Group rows by user.

    Returns:
        Users, ascending; the rows of each, int64 [users, n]; which of these slots are real, bool [users, n].
    """
    users, count = np.unique(user, return_counts=True)
    order = np.argsort(user, kind="stable")
    mask = np.arange(count.max(initial=1)) < count[:, None]
    start = np.cumsum(count) - count
    rows = order[np.where(mask, start[:, None] + np.arange(mask.shape[1]), 0)]
    return users, rows, mask


def relevance_of(scale: Scale) -> Relevance:
    """Positives of ranking metrics: the 5 highest ratings, and liked from 4 upwards; for clicks the clicked items."""
    return Relevance(top=0, liked=1.0) if scale.kind == "click" else Relevance()
