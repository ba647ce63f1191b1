"""Time of a compiled program by kind of operation, from JAX's profiler."""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

MOST = 20
"""Number of kinds of operation in the list, the most expensive first."""


def profile(run: Callable[[], Any], *texts: str, calls: int = 5) -> list[dict[str, Any]]:
    """Calls and milliseconds per run of each kind of operation.

    Time on two threads counts twice; the time of a loop excludes the operations in its body.

    Args:
        run: runs the programs once; it has run before.
        texts: the compiled programs, as HLO.
        calls: number of runs.
    """
    kinds: dict[str, dict[str, str]] = {}
    for text in texts:  # programs of one function for several shapes share a name
        kinds.setdefault(_module(text), {}).update(_kinds(text))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python functions are more than a profile has room for
    ms: collections.defaultdict[str, float] = collections.defaultdict(float)
    times: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(calls):
                run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        for event in _events(path):
            told = dict(event.stats)
            kind = kinds.get(str(told.get("hlo_module", "")), {}).get(str(told.get("hlo_op", "")))
            if kind is not None and " while" not in kind:
                ms[kind] += event.duration_ns / 1e6 / calls
                times[kind] += 1
    costly = sorted(ms, key=ms.__getitem__, reverse=True)[:MOST]
    return [{"operation": kind, "calls": times[kind] / calls, "ms": round(ms[kind], 3)} for kind in costly]


def _events(path: Path) -> Iterator[jax.profiler.ProfileEvent]:
    """What a profile recorded on every thread and device."""
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            yield from line.events


def _module(text: str) -> str:
    """The name of a program."""
    named = re.match(r"HloModule ([\w.\-]+)", text)
    return named[1] if named else ""


def _kinds(text: str) -> list[tuple[str, str]]:
    """Name of each operation of a program, with its shape, opcode and relevant attributes."""
    found = []
    for line in text.splitlines():
        named = re.match(r"\s*(?:ROOT )?%([\w.\-]+) = (\S+) ([\w\-]+)\(", line)
        if named:
            name, shape, opcode = named.groups()
            # The name of a fusion lists the fused operations.
            what = re.sub(r"[.\d]+$", "", name) if opcode == "fusion" else opcode
            contracted = re.findall(r"(?:lhs|rhs)_contracting_dims=\{[\d,]*\}", line)
            found.append((name, " ".join([re.sub(r"\{[^}]*\}", "", shape), what, *contracted])))
    return found
