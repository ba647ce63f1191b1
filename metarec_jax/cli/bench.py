"""`metarec bench`: measure how fast this machine trains, encodes and recommends, and what bounds each of them.

The suite that compares with other packages is ``python -m benchmarks``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from metarec_jax.cli.arguments import Json, check_range, parse, prepare, print_json
from metarec_jax.core.console import print_grid
from metarec_jax.core.environment import environment


@dataclasses.dataclass(frozen=True)
class BenchArguments:
    """Measure how fast this machine trains, encodes and recommends, and what bounds each. No data is needed."""

    rounds: int = 7
    """Repetitions of every measurement."""
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec bench` and return the exit status."""
    chosen = parse(BenchArguments, "bench", arguments)
    check_range("--rounds", chosen.rounds, 1, 1_000)
    reporter = prepare()
    from metarec_jax.cli.bench_measure import measure

    found = measure(rounds=chosen.rounds, reporter=reporter)
    if chosen.json:
        print_json({"environment": environment(), **found})
    else:
        show(found)
    return 0


def show(found: Mapping[str, Any]) -> None:
    """Print the result of `metarec_jax.cli.bench_measure.measure`."""
    limits = found["limits"]
    print(
        f"This machine: {limits['gflop_per_s']:,.0f} GFLOP/s in a large matrix product (float32), "
        f"{limits['gb_per_s']:,.1f} GB/s through memory.\n"
    )
    rows = [
        [
            work["name"],
            f"{work['median']:,.0f} {work['unit']}",
            f"{work['low']:,.0f} to {work['high']:,.0f}",
            f"{work['seconds'] * 1e3:,.1f}",
            f"{work['compile_s']:.1f}",
        ]
        for work in found["work"]
    ]
    header = ["work", "speed", "middle 90 %", "ms per call", "compiling, s"]
    print_grid("Speed (medians of the rounds)", header, rows, numbers=[1, 2, 3, 4])
    print("What bounds it\n")
    for work in found["work"]:
        print(f"- {work['name']}: {work['verdict']}.")
