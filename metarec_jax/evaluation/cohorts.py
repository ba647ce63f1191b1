"""Errors by cohort (history length, item popularity, user activity), and calibration of predicted probabilities.

Within a cohort, a metric is defined as in the main table, over the rows of that cohort alone: MAE is the mean over
users of the user's mean absolute error on those rows, and RMSE the root of the mean over rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.evaluation.bootstrap import Interval, paired_bootstrap
from metarec_jax.evaluation.predictions_table import Answers, Questions
from metarec_jax.metrics.predictions import Predictions

LEAST_USERS = 2
"""Cohorts with fewer users are left out."""


class Kind(NamedTuple):
    """A number by which rows are grouped into cohorts.

    Attributes:
        name: a field of `Questions`.
        title: description of the number.
        starts: lower bound of each cohort, inclusive; a cohort ends before the next one starts.
    """

    name: str
    title: str
    starts: tuple[int, ...]


KINDS = (
    Kind("history", "ratings in the support", (0, 1, 4, 11, 21, 41)),
    Kind("popularity", "training ratings of the item", (0, 1, 6, 21, 51, 101, 201)),
    Kind("activity", "ratings of the user in the data", (0, 21, 41, 61, 101, 201)),
)
METRICS = ("mae", "rmse")


@dataclasses.dataclass(frozen=True)
class Cohort:
    """The rows whose number lies between two bounds.

    Attributes:
        kind: name of the number.
        first, last: the bounds, both included; None for no upper bound.
        users: number of users with such rows; a user of several seeds counts once.
        rows: number of rows, over all seeds.
        values: metric -> method -> value with its interval.
        differences: metric -> method -> difference from the reference.
    """

    kind: str
    first: int
    last: int | None
    users: int
    rows: int
    values: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]

    @property
    def label(self) -> str:
        """The bounds as text, such as "11–20" or "41+"."""
        return label(self.first, self.last)


def label(first: int, last: int | None) -> str:
    """The bounds of a cohort as text.

    Args:
        first: lower bound, inclusive.
        last: upper bound, inclusive; None for no upper bound.

    Returns:
        The text.

    >>> label(11, 20), label(41, None), label(0, 0)
    ('11–20', '41+', '0')
    """
    if last is None:
        return f"{first}+"
    return f"{first}" if last == first else f"{first}–{last}"


def cohorts(
    seeds: Sequence[tuple[int, Answers]], kind: Kind, methods: Sequence[str], reference: str, *, samples: int = 2000
) -> list[Cohort]:
    """Errors of some methods by cohort; cohorts with fewer than `LEAST_USERS` users are left out.

    Args:
        seeds: (seed, answers) of one scenario.
        kind: the number by which rows are grouped.
        methods: names of the methods.
        reference: name of the method that others are compared with.
        samples: resamples of the bootstrap over users.

    Returns:
        The cohorts, by ascending bounds.
    """
    found = []
    for first, last in bounds(kind):
        chosen = [rows_between(answers.questions, kind, first, last) for _, answers in seeds]
        questions = [(seed, answers.questions) for seed, answers in seeds]
        users = np.unique(np.concatenate([q.user[c] for (_, q), c in zip(questions, chosen)]))
        if len(users) < LEAST_USERS:
            continue
        values: dict[str, dict[str, Interval]] = {}
        differences: dict[str, dict[str, Interval]] = {}
        for metric in METRICS:
            said = {m: [answers.predictions[m] for _, answers in seeds] for m in methods}
            values[metric] = {m: difference(questions, chosen, said[m], None, metric, samples=samples) for m in methods}
            differences[metric] = {
                m: difference(questions, chosen, said[m], said[reference], metric, samples=samples)
                for m in methods
                if m != reference
            }
        rows = sum(int(c.sum()) for c in chosen)
        found.append(Cohort(kind.name, first, last, len(users), rows, values, differences))
    return found


def bounds(kind: Kind) -> list[tuple[int, int | None]]:
    """Lower and upper bound of each cohort; None for no upper bound."""
    return [(a, None if b is None else b - 1) for a, b in zip(kind.starts, (*kind.starts[1:], None))]


def rows_between(questions: Questions, kind: Kind, first: int, last: int | None) -> np.ndarray:
    """Select the rows of a cohort.

    Args:
        questions: the rows.
        kind: the number by which rows are grouped.
        first, last: bounds of the number, both included; None for no upper bound.

    Returns:
        bool [rows].
    """
    number = getattr(questions, kind.name)
    return (number >= first) & (True if last is None else number <= last)


def difference(
    questions: Sequence[tuple[int, Questions]],
    chosen: Sequence[np.ndarray],
    ours: Sequence[Predictions],
    theirs: Sequence[Predictions] | None,
    metric: str,
    *,
    samples: int = 2000,
) -> Interval:
    """Difference of a metric between two methods on some rows, by paired bootstrap over users.

    Args:
        questions: (seed, questions).
        chosen: bool [rows] of each seed.
        ours, theirs: predictions of each seed; where `theirs` is None, the result is the metric of `ours` itself.
        metric: "mae" or "rmse".
        samples: resamples of the bootstrap.

    Returns:
        The interval.
    """
    a, b, weights, groups, strata = [], [], [], [], []
    for i, ((seed, asked), rows) in enumerate(zip(questions, chosen)):
        users, place = np.unique(asked.user[rows], return_inverse=True)
        count = np.bincount(place, minlength=len(users))
        for errors, said in ((a, ours[i]), (b, ours[i] if theirs is None else theirs[i])):
            error = np.abs(said.point - asked.rating) if metric == "mae" else np.square(said.mean - asked.rating)
            mean = np.bincount(place, weights=error[rows], minlength=len(users)) / np.maximum(count, 1)
            errors.append(mean * (errors is a or theirs is not None))
        weights.append(np.ones(len(users)) if metric == "mae" else count.astype(float))
        groups.append(users)
        strata.append(np.full(len(users), seed))
    return paired_bootstrap(
        *(np.concatenate(part) for part in (a, b, weights)),
        groups=np.concatenate(groups),
        strata=np.concatenate(strata),
        transform=np.sqrt if metric == "rmse" else None,
        samples=samples,
    )


class Calibration(NamedTuple):
    """Observed frequencies in bins of predicted probability, over all thresholds together; arrays are [bins].

    Attributes:
        low, high: bounds of the bins.
        predicted: mean predicted probability; NaN in an empty bin.
        observed: share of the ratings that were above the threshold; NaN in an empty bin.
        count: number of predictions.
        error: expected calibration error: mean of |predicted - observed|, weighted by count.
    """

    low: np.ndarray
    high: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray
    error: float


def calibration(
    questions: Sequence[Questions], predictions: Sequence[Predictions], levels: Sequence[float], bins: int = 10
) -> Calibration | None:
    """Calibration of P(rating > level), for every level but the greatest.

    Args:
        questions: questions of each seed.
        predictions: predictions of one method, for each seed.
        levels: values that a rating can have.
        bins: number of bins, of equal width.

    Returns:
        The calibration; None for a method that predicts no distribution.
    """
    if not questions or any(p.above is None for p in predictions) or len(levels) < 2:
        return None
    ladder = np.sort(np.asarray(levels, np.float64))
    border = (ladder[1:] + ladder[:-1]) / 2
    said = np.concatenate([np.asarray(p.above).ravel() for p in predictions])
    happened = np.concatenate([(q.rating[:, None] > border).ravel() for q in questions]).astype(float)
    which = np.clip((said * bins).astype(int), 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    nothing = np.full(bins, np.nan)
    predicted, observed = (
        np.divide(np.bincount(which, weights=x, minlength=bins), count, out=nothing.copy(), where=count > 0)
        for x in (said, happened)
    )
    error = float(np.nansum(np.abs(predicted - observed) * count) / max(count.sum(), 1))
    edges = np.linspace(0, 1, bins + 1)
    return Calibration(edges[:-1], edges[1:], predicted, observed, count, error)
