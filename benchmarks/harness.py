"""Timing of contenders that take turns, rows of results, and results files.

On a shared machine two contenders that take turns have the same noise, so results are ratios of paired turns: their
median, and the range of the middle 90 %. Contenders are timed only after their results agree.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.atomic_files import make_folder, write_text
from metarec_jax.core.environment import environment
from metarec_jax.core.progress import QUIET, Reporter


@dataclasses.dataclass(frozen=True)
class Contender:
    """A function that is timed.

    Attributes:
        name: name in rows of results.
        run: executes the work once, and blocks until it is done.
        facts: further facts (compile seconds, FLOPs, ...).
    """

    name: str
    run: Callable[[], Any]
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """A comparison of two contenders.

    Attributes:
        case: what was computed.
        contender: name of the other contender.
        metric: name and unit of `ours` and `theirs`.
        ours, theirs: medians.
        ratio: "median", "low" and "high" of the paired ratios; above 1: ours is better.
        bar: the target, a least ratio; None for no target.
        facts: further results, as JSON.
    """

    case: str
    contender: str
    metric: str
    ours: float
    theirs: float
    ratio: Mapping[str, float]
    bar: float | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object; `met` is null where there is no target."""
        met = None if self.bar is None else self.ratio["median"] >= self.bar
        return {**dataclasses.asdict(self), "met": met}


def take_turns(
    contenders: Sequence[Contender], *, rounds: int, warmup: int = 2, reporter: Reporter = QUIET, label: str = "turns"
) -> dict[str, np.ndarray]:
    """Time contenders in turns.

    Args:
        contenders: each has one turn in every round; the order rotates.
        rounds: number of turns.
        warmup: calls of each contender before the first round.
        reporter: shows progress.
        label: label of the progress bar.

    Returns:
        Seconds of each contender in each round, by name.
    """
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    with reporter.bar(label, rounds) as advance:
        for contender in contenders:
            for _ in range(warmup):
                contender.run()
        for turn in range(rounds):
            for contender in (*contenders[turn % len(contenders) :], *contenders[: turn % len(contenders)]):
                started = time.perf_counter()
                contender.run()
                seconds[contender.name].append(time.perf_counter() - started)
            advance(turn + 1)
    return {name: np.array(taken) for name, taken in seconds.items()}


def compare(
    case: str,
    seconds: Mapping[str, np.ndarray],
    *,
    ours: str,
    work: float,
    metric: str,
    bars: Mapping[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Compare one contender with all others, one row each.

    Args:
        case: case of the rows.
        seconds: from `take_turns`.
        ours: the name of our contender.
        work: units of work in one turn.
        metric: the unit per second, such as "users/s".
        bars: targets (least ratios), by contender.
        facts: facts of all rows.
    """
    rows = []
    for name, taken in seconds.items():
        if name == ours:
            continue
        ratio = taken / seconds[ours]
        low, median, high = np.quantile(ratio, [0.05, 0.5, 0.95])
        rows.append(
            Row(
                case=case,
                contender=name,
                metric=metric,
                ours=work / float(np.median(seconds[ours])),
                theirs=work / float(np.median(taken)),
                ratio={"median": float(median), "low": float(low), "high": float(high)},
                bar=(bars or {}).get(name),
                facts={**(facts or {}), "rounds": len(ratio)},
            )
        )
    return rows


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows, and the environment in which they were measured, as JSON."""
    make_folder(path.parent)
    document = {"environment": environment(), "rows": [row.to_json() for row in rows]}
    write_text(path, json.dumps(document, indent=1) + "\n")


def made() -> dict[str, Any]:
    """The environment, with date, command and commit, and the largest memory of the process so far."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {**environment(), "largest_rss_mb": largest}


def flat(ratio: float) -> dict[str, float]:
    """A ratio without spread, in the layout of `Row.ratio`."""
    return {"median": float(ratio), "low": float(ratio), "high": float(ratio)}


def read(path: Path) -> dict[str, Any]:
    """Read the file of `write_document`; an empty document where there is no file."""
    if not path.exists():
        return {"rows": [], "cases": {}}
    found = json.loads(path.read_text(encoding="utf-8"))
    if "cases" not in found:
        raise SystemExit(f"{path} is not a results file of the whole suite: name another with --json")
    return {"rows": found["rows"], "cases": found["cases"]}


def write_document(document: Mapping[str, Any], path: Path) -> None:
    """Write rows of several cases, how each was made, and the environment of the last one."""
    make_folder(path.parent)
    write_text(path, json.dumps({"environment": environment(), **document}, indent=1) + "\n")


def show(rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    from metarec_jax.core.console import print_grid

    header = ["case", "against", "metric", "ours", "theirs", "ratio", "middle 90 %", "bar"]
    body = [
        [
            row.case,
            row.contender,
            row.metric,
            f"{row.ours:,.4g}",
            f"{row.theirs:,.4g}",
            f"{row.ratio['median']:.3g}",
            f"{row.ratio['low']:.3g} to {row.ratio['high']:.3g}",
            "" if row.bar is None else f"{row.bar:g}",
        ]
        for row in rows
    ]
    print_grid("Benchmarks (a ratio above 1: ours is better)", header, body, numbers=[3, 4, 5, 7])
