"""Plots of who gains: the few-shot curve, bars by cohort, and the reliability of predicted probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metarec_jax.evaluation.cohorts import KINDS
from metarec_jax.evaluation.methods import BIAS, META
from metarec_jax.evaluation.plots import BLUE, GREY, INK, ORANGE, clean

GREEN, PURPLE, SKY, YELLOW, BLACK = "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000"
_COLOURS = (ORANGE, BLUE, GREEN, PURPLE, SKY, YELLOW, BLACK)
_MARKS = ("D", "o", "s", "^", "v", "P", "X")
MAIN = ("mae", "ndcg@5", "auc")


def curve_figure(curve: Mapping[str, Any]) -> Figure:
    """Metrics by the number of ratings that were shown; bands are 95 % intervals over users, of the model and a rule.

    Args:
        curve: from `metarec_jax.evaluation.write_results.curve_of`.
    """
    known = {m["name"]: m for m in curve["metrics"]}
    names = [name for name in MAIN if name in known] or list(known)[:2]
    figure = Figure(figsize=(4.2 * len(names), 4.0), layout="constrained")
    place = np.arange(len(curve["k"]))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        clean(axes)
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
    """The error of each method by cohort, one panel for each way to tell rows apart; whiskers are 95 % intervals.

    Args:
        found: of one scenario, as in ``tables/cohorts.json``.
        methods: which bars.
        title: of the figure.
        metric: "mae" or "rmse".
    """
    figure = Figure(figsize=(5.0 * len(KINDS), 3.8), layout="constrained")
    width = 0.8 / len(methods)
    for axes, kind in zip(figure.subplots(1, len(KINDS), squeeze=False)[0], KINDS):
        clean(axes)
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
    """What was said to happen against what did: points on the diagonal are calibrated; bars show how often it was said.

    Args:
        found: of one scenario, as in ``tables/calibration.json``.
        title: of the figure.
    """
    figure = Figure(figsize=(4.6, 5.2), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    predicted, observed = ([np.nan if x is None else x for x in found[part]] for part in ("predicted", "observed"))
    for part in (axes, below):
        clean(part)
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
