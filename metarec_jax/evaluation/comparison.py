"""The result of a comparison of two evaluations, and its text forms."""

from __future__ import annotations

import dataclasses
from typing import Any

from metarec_jax.evaluation.bootstrap import Interval
from metarec_jax.evaluation.report import header_of, interval, plain, show_interval
from metarec_jax.evaluation.text_table import number, print_grids
from metarec_jax.metrics.definitions import metric

ALL = "all rows"


@dataclasses.dataclass(frozen=True)
class Line:
    """One metric of both evaluations.

    Attributes:
        scenario: its name.
        rows: `ALL`, or the title of a cohort.
        metric: its name.
        a, b: its value in each evaluation, with an interval.
        difference: A minus B.
    """

    scenario: str
    rows: str
    metric: str
    a: Interval
    b: Interval
    difference: Interval


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of `compare`: its lines, and notes on what was compared."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def to_tree(found: Comparison) -> dict[str, Any]:
    """A comparison as a tree of JSON values."""

    def level(i: Interval) -> dict[str, Any]:
        return plain({"value": i.difference, "low": i.low, "high": i.high})

    lines = [
        {"scenario": x.scenario, "rows": x.rows, "metric": x.metric, "a": level(x.a), "b": level(x.b)}
        | {"difference": interval(x.difference)}
        for x in found.lines
    ]
    return {"notes": list(found.notes), "lines": lines}


def print_comparison(found: Comparison) -> None:
    """Print a comparison: for each scenario a table of all rows and a table by cohort."""
    parts = []
    scenarios: dict[str, list[Line]] = {}
    for line in found.lines:
        scenarios.setdefault(line.scenario, []).append(line)
    for scenario, lines in scenarios.items():
        cohorts = [x for x in lines if x.rows != ALL]
        cohorts = [x for x in cohorts if x.metric == cohorts[0].metric]
        for title, chosen, first in (
            (scenario, [x for x in lines if x.rows == ALL], "metric"),
            (f"{scenario}, by cohort", cohorts, f"{metric(cohorts[0].metric).title} of" if cohorts else ""),
        ):
            body = [
                [
                    header_of(metric(x.metric)) if x.rows == ALL else x.rows,
                    number(x.a.difference),
                    number(x.b.difference),
                    show_interval(x.difference),
                    str(x.difference.users),
                ]
                for x in chosen
            ]
            if body:
                parts.append((title, [first, "A", "B", "A - B", "users"], body, set()))
    print_grids(parts, found.notes)
