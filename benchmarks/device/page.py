"""The results of `benchmarks.device` as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.device.parts import MEMORY, PRODUCT

RIVAL = "PyTorch"
"""Beginning of the names of rivals' programs."""
HEADER = (
    "program", "ms (middle 90 %)", "a second", "x PyTorch", "GFLOP/s", "of peak", "GB/s", "of memory",
    "trace + lower s", "compile s", "peak MB", "error",
)  # fmt: skip


def tables(document: Mapping[str, Any], parts: Sequence[str] = ()) -> str:
    """Tables of the measured programs, one for each case, and what was not measured.

    Args:
        document: from `benchmarks.device`.
        parts: names of parts; all where empty.

    Returns:
        Markdown.
    """
    rows = [row for row in document["rows"] if not parts or row["part"] in parts]
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        lines += [f"### {case[0].upper()}{case[1:]}", "", *_table([r for r in rows if r["case"] == case], document), ""]
    lines += [f"- {text}" for text in _missing(document, rows, parts)]
    return "\n".join([*lines, "", about(document)]).strip()


def _table(rows: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> Iterator[str]:
    body = [_cells(row, rows, document) for row in rows if row["seconds"]]
    if not body:
        return
    shown = [i for i in range(len(HEADER)) if any(cells[i] for cells in body)]
    yield f"| {' | '.join(HEADER[i] for i in shown)} |"
    yield f"|---|{'--:|' * (len(shown) - 1)}"
    for cells in body:
        yield f"| {' | '.join(cells[i] for i in shown)} |"


def _cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> list[str]:
    seconds, facts = row["seconds"], row["facts"]
    median = seconds["median"]
    spread = f"{1e3 * seconds['low']:.4g} to {1e3 * seconds['high']:.4g}"
    rate = f"{row['amount'] / median:,.4g} {row['unit']}"
    rival = next((r["seconds"]["median"] for r in rows if r["program"].startswith(RIVAL) and r["seconds"]), None)
    ours = not row["program"].startswith(RIVAL)
    is_limit = row["case"] in (MEMORY, PRODUCT)
    peaks = _peaks(document)
    cells = [row["program"], f"{1e3 * median:,.4g} ({spread})", rate]
    cells.append(f"{rival / median:.3g}" if rival and ours else "")
    for work, peak in (("gflop", peaks.get(facts.get("compute"))), ("gbytes", peaks.get(MEMORY))):
        known = work in facts and not is_limit
        cells.append(f"{facts[work] / median:,.4g}" if known else "")
        cells.append(f"{facts[work] / median / peak:.0%}" if known and peak else "")
    cells.append(f"{facts['trace_s'] + facts['lower_s']:.2f}" if "trace_s" in facts else "")
    cells.append(f"{facts['compile_s']:.2f}" if "compile_s" in facts else "")
    cells.append(f"{facts['peak_mb']:,.0f}" if "peak_mb" in facts else "")
    cells.append(f"{facts['relative_error']:.1e}" if "relative_error" in facts else "")
    return cells


def _peaks(document: Mapping[str, Any]) -> dict[str, float]:
    """GFLOP/s of a large product by data type, and GB/s of the fastest pass through memory."""
    found: dict[str, float] = {}
    for row in document["rows"]:
        if row["seconds"] and row["case"] in (MEMORY, PRODUCT):
            name = MEMORY if row["case"] == MEMORY else row["program"]
            found[name] = max(found.get(name, 0.0), row["amount"] / row["seconds"]["median"])
    return found


def _missing(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> Iterator[str]:
    """What was not measured, and why."""
    for row in rows:
        if row["error"]:
            yield f"{row['case']}, {row['program']}: {row['error']}"
    for name, part in document["parts"].items():
        if part["error"] and (not parts or name in parts):
            yield f"{name}: {part['error']}"


def about(document: Mapping[str, Any]) -> str:
    """A line on the device, the versions and the command."""
    made = document["environment"]
    if not made:
        return "No process reached the device."
    packages = {**made["packages"]}
    names = ("jax", "jaxlib", "libtpu", "torch", "numpy")
    versions = ", ".join(f"{name} {packages[name]}" for name in names if packages.get(name))
    devices = ", ".join(f"{d['count']} x {d['kind']}" for d in made["devices"])
    memory = made.get("memory", {}).get("bytes_limit")
    size = f" with {memory / 2**30:.0f} GiB" if memory else ""
    git = made["git"]
    commit = f", commit {git['commit'][:10]}{' with changes' if git['changed'] else ''}" if git else ""
    return (
        f"Made on {devices}{size} ({made['cpu']['model']}), {made['python']}, {versions}{commit}, {made['date'][:10]}."
    )


def page(document: Mapping[str, Any]) -> str:
    """All results as a page."""
    lines = [
        "# What the package reaches on this device",
        "",
        "Printed by `python -m benchmarks.report --page` from the JSON beside it. `x PyTorch` is PyTorch's time over "
        "this one; `of peak` the share of the speed of a large product in the same data type, and `of memory` that "
        "of the fastest pass through memory. FLOPs of an encoder are those of the model; others are those of all "
        "products in the program. `error` is the relative error of the gradient. Peak memory is the compiler's.",
        "",
        tables(document),
        "",
        "| part | seconds |",
        "|---|--:|",
    ]
    for name, part in document["parts"].items():
        lines.append(f"| {name} | {part['seconds']:,.0f} |" if part["seconds"] is not None else f"| {name} | |")
    return "\n".join([*lines, ""])
