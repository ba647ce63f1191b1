"""Tables and plots of few-shot experiments: a number with its interval for each method and column, by panel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from metarec_jax.core.atomic_files import make_folder, write_text
from metarec_jax.evaluation.text_table import grid


class Panel(NamedTuple):
    """Results of some methods under one condition.

    Attributes:
        title: the condition.
        axis: what the columns are.
        columns: name of each column.
        values: method -> mean of each column.
        halves: method -> half the width of the 95 % interval of each mean, over tasks.
    """

    title: str
    axis: str
    columns: Sequence[Any]
    values: Mapping[str, Sequence[float]]
    halves: Mapping[str, Sequence[float]]


def panel(title: str, axis: str, columns: Sequence[Any], of_tasks: Mapping[str, np.ndarray]) -> Panel:
    """Means over tasks with their intervals.

    Args:
        title, axis, columns: as in `Panel`.
        of_tasks: method -> [tasks, columns].
    """
    values = {name: [float(x) for x in np.mean(found, axis=0)] for name, found in of_tasks.items()}
    halves = {
        name: [float(x) for x in 1.96 * np.std(found, axis=0, ddof=1) / np.sqrt(len(found))]
        for name, found in of_tasks.items()
    }
    return Panel(title, axis, list(columns), values, halves)


def write(panels: Sequence[Panel], unit: str, facts: Mapping[str, Any], path: Path) -> None:
    """Write panels with their unit, facts and the environment as JSON."""
    make_folder(path.parent)
    document = {
        "environment": harness.environment(),
        "unit": unit,
        "facts": dict(facts),
        "panels": [found._asdict() for found in panels],
    }
    write_text(path, json.dumps(document, indent=1) + "\n")


def tables(document: Mapping[str, Any], titles: Sequence[str] = ()) -> str:
    """The panels of a document as Markdown tables.

    Args:
        document: as `write` writes it.
        titles: titles of panels; all if empty.
    """
    parts = []
    for found in document["panels"]:
        if titles and found["title"] not in titles:
            continue
        least = document["facts"].get("better") == "lower"
        best = [(min if least else max)(column) for column in zip(*found["values"].values())]
        body, bold = [], set()
        for row, (name, values) in enumerate(found["values"].items()):
            body.append([name, *(f"{v:.3g} ± {half:.1g}" for v, half in zip(values, found["halves"][name]))])
            bold |= {(row, column + 1) for column, value in enumerate(values) if value == best[column]}
        first, columns = f"{found['title']}: {document['unit']}", found["columns"]
        header = [first, *(f"{found['axis']} {column}" for column in columns)]
        parts.append("\n".join(grid(header, body, bold)))
    return "\n\n".join(parts)


def figure(panels: Sequence[Panel], unit: str, *, log: bool = False) -> Any:
    """Plot panels side by side, a curve for each method with its interval as a band.

    Args:
        panels: the panels.
        unit: label of the vertical axis.
        log: whether that axis is logarithmic.
    """
    from matplotlib.figure import Figure

    from metarec_jax.evaluation import plots

    colours = (plots.ORANGE, plots.BLUE, plots.GREEN, plots.PURPLE, plots.SKY, plots.BLACK, plots.GREY)
    drawn = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    for axes, found in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels):
        for (name, values), colour, mark in zip(found.values.items(), colours, "oDs^vPX"):
            low, high = (np.add(values, sign * np.asarray(found.halves[name])) for sign in (-1, 1))
            axes.fill_between(found.columns, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(found.columns, values, color=colour, marker=mark, markersize=4, label=name)
        axes.set(title=found.title, xlabel=found.axis, ylabel=unit)
        if log:
            axes.set_yscale("log")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    drawn.axes[0].legend(frameon=False, fontsize=8)
    return drawn
