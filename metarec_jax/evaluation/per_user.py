"""Metrics of each user, from predictions of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Rows
from metarec_jax.data.tasks import TaskSource
from metarec_jax.evaluation.predictions_table import Questions, ask, questions_of
from metarec_jax.evaluation.table import SeedResult
from metarec_jax.metrics.auc import LikedScores, global_auc
from metarec_jax.metrics.definitions import DEFAULT_METRICS, metric
from metarec_jax.metrics.metrics import Relevance, UserValues, evaluate_users
from metarec_jax.metrics.predictions import Function, Predictions
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
        ask(part, method, experiment.catalogue.scale),
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
    relevance = Relevance.of(scale)
    # Metrics are computed on the standard scale, and those that are in ratings are then put in the data's unit.
    point, mean = (_standard(scale, p) for p in (predictions.point, predictions.mean))
    score = np.asarray(predictions.score)
    true = _standard(scale, questions.rating).astype(np.float32)
    picked = Predictions(*(np.where(mask, p[rows], 0.0) for p in (point, mean, score)))
    nothing = np.zeros((*mask.shape, 2), np.float32)
    values = evaluate_users(
        picked,
        Rows(questions.item[rows], np.where(mask, true[rows], 0), mask.astype(np.float32), nothing),
        method=name,
        users=users,
        metrics=metrics,
        relevance=relevance,
        levels=scale.standardised().levels,
    )
    values = {name: _in_unit(name, found, scale.unit) for name, found in values.items()}
    liked = true >= relevance.liked
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


def _standard(scale: Scale, written: np.ndarray) -> np.ndarray:
    """Ratings or predictions on the standard scale; what lay half-way between two levels still does."""
    found = np.asarray(scale.standard(np.asarray(written)))
    return found if scale.is_standard else np.round(found, 9)


def _in_unit(name: str, found: UserValues, unit: float) -> UserValues:
    spec = metric(name)
    if not spec.in_ratings or unit == 1:
        return found
    return found._replace(values=found.values * (unit**2 if spec.root else unit))
