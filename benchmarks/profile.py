"""Time of a compiled program by kind of operation, from JAX's profiler."""

from __future__ import annotations

import collections
import gzip
import json
import re
import tempfile
from collections.abc import Callable
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
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                run()
        (trace,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    ms: collections.defaultdict[str, float] = collections.defaultdict(float)
    times: collections.Counter[str] = collections.Counter()
    for event in events:
        told = event.get("args", {})
        kind = kinds.get(told.get("hlo_module", ""), {}).get(told.get("hlo_op", ""))
        if kind is not None and " while" not in kind:
            ms[kind] += event["dur"] / 1e3 / calls
            times[kind] += 1
    costly = sorted(ms, key=ms.__getitem__, reverse=True)[:MOST]
    return [{"operation": kind, "calls": times[kind] / calls, "ms": round(ms[kind], 3)} for kind in costly]


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
