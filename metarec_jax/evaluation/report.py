"""The table of an evaluation: every method, mean and s.d. over seeds, and paired differences with intervals.

`build_table` computes the numbers; `print_table`, `to_markdown` and `to_json` show the same ones.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarec_jax.core.atomic_files import make_folder, write_text
from metarec_jax.core.environment import summary
from metarec_jax.evaluation.bootstrap import Interval, Resampling
from metarec_jax.evaluation.text_table import Grid, grid, number, print_grids
from metarec_jax.metrics.definitions import TIES, Metric, metric
from metarec_jax.metrics.metrics import Relevance, UserValues, compute, sums


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """Metrics of one method on the test users of one seed.

    Attributes:
        seed: of the division.
        users: [users], rows of the data set's users, by which the rows of a user in several seeds are drawn together.
        values: metrics of each user, from `metarec_jax.evaluation.evaluate_users`.
        overall: metrics that are no mean over users, such as ``{"auc_global": .72}``; they get no interval.
        settings: hyperparameters that were chosen for this seed.
    """

    seed: int
    users: np.ndarray
    values: Mapping[str, UserValues]
    overall: Mapping[str, float] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A metric of a method: mean and sample s.d. over seeds (NaN for a single seed), the value of each seed, and an
    interval of the mean that covers the choice of test users (None where there is none)."""

    mean: float
    sd: float
    seeds: tuple[float, ...]
    interval: Interval | None = None


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
    """Methods beside each other.

    Attributes:
        title: of the table.
        notes: sentences on the protocol, the definitions of the metrics and the seeds.
        metrics: the columns.
        rows: one per method.
        references: methods that others are compared with; a star in the main table compares with the first of them.
        subject: method whose differences from the references are listed.
        seeds: of the results.
        headline_metrics, headline_methods: names of those that the command line prints unless it is asked for all; ()
            for all.
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
    relevance: Relevance | None = None,
    intervals: Mapping[str, Mapping[str, Interval]] | None = None,
    notes: Sequence[str] = (),
    samples: int = 2000,
    seed: int = 0,
) -> Table:
    """Compute the table of some methods.

    Args:
        results: of each method, one per seed, all on the same seeds and users in the same order.
        title: of the table.
        protocol: a sentence: which users, what is support, what is query.
        metrics: names of the columns; all that the first method has where None.
        references: methods that all others are compared with, by paired bootstrap over users.
        subject: the method whose differences are listed.
        definitions: one line for a method.
        relevance: what the metrics counted as positives.
        intervals: of metrics that are no mean over users, by method and metric.
        notes: further sentences.
        samples, seed: of the bootstrap.

    Raises:
        ValueError: methods have different seeds or users, or a reference or the subject is no method.
    """
    first = next(iter(results.values()))
    if not first:
        raise ValueError("a table needs the results of at least one seed")
    for method, found in results.items():
        same = [r.seed for r in found] == [r.seed for r in first]
        if not same or not all(np.array_equal(a.users, b.users) for a, b in zip(found, first)):
            raise ValueError(f"{method!r} was not judged on the same seeds and users as {next(iter(results))!r}")
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
        notes=(protocol, *notes, *_notes(first, relevance or Relevance(), samples, references)),
        metrics=tuple(metric(name) for name in names),
        rows=tuple(rows),
        references=tuple(references),
        subject=subject,
        seeds=tuple(r.seed for r in first),
    )


def to_json(table: Table, environment: Mapping[str, Any]) -> str:
    """A table as JSON text.

    Args:
        table: from `build_table`.
        environment: that made it, from `metarec_jax.core.environment.environment`.

    Returns:
        Strict JSON: null where a number is undefined.
    """
    return json_text({**tree_of(table), "environment": environment})


def json_text(tree: Mapping[str, Any]) -> str:
    """Indented JSON text, which refuses NaN."""
    return json.dumps(tree, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def tree_of(table: Table) -> dict[str, Any]:
    """A table as a tree of JSON values."""

    def interval(found: Interval) -> dict[str, Any]:
        return {**plain(found._asdict()), "excludes_zero": found.excludes_zero}

    def cell(found: Cell) -> dict[str, Any]:
        spread = None if found.interval is None else {k: getattr(found.interval, k) for k in ("low", "high", "users")}
        numbers = {"mean": found.mean, "sd": found.sd, "seeds": found.seeds}
        return plain(numbers) | {"interval": spread if spread is None else plain(spread)}

    return {
        "title": table.title,
        "notes": list(table.notes),
        "seeds": list(table.seeds),
        "metrics": [dataclasses.asdict(m) for m in table.metrics],
        "methods": [
            {
                "name": row.method,
                "definition": row.definition,
                "metrics": {name: cell(found) for name, found in row.cells.items()},
                "differences": {
                    other: {name: interval(found) for name, found in by_metric.items()}
                    for other, by_metric in row.differences.items()
                },
                "settings": [plain(s) for s in row.settings],
            }
            for row in table.rows
        ],
        "references": list(table.references),
        "subject": table.subject,
    }


def to_markdown(table: Table, environment: Mapping[str, Any] | None = None) -> str:
    """`table` as Markdown: the notes, the methods, the subject's differences, and what each name means."""
    lines = [f"## {table.title}", "", *(f"- {note}" for note in table.notes), ""]
    header, body = main_cells(table)
    lines += grid(header, body, _best(table, table.rows))
    if table.subject and table.references:
        header, body = difference_cells(table)
        lines += ["", f"**{table.subject}**, difference from:", "", *grid(header, body)]
    lines += ["", *(f"- {row.method}: {row.definition}" for row in table.rows if row.definition)]
    lines += ["", *(f"- {m.title} ({m.better} is better): {m.definition}" for m in table.metrics)]
    if environment is not None:
        lines += ["", f"Made by `{environment['command']}`; {summary(dict(environment))}."]
    return "\n".join(lines) + "\n"


def print_table(table: Table, console: Any = None, *, everything: bool = False) -> None:
    """Print a table, in as many parts as the width of the console needs.

    Args:
        table: from `build_table`.
        console: a rich console; stdout where None.
        everything: print all methods and metrics, not only the headline ones.
    """
    shown = table if everything else headline(table)
    parts: list[Grid] = [(table.title, *main_cells(shown), _best(shown, table.rows))]
    if shown.subject and shown.references:
        header, body = difference_cells(shown)
        if not everything:  # the subject's own values are in the main table
            header, *body = ([*row[:1], *row[2:]] for row in (header, *body))
        parts.append((f"{table.subject}: difference from", header, body, set()))
    print_grids(parts, [*table.notes, *left_out(table, shown)], console)


def headline(table: Table) -> Table:
    """`table` with its headline metrics and methods alone."""
    methods = table.headline_methods or table.methods
    references = tuple(name for name in table.references if name in methods)
    rows = [
        dataclasses.replace(row, differences={name: row.differences[name] for name in references if name != row.method})
        for row in table.rows
        if row.method in methods
    ]
    metrics = tuple(m for m in table.metrics if m.name in table.headline_metrics or not table.headline_metrics)
    return dataclasses.replace(table, metrics=metrics, rows=tuple(rows), references=references)


def left_out(table: Table, shown: Table) -> list[str]:
    """A note on how much of `table` is in `shown`, where that is not everything."""
    counts = [
        f"{len(some)} of {len(every)} {name}"
        for name, some, every in (("methods", shown.rows, table.rows), ("metrics", shown.metrics, table.metrics))
        if len(some) < len(every)
    ]
    return [f"{' and '.join(counts)} are shown; --all prints all of them"] if counts else []


def write_report(table: Table, folder: str | os.PathLike[str], environment: Mapping[str, Any]) -> list[pathlib.Path]:
    """Write ``evaluation.json`` and ``evaluation.md`` into `folder`, each whole or not at all; returns their paths.

    Raises:
        MetarecError: the folder cannot be written to.
    """
    folder = make_folder(pathlib.Path(folder))
    texts = {"evaluation.json": to_json(table, environment), "evaluation.md": to_markdown(table, environment)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def main_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and body of the main table as text; a star where the difference's interval excludes zero."""
    header = ["method", *(header_of(m) for m in table.metrics)]
    body = []
    for row in table.rows:
        against = row.differences.get(table.references[0], {}) if table.references else {}
        marks = ["*" if m.name in against and against[m.name].excludes_zero else "" for m in table.metrics]
        body.append([row.method, *(_show(row.cells[m.name]) + mark for m, mark in zip(table.metrics, marks))])
    return header, body


def difference_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and body of the subject's values and differences, with their intervals, as text: a metric a line, a
    reference a column."""
    row = table.row(table.subject or "")
    body = []
    for m in table.metrics:
        own = row.cells[m.name].interval
        found = [by_metric.get(m.name) for by_metric in row.differences.values()]
        if own is not None:
            body.append([header_of(m), _show_level(own), *("–" if i is None else show_interval(i) for i in found)])
    return ["metric", "itself", *row.differences], body


def header_of(m: Metric) -> str:
    """What a column of this metric is called; the arrow points to what is better."""
    return f"{m.title} {'↓' if m.better == 'lower' else '↑'}"


def _show(cell: Cell) -> str:
    return number(cell.mean) + (f" ±{number(cell.sd)}" if math.isfinite(cell.sd) else "")


def _show_level(found: Interval) -> str:
    if not math.isfinite(found.difference):
        return "–"
    return f"{number(found.difference)} [{', '.join(number(x) for x in (found.low, found.high))}]"


def show_interval(found: Interval) -> str:
    """A difference as tables print it, with a star where the interval excludes zero."""
    if not math.isfinite(found.difference):
        return "–"
    ends = ", ".join(number(x, "+") for x in (found.low, found.high))
    return f"{number(found.difference, '+')} [{ends}]{'*' if found.excludes_zero else ''}"


def _cell(values: Sequence[float]) -> Cell:
    mean = float(np.mean(values))
    return Cell(mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, tuple(values))


def difference_between(
    ours: Sequence[SeedResult], theirs: Sequence[SeedResult] | None, name: str, samples: int, seed: int
) -> Interval:
    """Difference of a metric between two methods, by paired bootstrap over users.

    Args:
        ours, theirs: results of each seed; where `theirs` is None, the result is the metric of `ours` itself.
        name: of the metric.
        samples, seed: of the bootstrap.
    """
    given = {0: ours} | ({} if theirs is None else {1: theirs})
    return _Differences(given, name, samples, seed)(0, None if theirs is None else 1)


class _Differences:
    """Differences of one metric between any two methods, which draw users once and resample each method once."""

    def __init__(self, results: Mapping[Any, Sequence[SeedResult]], name: str, samples: int, seed: int) -> None:
        values = {method: [r.values[name] for r in found] for method, found in results.items()}
        weights, *others = [np.concatenate([v.weights for v in found]) for found in values.values()]
        if not all(np.array_equal(weights, other) for other in others):
            raise ValueError(f"{name} has other weights for some methods: they were not judged on the same rows")
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


def _notes(results: Sequence[SeedResult], relevance: Relevance, samples: int, references: Sequence[str]) -> list[str]:
    counts = [len(r.users) for r in results]
    spread = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    distinct = len(np.unique(np.concatenate([r.users for r in results])))
    seeds = f"{len(results)} seeds (± is the s.d. over them)" if len(results) > 1 else "1 seed"
    notes = [
        f"{seeds}, {spread} test users in each, {distinct} different users in all",
        f"{TIES}; {relevance}; liked is a rating of at least {relevance.liked:g}",
    ]
    if references:
        notes.append(
            f"differences: paired bootstrap over users, {samples} resamples, 95 % intervals; * marks those that "
            f"exclude zero, among the methods for the difference from {references[0]}"
        )
    return notes


def _best(table: Table, among: Sequence[Row]) -> set[tuple[int, int]]:
    """(row, column), in the grid of `main_cells`, of the means that are the best of the rows `among`, of each metric;
    none where all are equal."""
    best = set()
    for column, m in enumerate(table.metrics, start=1):
        finite = [x for x in (row.cells[m.name].mean for row in among) if math.isfinite(x)]
        if finite and min(finite) < max(finite):
            top = min(finite) if m.better == "lower" else max(finite)
            best |= {(i, column) for i, row in enumerate(table.rows) if row.cells[m.name].mean == top}
    return best


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` for strict JSON: NaN becomes null, and numpy numbers become Python's."""

    def one(x: Any) -> Any:
        if isinstance(x, tuple | list):
            return [one(y) for y in x]
        x = x.item() if isinstance(x, np.generic) else x
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return {name: one(x) for name, x in values.items()}
