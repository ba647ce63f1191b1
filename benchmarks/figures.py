"""Plots of the suite: bars with spread, scaling curves, and the roofline, as matplotlib figures without pyplot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from metarec_jax.core.atomic_files import make_folder, replacing

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8A8A8A"
SUITES = ("outer-step-frozen", "outer-step-joint", "rank", "encoder", "inner-loop", "updaters")
PER_SECOND = ("users/s", "texts/s")


def draw(document: Mapping[str, Any], folder: Path) -> list[tuple[str, Path]]:
    """Draw the plots of a results document.

    Args:
        document: document of the suite.
        folder: folder of the files.

    Returns:
        Title and file of each plot.
    """
    found = []
    for title, figure in figures(document).items():
        path = make_folder(folder) / file_of(title)
        with replacing(path) as part:
            figure.savefig(part, dpi=120, format="png")
        found.append((title, path))
    return found


def file_of(title: str) -> str:
    """The name of a plot's file."""
    return f"{title.replace(', ', '-').replace(' ', '-')}.png"


def figures(document: Mapping[str, Any]) -> dict[str, Figure]:
    """Plots of a results document, by title."""
    made: dict[str, Figure] = {}
    for suite in SUITES:
        rows = [row for row in document["rows"] if row["suite"] == suite and row["metric"] in PER_SECOND]
        if rows:
            made[f"times faster, {suite}"] = bars(rows)
    curves = [row["facts"] for row in document["rows"] if "curve" in row["facts"]]
    if curves:
        made["scaling"] = scaling(curves)
    points = _points(document["rows"])
    if points:
        made["roofline"] = roofline(points)
    return made


def bars(rows: list[Mapping[str, Any]]) -> Figure:
    """Ratios of the rows of a case, with the range of the middle 90 % of the turns; ticks are targets."""
    figure = Figure(figsize=(8, 0.6 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    median = [row["ratio"]["median"] for row in rows]
    spread = [[m - row["ratio"]["low"] for m, row in zip(median, rows)]]
    spread.append([row["ratio"]["high"] - m for m, row in zip(median, rows)])
    axes.barh(places, median, xerr=spread, color=BLUE, ecolor=GREY)
    aimed = [(place, row["bar"]) for place, row in zip(places, rows) if row["bar"] is not None]
    axes.scatter([bar for _, bar in aimed], [place for place, _ in aimed], color=ORANGE, marker="|", s=200, label="bar")
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_yticks(places, [f"{row['case']}: {row['contender']}" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times faster than (logarithmic)")
    if aimed:
        axes.legend(fontsize=7)
    return figure


def scaling(curves: list[Mapping[str, Any]]) -> Figure:
    """Work per second with its spread, one panel per curve."""
    figure = Figure(figsize=(9, 2.6 * -(-len(curves) // 3)), layout="constrained")
    for place, curve in enumerate(curves, 1):
        axes = figure.add_subplot(-(-len(curves) // 3), 3, place)
        points, unit = curve["points"], curve["unit"]
        at, middle = [p[curve["curve"]] for p in points], [p[unit] for p in points]
        axes.plot(at, middle, color=BLUE, marker="o")
        axes.fill_between(at, [p["low"] for p in points], [p["high"] for p in points], color=BLUE, alpha=0.2)
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(curve["curve"])
        axes.set_ylabel(unit)
    return figure


class Point(NamedTuple):
    """A program and its roofline: FLOP per byte, GFLOP/s, and the machine's GFLOP/s and GB/s."""

    name: str
    intensity: float
    speed: float
    peak: float
    bandwidth: float


def _points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Our programs, one per case; rows without a roofline among their facts are read from their product's speed."""
    found: dict[str, Point] = {}
    for row in rows:
        facts = row["facts"]
        for reached in list(facts.get("roofline", {}).values())[:1]:
            intensity = reached["gflop_of_products"] / reached["gbytes_moved"]
            limits = reached["gemm_gflop_per_s"], reached["bandwidth_gb_per_s"]
            found.setdefault(row["case"], Point(row["case"], intensity, reached["gflop_per_s"], *limits))
        if row["contender"] == "gemm-peak" and "gflop" in facts:
            bandwidth = facts["bandwidth_gb_per_s"]
            intensity = facts["gflop"] / (facts["seconds_at_bandwidth"] * bandwidth)
            found.setdefault(row["case"], Point(row["case"], intensity, row["ours"], row["theirs"], bandwidth))
    return list(found.values())


def roofline(points: Sequence[Point]) -> Figure:
    """GFLOP/s of products by FLOP per byte, with the limits of the machine."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for point in points:
        at = [2.0**power for power in range(-4, 12)]
        axes.plot(at, [min(point.peak, point.bandwidth * x) for x in at], color=GREY, linewidth=1)
        axes.scatter([point.intensity], [point.speed], color=BLUE)
        axes.annotate(point.name, (point.intensity, point.speed), fontsize=6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("FLOP per byte accessed")
    axes.set_ylabel("GFLOP/s")
    return figure
