"""Plots of evaluations, trainings and searches, as matplotlib figures without pyplot, so that no global state changes.

Colours are those of Okabe and Ito, which remain distinct under colour blindness; shapes or labels repeat them.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarec_jax.core.atomic_files import make_folder, replacing
from metarec_jax.evaluation.cohorts import KINDS
from metarec_jax.evaluation.methods import BIAS, META
from metarec_jax.evaluation.table import Table
from metarec_jax.evaluation.text_table import number

BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"
GREEN, PURPLE, SKY, YELLOW, BLACK = "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000"
_COLOURS = (ORANGE, BLUE, GREEN, PURPLE, SKY, YELLOW, BLACK)
_MARKS = ("D", "o", "s", "^", "v", "P", "X")
_CURVES = ("mae", "ndcg@5", "auc")
"""Metrics of a few-shot curve."""


def methods_figure(table: Table, metrics: Sequence[str] | None = None) -> Figure:
    """Mean and s.d. over seeds of every method, one panel per metric, with the table's subject in another colour.

    Values are drawn as dots, since bars start at zero and hide differences of a few per cent.

    Args:
        table: table of the methods.
        metrics: names, one per panel; None takes MAE and nDCG where the table has them, otherwise its first two.

    Returns:
        The figure.
    """
    known = {m.name: m for m in table.metrics}
    names = list(metrics) if metrics is not None else _main_metrics(list(known))
    rows = table.rows[::-1]  # the first method on top
    figure = Figure(figsize=(3.2 + 3.3 * len(names), 1.3 + 0.36 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names):
        _clean(axes)
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
        loss: label of the axis.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
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


def tuning_figure(trials: Sequence[int], values: Sequence[float], best: float, metric: str) -> Figure:
    """Values of the trials of a search on validation users, in their order, with the best so far.

    Args:
        trials: [trials], their numbers, ascending.
        values: [trials].
        best: the best of them.
        metric: its name, for the label of the axis.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    found = np.asarray(values, dtype=float)
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
    """Metrics of the held-out part of a pretraining by step, one panel per metric; lower is better in all of them.

    Args:
        curves: steps and values by title; perplexities, which fall by orders of magnitude, get a logarithmic axis.
    """
    figure = Figure(figsize=(3.6 * max(len(curves), 1), 3.4), layout="constrained")
    panels = figure.subplots(1, max(len(curves), 1), squeeze=False)[0]
    for axes, (title, (steps, values)) in zip(panels, curves.items()):
        _clean(axes)
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
    """Histogram over users of the error of a baseline minus the error of a model.

    Args:
        baseline, model: error of each user, [users]; a user who is tested in several seeds counts once in each.
        names: names of the baseline and of the model.
        metric: name of the error.

    Returns:
        The figure.

    Raises:
        ValueError: there is no user.
    """
    gain = np.asarray(baseline, dtype=float) - np.asarray(model, dtype=float)
    if len(gain) == 0:
        raise ValueError("a histogram of users needs at least one user")
    reach = max(float(np.abs(gain).max()), 1e-3)
    edges = np.linspace(-reach, reach, 2 * max(5, min(20, round(math.sqrt(len(gain))))) + 1)  # an edge lies at zero
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
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


def curve_figure(curve: Mapping[str, Any]) -> Figure:
    """Metrics by the size of the support, with 95 % intervals over users of the model and of one baseline.

    Args:
        curve: from `metarec_jax.evaluation.write_results.curve_of`.
    """
    known = {m["name"]: m for m in curve["metrics"]}
    names = [name for name in _CURVES if name in known] or list(known)[:2]
    figure = Figure(figsize=(4.2 * len(names), 4.0), layout="constrained")
    place = np.arange(len(curve["k"]))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        _clean(axes)
        for colour, mark, (method, metrics) in zip(_COLOURS, _MARKS, curve["methods"].items()):
            low, mean, high = (
                [np.nan if c[p] is None else c[p] for c in metrics[name]] for p in ("low", "mean", "high")
            )
            bold = method == META
            if bold or method == BIAS:  # bands of all methods hide each other
                axes.fill_between(place, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                place, mean, color=colour, marker=mark, markersize=5, linewidth=2.2 if bold else 1.3, label=method
            )
        axes.set_title(f"{known[name]['title']}  ({known[name]['better']} is better)", fontsize=10, color=INK)
        axes.set_xticks(place, [str(k) for k in curve["k"]])
        axes.set_xlabel("ratings shown", fontsize=9)
        axes.grid(color="#EDEDED")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Few-shot curve", fontsize=11, fontweight="bold", color=INK)
    return figure


def cohort_figure(found: Mapping[str, Any], methods: Sequence[str], *, title: str, metric: str = "mae") -> Figure:
    """Error of each method by cohort with 95 % intervals, one panel per kind of cohort.

    Args:
        found: results of one scenario, as in ``tables/cohorts.json``.
        methods: names of the methods, one bar each.
        title: title of the figure.
        metric: "mae" or "rmse".

    Returns:
        The figure.
    """
    figure = Figure(figsize=(5.0 * len(KINDS), 3.8), layout="constrained")
    width = 0.8 / len(methods)
    for axes, kind in zip(figure.subplots(1, len(KINDS), squeeze=False)[0], KINDS):
        _clean(axes)
        cohorts = found["cohorts"][kind.name]
        place = np.arange(len(cohorts))
        for i, (colour, method) in enumerate(zip(_COLOURS, methods)):
            cells = [c["values"][metric][method] for c in cohorts]
            mean, low, high = (
                np.array([np.nan if c[part] is None else c[part] for c in cells], float)
                for part in ("difference", "low", "high")
            )
            x = place + (i - (len(methods) - 1) / 2) * width
            whiskers = np.maximum([mean - low, high - mean], 0) if len(cells) else None
            axes.bar(x, mean, width, color=colour, label=method, yerr=whiskers, error_kw={"lw": 0.8, "ecolor": GREY})
        axes.set_xticks(place, [f"{c['cohort']}\n{c['users']} users" for c in cohorts], fontsize=8)
        axes.set_xlabel(kind.title, fontsize=9)
        axes.grid(axis="y", color="#EDEDED")
    figure.axes[0].set_ylabel(metric.upper())
    if figure.axes[0].containers:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(title, fontsize=11, fontweight="bold", color=INK)
    return figure


def reliability_figure(found: Mapping[str, Any], *, title: str) -> Figure:
    """Observed frequency against predicted probability, and the number of predictions of each probability.

    Args:
        found: results of one scenario, as in ``tables/calibration.json``.
        title: title of the figure.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(4.6, 5.2), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    predicted, observed = ([np.nan if x is None else x for x in found[part]] for part in ("predicted", "observed"))
    for part in (axes, below):
        _clean(part)
        part.grid(color="#EDEDED")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    axes.plot(predicted, observed, color=ORANGE, marker="D", markersize=5, linewidth=1.5)
    axes.set_ylabel("share of ratings above the level")
    axes.set_title(f"expected calibration error {found['error']:.3f}", fontsize=9, color=INK)
    centre = (np.asarray(found["low"]) + np.asarray(found["high"])) / 2
    below.bar(centre, found["count"], 0.9 / len(centre), color=BLUE)
    below.set_ylabel("predictions", fontsize=8)
    below.set_xlabel("predicted P(rating > level), all levels")
    figure.suptitle(title, fontsize=11, fontweight="bold", color=INK)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a figure as a PNG file, atomically.

    Args:
        figure: the figure.
        path: path of the file; its folder is made where it is missing.

    Returns:
        The path.

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


def _clean(axes: Axes) -> None:
    """Remove the frame's upper and right side and the ticks, and draw the rest in grey."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.set_axisbelow(True)
