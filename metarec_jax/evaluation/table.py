"""The table of an evaluation: every method, mean and s.d. over seeds, and paired differences with intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarec_jax.core.scale import STARS, Scale
from metarec_jax.evaluation.bootstrap import Interval, Resampling
from metarec_jax.metrics.definitions import TIES, Metric, metric
from metarec_jax.metrics.metrics import Relevance, UserValues, compute, sums


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """Metrics of one method on the test users of one seed.

    Attributes:
        seed: seed of the division.
        users: int [users], rows of the data set's users. The bootstrap draws all results of a user, of any seed,
            together.
        values: metrics of each user, from `metarec_jax.metrics.metrics.evaluate_users`.
        overall: metrics that are not means over users, such as ``{"auc_global": .72}``; they get no interval.
        settings: hyperparameters that were chosen for this seed.
    """

    seed: int
    users: np.ndarray
    values: Mapping[str, UserValues]
    overall: Mapping[str, float] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A metric of a method: mean and sample s.d. over seeds (NaN for a single seed), the value of each seed, an
    interval of the mean that covers the choice of test users (None where there is none), and the standard error of the
    mean over users (NaN where it was not asked for)."""

    mean: float
    sd: float
    seeds: tuple[float, ...]
    interval: Interval | None = None
    error: float = math.nan


@dataclasses.dataclass(frozen=True)
class Row:
    """A method: its metrics, and its differences from each reference other than itself, by metric."""

    method: str
    definition: str
    cells: Mapping[str, Cell]
    differences: Mapping[str, Mapping[str, Interval]]
    settings: tuple[Mapping[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """The methods of an evaluation with their metrics and differences.

    Attributes:
        title: title of the table.
        notes: sentences on the protocol, the definitions of the metrics and the seeds.
        metrics: the columns.
        rows: one per method.
        references: methods that others are compared with; a star in the main table refers to the first of them.
        subject: method whose differences from the references are listed.
        seeds: seeds of the results.
        headline_metrics, headline_methods: names of those that the command line prints by default; () for all.
    """

    title: str
    notes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    references: tuple[str, ...]
    subject: str | None
    seeds: tuple[int, ...]
    headline_metrics: tuple[str, ...] = ()
    headline_methods: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the rows."""
        return tuple(row.method for row in self.rows)

    def row(self, method: str) -> Row:
        """The row of `method`."""
        return next(row for row in self.rows if row.method == method)


def build_table(
    results: Mapping[str, Sequence[SeedResult]],
    *,
    title: str,
    protocol: str,
    metrics: Sequence[str] | None = None,
    references: Sequence[str] = (),
    subject: str | None = None,
    definitions: Mapping[str, str] | None = None,
    scale: Scale = STARS,
    intervals: Mapping[str, Mapping[str, Interval]] | None = None,
    judged: str = "",
    errors: bool = False,
    notes: Sequence[str] = (),
    samples: int = 2000,
    seed: int = 0,
) -> Table:
    """Compute the table of some methods.

    Args:
        results: results of each method, one per seed, all on the same seeds and users in the same order.
        title: title of the table.
        protocol: description of the protocol: the test users, their support and their query.
        metrics: names of the columns; None takes all metrics of the first method.
        references: methods that all others are compared with, by paired bootstrap over users.
        subject: the method whose differences are listed.
        definitions: one line for a method.
        scale: of the ratings, which defines what is liked.
        intervals: of metrics that are no mean over users, by method and metric.
        judged: sentence on how metrics judge; "" is that of predicted ratings, by `scale`.
        errors: whether cells show the standard error over users, instead of the s.d. over seeds.
        notes: further sentences.
        samples, seed: number of resamples, and seed, of the bootstrap.

    Returns:
        The table.

    Raises:
        ValueError: methods have different seeds or users, or a reference or the subject is no method.
    """
    first = next(iter(results.values()))
    if not first:
        raise ValueError("a table needs the results of at least one seed")
    for method, found in results.items():
        same = [r.seed for r in found] == [r.seed for r in first]
        if not same or not all(np.array_equal(a.users, b.users) for a, b in zip(found, first)):
            raise ValueError(f"{method!r} was not evaluated on the same seeds and users as {next(iter(results))!r}")
    for name in (*references, *([subject] if subject else [])):
        if name not in results:
            raise ValueError(f"{name!r} is none of the methods {', '.join(map(repr, results))}")

    names = tuple(metrics) if metrics is not None else (*first[0].values, *first[0].overall)
    between = {name: _Differences(results, name, samples, seed) for name in names if name in first[0].values}
    rows = []
    for method, found in results.items():
        computed = [{**compute(sums(r.values)), **r.overall} for r in found]
        rows.append(
            Row(
                method=method,
                definition=(definitions or {}).get(method, ""),
                cells={
                    name: dataclasses.replace(
                        _cell([c[name] for c in computed]),
                        interval=between[name](method, None)
                        if name in between
                        else (intervals or {}).get(method, {}).get(name),
                        error=between[name].error(method) if errors and name in between else math.nan,
                    )
                    for name in names
                },
                differences={
                    other: {name: differ(method, other) for name, differ in between.items()}
                    for other in references
                    if other != method
                },
                settings=tuple(r.settings for r in found) if any(r.settings for r in found) else (),
            )
        )
    return Table(
        title=title,
        notes=(
            protocol,
            *notes,
            *_notes(first, judged or _judged(scale), errors, samples, references),
            *_undefined(rows),
        ),
        metrics=tuple(metric(name) for name in names),
        rows=tuple(rows),
        references=tuple(references),
        subject=subject,
        seeds=tuple(r.seed for r in first),
    )


def difference_between(
    ours: Sequence[SeedResult], theirs: Sequence[SeedResult] | None, name: str, samples: int, seed: int
) -> Interval:
    """Difference of a metric between two methods, by paired bootstrap over users.

    Args:
        ours, theirs: results of each seed; where `theirs` is None, the result is the metric of `ours` itself.
        name: name of the metric.
        samples, seed: number of resamples, and seed, of the bootstrap.

    Returns:
        The interval.
    """
    given = {0: ours} | ({} if theirs is None else {1: theirs})
    return _Differences(given, name, samples, seed)(0, None if theirs is None else 1)


class _Differences:
    """Differences of one metric between any two methods; users are drawn once, and each method is resampled once."""

    def __init__(self, results: Mapping[Any, Sequence[SeedResult]], name: str, samples: int, seed: int) -> None:
        values = {method: [r.values[name] for r in found] for method, found in results.items()}
        weights, *others = [np.concatenate([v.weights for v in found]) for found in values.values()]
        if not all(np.array_equal(weights, other) for other in others):
            raise ValueError(f"{name} has other weights for some methods: they were not evaluated on the same rows")
        first = next(iter(results.values()))
        self._resampled = Resampling(
            weights,
            groups=np.concatenate([r.users for r in first]),
            strata=np.repeat([r.seed for r in first], [len(r.users) for r in first]),
            samples=samples,
            seed=seed,
        )
        self._means = {
            method: self._resampled.means(np.concatenate([v.values for v in found])) for method, found in values.items()
        }
        self._root = np.sqrt if metric(name).root else None

    def __call__(self, ours: Any, theirs: Any) -> Interval:
        """`ours` minus `theirs`; `ours` itself where `theirs` is None."""
        other = None if theirs is None else self._means[theirs]
        return self._resampled.difference(self._means[ours], other, transform=self._root)

    def error(self, method: Any) -> float:
        """Standard error of the mean of a method over users: the s.d. of its resamples."""
        return self._resampled.error(self._means[method])


def _cell(values: Sequence[float]) -> Cell:
    mean = float(np.mean(values))
    return Cell(mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, tuple(values))


def _judged(scale: Scale) -> str:
    return f"{TIES}; {Relevance.of(scale)}; liked is a rating of at least {scale.liked_from:.7g}"


def _notes(
    results: Sequence[SeedResult], judged: str, errors: bool, samples: int, references: Sequence[str]
) -> list[str]:
    counts = [len(r.users) for r in results]
    spread = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    distinct = len(np.unique(np.concatenate([r.users for r in results])))
    seeds = f"{len(results)} seeds" if len(results) > 1 else "1 seed"
    if errors:
        seeds += " (± is the standard error over users)"
    elif len(results) > 1:
        seeds += " (± is the s.d. over them)"
    notes = [
        f"{seeds}, {spread} test users in each, {distinct} different users in all",
        judged,
    ]
    if references:
        notes.append(
            f"differences: paired bootstrap over users, {samples} resamples, 95 % intervals; * marks those that "
            f"exclude zero, among the methods for the difference from {references[0]}"
        )
    return notes


def _undefined(rows: Sequence[Row]) -> list[str]:
    """A note about metrics that have no value in any row, where there are such."""
    missing = [metric(name).title for name in rows[0].cells if all(math.isnan(row.cells[name].mean) for row in rows)]
    if not missing:
        return []
    return [
        f"no test user's ratings define {', '.join(missing)}: metrics of liked items need users who rated liked and "
        "other items (--data.liked sets what is liked)"
    ]
