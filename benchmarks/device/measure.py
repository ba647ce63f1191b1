"""Timing of programs that a device runs while Python goes on, and the rows that are written.

A call is started without waiting for the one before. The time of a call is that of a group of calls, from the start of
the first to the end of the last, divided by their number; calls of a group are so many that it takes `GROUP_S`.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

GROUP_S = 0.05
"""Least seconds of a group of calls."""
GROUPS, MOST_CALLS = 15, 50
"""Greatest numbers of groups, and of calls of a group (whose results are all in memory)."""
MESSAGE = 300
"""Greatest length of an error message in a row."""


class Asked(NamedTuple):
    """What a part is asked for.

    Attributes:
        smoke: whether to measure the smallest sizes, as tests do.
        until: value of `time.monotonic` at which no further program is started.
    """

    smoke: bool
    until: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()


class Work(NamedTuple):
    """A program that is ready to run.

    Attributes:
        start: starts a call, and returns its result, which need not be done.
        amount: amount of work of a call, in `unit`.
        unit: what is counted, such as "users".
        facts: further facts of the row. `gflop` and `gbytes` of a call are set beside the limits of the device, those
            of products in the data type `compute`.
        wait: waits for a result.
    """

    start: Callable[[], Any]
    amount: float
    unit: str
    facts: Mapping[str, Any]
    wait: Callable[[Any], Any] = jax.block_until_ready


@dataclasses.dataclass(frozen=True)
class Row:
    """A measured program.

    Attributes:
        case: what is computed; programs of a case compute the same.
        program: how it is computed.
        seconds: "median", "low" and "high" (middle 90 % of the groups) of a call; None where it was not measured.
        amount, unit, facts: as in `Work`.
        error: why it was not measured.
    """

    case: str
    program: str
    seconds: Mapping[str, float] | None = None
    amount: float = 0.0
    unit: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object; figures that are not finite are left out."""
        facts = {name: value for name, value in self.facts.items() if _finite(value)}
        return {**dataclasses.asdict(self), "facts": facts}


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def seconds_of(work: Work, *, most: float) -> np.ndarray:
    """Time calls of a program.

    Args:
        work: the program; its first two calls are not counted.
        most: seconds after which no further group is started.

    Returns:
        Seconds of a call, one number for each group; at least one.
    """
    work.wait(work.start())
    begun = time.perf_counter()
    work.wait(work.start())
    calls = int(min(max(GROUP_S / max(time.perf_counter() - begun, 1e-6), 1), MOST_CALLS))
    found: list[float] = []
    until = time.perf_counter() + most
    while len(found) < GROUPS and (not found or time.perf_counter() < until):
        begun = time.perf_counter()
        for _ in range(calls - 1):
            work.start()
        work.wait(work.start())
        found.append((time.perf_counter() - begun) / calls)
    return np.array(found)


def measured(case: str, programs: Mapping[str, Callable[[], Work]], asked: Asked, *, most: float) -> Iterator[Row]:
    """Make and time the programs of a case, one after another; one that fails has a row with the error.

    Args:
        case: name of the case.
        programs: name -> function that compiles the program.
        asked: a program is left out where no time is left.
        most: seconds of timing of each program.

    Yields:
        A row for each program.
    """
    for name, make in programs.items():
        if asked.left < 0:
            yield Row(case, name, error="left out: no time was left for it")
            continue
        try:
            work = make()
            taken = seconds_of(work, most=0.0 if asked.smoke else min(most, max(asked.left, 0.0)))
            low, median, high = (float(q) for q in np.quantile(taken, [0.05, 0.5, 0.95]))
            seconds = {"median": median, "low": low, "high": high}
            yield Row(case, name, seconds, work.amount, work.unit, {**work.facts, "groups": len(taken)})
        except Exception as error:  # of a compiler, of a kernel, of memory: the next program may run
            yield Row(case, name, error=message_of(error))
        work = None  # its arrays are freed before the next program is made
        gc.collect()


def message_of(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:MESSAGE]
