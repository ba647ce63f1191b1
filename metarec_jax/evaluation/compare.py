"""Comparison of two evaluations, over all rows and by cohort.

Both must have predicted the same query rows, or made lists for the same users: then each user of one is paired with the
same user of the other, and a difference has the interval of a paired bootstrap over users
(`metarec_jax.evaluation.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation import compare_lists, list_record
from metarec_jax.evaluation import predictions_table as record
from metarec_jax.evaluation.cohorts import KINDS, LEAST_USERS, METRICS, bounds, difference, rows_between
from metarec_jax.evaluation.cohorts import label as cohort_label
from metarec_jax.evaluation.comparison import ALL, Comparison, Line
from metarec_jax.evaluation.list_record import Listed, SeedLists
from metarec_jax.evaluation.methods import META
from metarec_jax.evaluation.metric_sets import mode
from metarec_jax.evaluation.per_user import judge_rows
from metarec_jax.evaluation.predictions_table import Answers, SeedAnswers
from metarec_jax.evaluation.table import difference_between
from metarec_jax.metrics.definitions import metric

_FILES: tuple[tuple[str, Callable[[Path], SeedAnswers | SeedLists | None]], ...] = (
    ("answers.parquet", record.load),
    (list_record.LISTS, list_record.load),
)
"""What an evaluation keeps of a seed: predictions of rows, or metrics of lists."""


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
        known = _methods(next(iter(found[common[0]].scenarios.values())))
        if wanted not in known:
            raise MetarecError(f"{folder} has no method {wanted!r}; it has {', '.join(known)}")
    names = [m for m in mode(metrics).metrics if metric(m).per_user]
    lines: list[Line] = []
    for scenario in dict.fromkeys(name for seed in common for name in ours[seed].scenarios):
        here = [seed for seed in common if scenario in ours[seed].scenarios]
        sides = [[found[seed] for seed in here] for found in (ours, theirs)]
        if isinstance(ours[common[0]], SeedLists):
            lines += compare_lists.lines_of(*sides, scenario, method, other, samples)  # type: ignore[arg-type]
            continue
        pairs = [(a, a.seed, a.scenarios[scenario], b.scenarios[scenario]) for a, b in zip(*sides)]
        lines += _overall(pairs, scenario, method, other, names, samples)  # type: ignore[arg-type]
        lines += _by_cohort([pair[1:] for pair in pairs], scenario, method, other, samples)  # type: ignore[arg-type]
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


def read(folder: Path) -> Mapping[int, SeedAnswers | SeedLists]:
    """Read what `metarec evaluate` kept of every seed in a folder.

    Raises:
        MetarecError: there is nothing, or a file is damaged.
    """
    found: dict[int, SeedAnswers | SeedLists] = {}
    for name, load in _FILES:
        for path in sorted(folder.glob(f"seed-*/{name}")):
            answers = load(path)
            if answers is None:
                raise MetarecError(f"{path} is damaged: evaluate again with `metarec evaluate`, which computes it anew")
            found[answers.seed] = answers
        if found:
            return dict(sorted(found.items()))
    if (folder / "config.json").exists():
        raise MetarecError(f"{folder} was not evaluated yet: run `metarec evaluate {folder}` first")
    raise MetarecError(
        f"{folder} holds no evaluation: name a run folder that was evaluated, or the --out of `metarec evaluate`"
    )


def _methods(scenario: Answers | Listed) -> Mapping[str, Any]:
    return scenario.methods if isinstance(scenario, Listed) else scenario.predictions


def _require_same(a: Path, b: Path, ours: SeedAnswers | SeedLists, theirs: SeedAnswers | SeedLists) -> None:
    if ours.about["data"] != theirs.about["data"]:
        raise MetarecError(
            f"{a} and {b} are about different data ({ours.about['source']}; {theirs.about['source']}): only "
            "evaluations of the same rows can be compared"
        )
    remedy = "evaluate both with the same --protocol, --split and --episodes options, and the same seeds"
    if set(ours.scenarios) != set(theirs.scenarios):
        scenarios, others = (", ".join(side.scenarios) for side in (ours, theirs))
        raise MetarecError(f"{a} and {b} are of different protocols ({scenarios}; {others}): {remedy}")
    if type(ours) is not type(theirs):
        raise MetarecError(f"one of {a} and {b} judges lists, and the other predictions of rows: {remedy}")
    for name, asked in ours.scenarios.items():
        if not all(np.array_equal(*pair) for pair in zip(_asked(asked), _asked(theirs.scenarios[name]))):
            raise MetarecError(
                f"{a} and {b} are of different splits: in seed {ours.seed} they ask about other rows in scenario "
                f"{name!r}: {remedy}"
            )


def _asked(scenario: Answers | Listed) -> tuple[np.ndarray, ...]:
    """What identifies the questions of a scenario."""
    if isinstance(scenario, Listed):
        return scenario.user, scenario.history, scenario.popularity
    questions = scenario.questions
    return questions.task, questions.user, questions.item, questions.rating


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


def _listed(seeds: Any) -> str:
    return ", ".join(map(str, seeds))
