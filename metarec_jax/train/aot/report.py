"""The table of estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from metarec_jax.core.console import print_grid
from metarec_jax.train.aot.estimate import Estimate

FACTS = "facts about the compiled program"
GUESS = "estimated by the compiler or from published figures, not measured"


def show(found: Sequence[Estimate], counted: Literal["users", "texts"] = "users") -> None:
    """Print one column per target.

    Args:
        found: estimates of the outer step, or of the encoding of texts.
        counted: what ``Estimate.users`` counts.
    """
    rows: list[list[str]] = []

    def row(label: str, cells: Sequence[str]) -> None:
        rows.append([label, *cells])

    row(f"-- {FACTS} --", [""] * len(found))
    row("chips", [str(e.chips) for e in found])
    row("users a step, all chips" if counted == "users" else "texts, all chips", [f"{e.users:,}" for e in found])
    row("fits in memory", ["yes" if e.fits else f"NO: {e.why}" for e in found])
    row("peak memory, a chip", [_bytes(e.peak_memory) for e in found])
    row("of it arguments", [_bytes(e.arguments) for e in found])
    row("of it temporaries", [_bytes(e.temporaries) for e in found])
    row("products, GFLOP a chip", [_number(e.flops, 1e-9) for e in found])
    row("main memory traffic, a chip", [_bytes(e.bytes) for e in found])
    for kind in sorted({kind for e in found for kind in e.collectives}):
        cells = [e.collectives.get(kind) for e in found]
        row(f"{kind}, a chip", [f"{int(c['calls'])} x, {_bytes(c['bytes'])}" if c else "-" for c in cells])
    row("FLOP a byte (ridge of the chip)", [_against(e.intensity, e.ridge) for e in found])
    row(f"-- {GUESS} --", [""] * len(found))
    row("compiler's cycles", [_number(e.cycles) for e in found])
    row("  at the chip's clock", [_time(e.seconds) for e in found])
    row("  matrix units busy", [f"{e.utilisation:.0%}" if e.utilisation else "-" for e in found])
    row("traffic at published bandwidth", [_time(e.memory_seconds) for e in found])
    row("collectives at published links", [_time(e.link_seconds) for e in found])
    row(f"{counted} a second, at best", [_number(e.users_per_second) for e in found])
    row("optimisation level", [e.level for e in found])
    what = "The outer step" if counted == "users" else "Encoding of texts by a frozen encoder"
    print_grid(f"{what}, compiled ahead of time", ["", *(e.target for e in found)], rows)
    if any(e.guessed for e in found):
        print("The number of iterations of some loops depends on the data; their bodies are counted once.")


def _number(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:,.0f}"


def _bytes(count: float | None) -> str:
    if count is None:
        return "-"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.2f} ms"


def _against(value: float | None, ridge: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" + (f" ({ridge:.0f})" if ridge else "")
