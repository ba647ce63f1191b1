"""Comparison of two evaluations, over all rows and by cohort.

Both must have predicted the same query rows: then each user of one is paired with the same user of the other, and a
difference has the interval of a paired bootstrap over users (`metarec_jax.evaluation.bootstrap`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation import predictions_table as record
from metarec_jax.evaluation.bootstrap import Interval
from metarec_jax.evaluation.cohorts import KINDS, LEAST_USERS, METRICS, bounds, difference, rows_between
from metarec_jax.evaluation.cohorts import label as cohort_label
from metarec_jax.evaluation.list_record import LISTS
from metarec_jax.evaluation.methods import META
from metarec_jax.evaluation.metric_sets import mode
from metarec_jax.evaluation.per_user import judge_rows
from metarec_jax.evaluation.predictions_table import Answers, SeedAnswers
from metarec_jax.evaluation.report import header_of, interval, plain, show_interval
from metarec_jax.evaluation.table import difference_between
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


def compare(
    a: Path, b: Path, *, method: str = META, metrics: str = "own", reference: str = "", samples: int = 2000
) -> Comparison:
    """Compare a method of one evaluation with a method of another one.

    Args:
        a, b: folders that `metarec evaluate` wrote: run folders, or those of ``--out``.
        method: name of the method of A.
        metrics: name of a set of metrics, one of `metarec_jax.evaluation.metric_sets.MODES`.
        reference: name of the method of B; "" takes that of A.
        samples: resamples of the bootstrap.

    Returns:
        The differences, and notes on what was compared.

    Raises:
        MetarecError: a folder without an evaluation, evaluations of different data or tasks, or an unknown method.
    """
    ours, theirs = read(a), read(b)
    common = [seed for seed in ours if seed in theirs]
    if not common:
        raise MetarecError(
            f"{a} has seeds {_listed(ours)} and {b} has {_listed(theirs)}: other seeds are other splits, so "
            "evaluate one of them with the seeds of the other"
        )
    for seed in common:
        _require_same(a, b, ours[seed], theirs[seed])
    other = reference or method
    for folder, found, wanted in ((a, ours, method), (b, theirs, other)):
        known = next(iter(found[common[0]].scenarios.values())).predictions
        if wanted not in known:
            raise MetarecError(f"{folder} has no method {wanted!r}; it has {', '.join(known)}")
    names = [m for m in mode(metrics).metrics if metric(m).per_user]
    lines: list[Line] = []
    for scenario in dict.fromkeys(name for seed in common for name in ours[seed].scenarios):
        pairs = [
            (ours[seed], seed, ours[seed].scenarios[scenario], theirs[seed].scenarios[scenario])
            for seed in common
            if scenario in ours[seed].scenarios
        ]
        lines += _overall(pairs, scenario, method, other, names, samples)
        lines += _by_cohort([pair[1:] for pair in pairs], scenario, method, other, samples)
    dropped = (set(ours) | set(theirs)) - set(common)
    notes = [
        f"A is {method!r} of {a}",
        f"B is {other!r} of {b}",
        *dict.fromkeys(found[common[0]].about["protocol"] for found in (ours, theirs)),
        f"seeds {_listed(common)}" + (f" (not in both: {_listed(sorted(dropped))})" if dropped else ""),
        f"differences are A minus B: paired bootstrap over users, {samples} resamples, 95 % intervals; * marks those "
        "that exclude zero",
    ]
    return Comparison(tuple(lines), tuple(notes))


def read(folder: Path) -> dict[int, SeedAnswers]:
    """Read the predictions of every seed in a folder that `metarec evaluate` wrote.

    Raises:
        MetarecError: there are none, or a file is damaged.
    """
    found = {}
    for path in sorted(folder.glob("seed-*/answers.parquet")):
        answers = record.load(path)
        if answers is None:
            raise MetarecError(f"{path} is damaged: evaluate again with `metarec evaluate`, which computes it anew")
        found[answers.seed] = answers
    if found:
        return dict(sorted(found.items()))
    if any(folder.glob(f"seed-*/{LISTS}")):
        raise MetarecError(
            f"{folder} holds an evaluation of lists over the catalogue, which has no predictions to compare: its "
            "tables/evaluation.json has the paired differences of its methods"
        )
    if (folder / "config.json").exists():
        raise MetarecError(f"{folder} was not evaluated yet: run `metarec evaluate {folder}` first")
    raise MetarecError(
        f"{folder} holds no evaluation: name a run folder that was evaluated, or the --out of `metarec evaluate`"
    )


def _require_same(a: Path, b: Path, ours: SeedAnswers, theirs: SeedAnswers) -> None:
    if ours.about["data"] != theirs.about["data"]:
        raise MetarecError(
            f"{a} and {b} are about different data ({ours.about['source']}; {theirs.about['source']}): only "
            "evaluations of the same rows can be compared"
        )
    remedy = "evaluate both with the same --protocol, --split and --episodes options, and the same seeds"
    if set(ours.scenarios) != set(theirs.scenarios):
        scenarios, others = (", ".join(side.scenarios) for side in (ours, theirs))
        raise MetarecError(f"{a} and {b} are of different protocols ({scenarios}; {others}): {remedy}")
    for name, (questions, _) in ours.scenarios.items():
        asked = theirs.scenarios[name].questions
        same = (np.array_equal(getattr(questions, f), getattr(asked, f)) for f in ("task", "user", "item", "rating"))
        if not all(same):
            raise MetarecError(
                f"{a} and {b} are of different splits: in seed {ours.seed} they ask about other rows in scenario "
                f"{name!r}: {remedy}"
            )


def _overall(
    pairs: Sequence[tuple[SeedAnswers, int, Answers, Answers]],
    scenario: str,
    method: str,
    other: str,
    names: Sequence[str],
    samples: int,
) -> list[Line]:
    results = [
        [
            judge_rows(side.questions, side.predictions[who], answers.scale, seed=seed, name=who, metrics=names)
            for answers, seed, side in sides
        ]
        for who, sides in (
            (method, [(x, seed, ours) for x, seed, ours, _ in pairs]),
            (other, [(x, seed, theirs) for x, seed, _, theirs in pairs]),
        )
    ]
    return [
        Line(
            scenario,
            ALL,
            name,
            difference_between(results[0], None, name, samples, 0),
            difference_between(results[1], None, name, samples, 0),
            difference_between(results[0], results[1], name, samples, 0),
        )
        for name in results[0][0].values
    ]


def _by_cohort(
    pairs: Sequence[tuple[int, Answers, Answers]], scenario: str, method: str, other: str, samples: int
) -> list[Line]:
    questions = [(seed, ours.questions) for seed, ours, _ in pairs]
    said = [ours.predictions[method] for _, ours, _ in pairs]
    against = [theirs.predictions[other] for _, _, theirs in pairs]
    lines = []
    for kind in KINDS:
        for first, last in bounds(kind):
            chosen = [rows_between(asked, kind, first, last) for _, asked in questions]
            users = np.unique(np.concatenate([q.user[c] for (_, q), c in zip(questions, chosen)]))
            if len(users) < LEAST_USERS:
                continue
            for name in METRICS:
                values = [
                    difference(questions, chosen, *sides, name, samples=samples)
                    for sides in ((said, None), (against, None), (said, against))
                ]
                lines.append(Line(scenario, f"{kind.title}: {cohort_label(first, last)}", name, *values))
    return lines


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
        for title, chosen, first in (
            (scenario, [x for x in lines if x.rows == ALL], "metric"),
            (f"{scenario}, by cohort", [x for x in lines if x.rows != ALL and x.metric == "mae"], "MAE of"),
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


def _listed(seeds: Any) -> str:
    return ", ".join(map(str, seeds))
