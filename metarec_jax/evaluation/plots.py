"""Plots of an evaluation, as matplotlib figures that belong to nobody: no pyplot, no global state, no window.

Colours are Okabe and Ito's, which colour-blind people tell apart; nothing is said by colour alone.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarec_jax.core.atomic_files import make_folder, replacing
from metarec_jax.evaluation.report import Table, number

BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"


def methods_figure(table: Table, metrics: Sequence[str] | None = None) -> Figure:
    """Every method's mean and s.d. over seeds, one panel a metric; the table's subject stands out.

    Dots, not bars: methods differ by a few per cent, which a bar that starts at zero, as a bar must, would hide.

    Args:
        metrics: which panels; MAE and nDCG where the table has them, otherwise its first two, where None.
    """
    known = {m.name: m for m in table.metrics}
    names = list(metrics) if metrics is not None else _main_metrics(list(known))
    rows = table.rows[::-1]  # the first method on top
    figure = Figure(figsize=(3.2 + 3.3 * len(names), 1.3 + 0.36 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names):
        clean(axes)
        cells = [row.cells[name] for row in rows]
        for y, (row, cell) in enumerate(zip(rows, cells)):
            chosen = row.method == table.subject
            colour = ORANGE if chosen else BLUE
            sd = cell.sd if math.isfinite(cell.sd) else 0.0
            axes.plot(
                [cell.mean - sd, cell.mean + sd], [y, y], color=colour, linewidth=2, solid_capstyle="round", alpha=0.6
            )
            axes.plot(cell.mean, y, "D" if chosen else "o", color=colour, markersize=7, markeredgecolor="white")
            axes.annotate(
                number(cell.mean), (cell.mean, y), (0, 6), textcoords="offset points", ha="center", fontsize=8,
                color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        if table.references and table.references[0] in [row.method for row in rows]:
            axes.axvline(
                table.row(table.references[0]).cells[name].mean, color=GREY, linewidth=1, linestyle=":", zorder=0
            )
        axes.set_title(f"{known[name].title}  ({known[name].better} is better)", fontsize=10, color=INK)
        axes.grid(axis="y", color="#EDEDED", zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.08)
        axes.set_ylim(-0.6, len(rows) - 0.2)
        axes.set_yticks(range(len(rows)), [row.method for row in rows])
    for label, row in zip(panels[0].get_yticklabels(), rows):
        label.set_fontweight("bold" if row.method == table.subject else "normal")
    spread = f"mean and s.d. over {len(table.seeds)} seeds" if len(table.seeds) > 1 else "one seed"
    dotted = f"; dotted: {table.references[0]}" if table.references else ""
    figure.suptitle(table.title, fontsize=11, fontweight="bold", color=INK)
    figure.supxlabel(spread + dotted, fontsize=8, color=GREY)
    return figure


def training_figure(
    epochs: Sequence[int], train: Sequence[float], validation: Sequence[float], *, loss: str = "query loss"
) -> Figure:
    """Loss on training and validation users by epoch, with the best epoch marked.

    Args:
        epochs: [n], ascending.
        train, validation: [n] losses; NaN where an epoch has none.
        loss: what the axis is called.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    clean(axes)
    axes.plot(epochs, train, color=BLUE, linewidth=2, linestyle="--", label="training users")
    axes.plot(epochs, validation, color=ORANGE, linewidth=2, marker="o", markersize=3, label="validation users")
    scores = np.asarray(validation, dtype=float)
    if np.isfinite(scores).any():
        best = int(np.nanargmin(scores))
        axes.axvline(epochs[best], color=GREY, linewidth=1, linestyle=":", zorder=0)
        label = f"best: {number(float(scores[best]))} in epoch {epochs[best]}"
        axes.plot(epochs[best], scores[best], "D", color=ORANGE, markersize=8, markeredgecolor="white", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(loss)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#EDEDED")
    axes.set_title("Meta-training", fontsize=11, fontweight="bold", color=INK)
    axes.legend(frameon=False)
    return figure


def tuning_figure(values: Sequence[float], best: float, metric: str) -> Figure:
    """What the trials of a search were worth on validation users, in their order, with the best so far.

    Args:
        values: [trials].
        best: the best of them.
        metric: what they are called.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    clean(axes)
    trials, found = np.arange(1, len(values) + 1), np.asarray(values, dtype=float)
    least = best <= found.min()
    axes.plot(trials, found, "o", color=BLUE, markersize=4, label="a trial")
    so_far = np.minimum.accumulate(found) if least else np.maximum.accumulate(found)
    axes.step(trials, so_far, where="post", color=ORANGE, linewidth=2, label="the best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{metric} on validation users")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#EDEDED")
    axes.set_title("Tuning", fontsize=11, fontweight="bold", color=INK)
    axes.legend(frameon=False)
    return figure


def pretraining_figure(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """What was held out of a pretraining, by step, one panel for each thing that is judged (less is better in all).

    Args:
        curves: steps and values by title; perplexities, which fall by orders of magnitude, get a logarithmic axis.
    """
    figure = Figure(figsize=(3.6 * max(len(curves), 1), 3.4), layout="constrained")
    panels = figure.subplots(1, max(len(curves), 1), squeeze=False)[0]
    for axes, (title, (steps, values)) in zip(panels, curves.items()):
        clean(axes)
        axes.plot(steps, values, color=ORANGE, linewidth=2, marker="o", markersize=4)
        axes.set_title(title.replace(", ", ",\n"), fontsize=9, color=INK)
        axes.set_xlabel("step", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(color="#EDEDED")
        if "perplexity" in title:
            axes.set_yscale("log")
    figure.suptitle("Pretraining", fontsize=11, fontweight="bold", color=INK)
    return figure


def improvement_figure(
    baseline: Float[np.ndarray, " users"],
    model: Float[np.ndarray, " users"],
    *,
    names: tuple[str, str],
    metric: str = "MAE",
) -> Figure:
    """How many users gain, and by how much: the histogram of baseline minus model, for a metric that is an error.

    Args:
        baseline, model: each user's error; a user who is tested in several seeds counts as several tasks.
        names: what the two are called.
        metric: what the error is called.
    """
    gain = np.asarray(baseline, dtype=float) - np.asarray(model, dtype=float)
    if len(gain) == 0:
        raise ValueError("a histogram of users needs at least one user")
    reach = max(float(np.abs(gain).max()), 1e-3)
    edges = np.linspace(-reach, reach, 2 * max(5, min(20, round(math.sqrt(len(gain))))) + 1)  # an edge lies at zero
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    clean(axes)
    better, worse = (np.histogram(part, edges)[0] for part in (gain[gain > 0], gain[gain <= 0]))
    centre, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    axes.bar(centre, better, width, color=BLUE, edgecolor="white", linewidth=0.5)
    axes.bar(centre, worse, width, bottom=better, color=ORANGE, edgecolor="white", linewidth=0.5, hatch="//")
    top = max(int((better + worse).max()), 1)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvline(gain.mean(), color=INK, linewidth=1.5, linestyle="--")
    axes.annotate(
        f"mean {number(float(gain.mean()), '+')}",
        (gain.mean(), top * 1.12), (5 if gain.mean() >= 0 else -5, 0), textcoords="offset points",
        ha="left" if gain.mean() >= 0 else "right", va="center", fontsize=9, color=INK,
    )  # fmt: skip
    for x, side, text in (
        (0.02, "left", f"worse for {np.mean(gain < 0):.0%}"),
        (0.98, "right", f"better for {np.mean(gain > 0):.0%}"),
    ):
        axes.text(
            x, 0.9, text, transform=axes.transAxes, ha=side, fontsize=10, color=ORANGE if side == "left" else BLUE
        )
    axes.set_ylim(0, top * 1.25)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"by how much the {metric} of a user is lower")
    axes.set_ylabel("test tasks")
    title = f"{names[1]}\nagainst {names[0]}, on {len(gain)} test tasks"
    axes.set_title(title, fontsize=11, fontweight="bold", color=INK)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write `figure` as a PNG, whole or not at all.

    Raises:
        MetarecError: the file cannot be written.
    """
    path = pathlib.Path(path)
    make_folder(path.parent)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor="white")
    return path


def _main_metrics(known: list[str]) -> list[str]:
    found = [n for n in known if n == "mae"] + [n for n in known if n.startswith("ndcg@")][:1]
    return found if len(found) == 2 else known[:2]


def clean(axes: Axes) -> None:
    """Takes away what draws the eye and says nothing."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.set_axisbelow(True)
