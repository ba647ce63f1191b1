"""Files that an evaluation writes: tables, cohorts, calibration and plots.

tables/evaluation.json, .md   every method with its differences and their intervals, for every scenario
tables/cohorts.json           errors by history length, item popularity and user activity
tables/calibration.json       of P(rating > level)
tables/curve.json             metrics by the size of the support, for protocol few-shot
plots/                        figures of the same
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.atomic_files import make_folder, remove_leftovers, write_text
from metarec_jax.core.environment import environment
from metarec_jax.evaluation.bootstrap import Interval, pair_bootstrap
from metarec_jax.evaluation.budget import FULL, Budget
from metarec_jax.evaluation.cohorts import KINDS, calibration, cohorts
from metarec_jax.evaluation.methods import BEFORE, BIAS, CLOSED, ITEM, META, NEAREST, RATE, RIDGE, STRANGER, TUNED, TWIN
from metarec_jax.evaluation.metric_sets import Mode, mode
from metarec_jax.evaluation.per_user import judge_rows
from metarec_jax.evaluation.predictions_table import Answers, SeedAnswers
from metarec_jax.evaluation.report import json_text, plain, write_reports
from metarec_jax.evaluation.table import SeedResult, Table, build_table
from metarec_jax.metrics.definitions import metric

REFERENCES = (BIAS, RATE, NEAREST, RIDGE, CLOSED, STRANGER, TWIN, TUNED, BEFORE)
CURVES = (META, BEFORE, CLOSED, TUNED, RIDGE, BIAS, ITEM, RATE)
"""Methods in the figures of curves and cohorts, where the evaluation has them."""
HEADLINE = (BIAS, RATE, CLOSED, TUNED, META)
"""Methods that the command line prints by default: a baseline without training, the prior without the network, the
network without the inner loop, and the model."""


def publish(
    seeds: Sequence[SeedAnswers], folder: Path, metrics: str = "own", budget: Budget = FULL
) -> dict[str, Table]:
    """Make every table and plot, and write them into a folder.

    Args:
        seeds: answers of all methods.
        folder: folder of the evaluation.
        metrics: name of the set of metrics.
        budget: resamples, and whether there are plots.

    Returns:
        The table of each scenario.
    """
    counted = mode(metrics)
    names = list(dict.fromkeys(name for seed in seeds for name in seed.scenarios))
    tables, results = {}, {}
    for name in names:
        tables[name], results[name] = table_of(seeds, name, counted, budget, several=len(names) > 1)
    _write(seeds, tables, results, folder, budget)
    return tables


def _write(
    seeds: Sequence[SeedAnswers],
    tables: Mapping[str, Table],
    results: Mapping[str, dict[str, list[SeedResult]]],
    folder: Path,
    budget: Budget,
) -> None:
    made = environment()
    where = folder / "tables"
    write_reports(tables, where, made)
    shown = [name for name in CURVES if name in next(iter(tables.values())).methods]
    found = {name: _cohorts(seeds, name, shown, budget.samples) for name in tables}
    write_text(where / "cohorts.json", json_text({"scenarios": found, "environment": made}))
    calibrated = {name: _calibration(seeds, name) for name in tables}
    write_text(where / "calibration.json", json_text({"method": META, "scenarios": calibrated, "environment": made}))
    if budget.plots:
        _draw(seeds, tables, results, found, calibrated, folder, shown, made)


def table_of(
    seeds: Sequence[SeedAnswers], name: str, counted: Mode, budget: Budget = FULL, *, several: bool
) -> tuple[Table, dict[str, list[SeedResult]]]:
    """Make the table of one scenario.

    Args:
        seeds: answers of all methods.
        name: name of the scenario.
        counted: set of metrics.
        budget: resamples of the bootstrap.
        several: whether the table is one of several.

    Returns:
        The table, and the results of each method by seed.
    """
    having = [seed for seed in seeds if name in seed.scenarios]
    results: dict[str, list[SeedResult]] = {}
    per_user = tuple(m for m in counted.metrics if metric(m).per_user)
    for seed in having:
        questions, predictions = seed.scenarios[name]
        for method, said in predictions.items():
            settings = seed.about["settings"][method]
            judged = judge_rows(
                questions, said, seed.scale, seed=seed.seed, name=method, settings=settings, metrics=per_user
            )
            overall = {m: v for m, v in judged.overall.items() if m in counted.metrics}
            results.setdefault(method, []).append(dataclasses.replace(judged, overall=overall))
    first = having[0]
    about = first.about["scenarios"][name]
    notes = [f"{name}: {about['definition']}"] if several else []
    if not about["held_out"]:
        notes.append("these tasks trained the model: training performance, as published, and no test")
    if counted is not mode("own"):
        notes.append(f"metrics: {counted.definition}. Beware: {counted.traps}")
    number = f"{len(having)} seed{'s' if len(having) > 1 else ''}"
    table = build_table(
        results,
        title=f"{name}, {number}" if several else number,
        protocol=first.about["protocol"],
        references=tuple(method for method in REFERENCES if method in results),
        subject=META,
        definitions=first.about["definitions"],
        scale=first.scale,
        intervals=_overall_intervals(having, name, counted, budget.samples),
        notes=notes,
        samples=budget.samples,
    )
    return dataclasses.replace(table, headline_metrics=counted.headline, headline_methods=HEADLINE), results


def _overall_intervals(
    seeds: Sequence[SeedAnswers], name: str, counted: Mode, samples: int
) -> dict[str, dict[str, Interval]]:
    """Intervals of the model's metrics that are not means over users, by method and metric."""
    if "auc_global" not in counted.metrics:
        return {}
    parts = []
    for seed in seeds:
        questions, predictions = seed.scenarios[name]
        liked = seed.scale.likes(questions.rating)
        parts.append((np.asarray(predictions[META].score), liked, questions.user))
    return {META: {"auc_global": pair_bootstrap(parts, samples=samples)}}


def _of(seeds: Sequence[SeedAnswers], name: str) -> list[tuple[int, Answers]]:
    return [(seed.seed, seed.scenarios[name]) for seed in seeds if name in seed.scenarios]


def _cohorts(seeds: Sequence[SeedAnswers], name: str, methods: Sequence[str], samples: int) -> dict[str, Any]:
    reference = next((rule for rule in (BIAS, RATE) if rule in methods), methods[-1])
    tree = {}
    for kind in KINDS:
        found = cohorts(_of(seeds, name), kind, methods, reference, samples=samples)
        tree[kind.name] = [
            {"cohort": c.label, "first": c.first, "last": c.last, "users": c.users, "rows": c.rows}
            | {
                part: {m: {who: plain(i._asdict()) for who, i in by.items()} for m, by in getattr(c, part).items()}
                for part in ("values", "differences")
            }
            for c in found
        ]
    return {"reference": reference, "cohorts": tree}


def _calibration(seeds: Sequence[SeedAnswers], name: str) -> dict[str, Any] | None:
    found = _of(seeds, name)
    levels = seeds[0].scale.levels
    made = calibration([a.questions for _, a in found], [a.predictions[META] for _, a in found], levels)
    return (
        None
        if made is None
        else plain({k: v.tolist() if hasattr(v, "tolist") else v for k, v in made._asdict().items()})
    )


def _draw(
    seeds: Sequence[SeedAnswers],
    tables: Mapping[str, Table],
    results: Mapping[str, dict[str, list[SeedResult]]],
    found: Mapping[str, dict[str, Any]],
    calibrated: Mapping[str, dict[str, Any] | None],
    folder: Path,
    shown: Sequence[str],
    made: Mapping[str, Any],
) -> None:
    from metarec_jax.evaluation import plots

    drawings = make_folder(folder / "plots")
    remove_leftovers(drawings)
    few_shot = seeds[0].about["kind"] == "few-shot"
    # For a few-shot curve, only the scenario with the longest support is drawn in detail.
    detailed = list(tables.items())[-1:] if few_shot else list(tables.items())
    for name, table in detailed:
        end = "" if len(tables) == 1 else f"-{file_name(name)}"
        plots.save(plots.methods_figure(table), drawings / f"methods{end}.png")
        reference = next(method for method in (BIAS, RATE, TWIN) if method in results[name])
        if "mae" in results[name][META][0].values:
            errors = [np.concatenate([r.values["mae"].values for r in results[name][m]]) for m in (reference, META)]
            plots.save(plots.improvement_figure(*errors, names=(reference, META)), drawings / f"improvement{end}.png")
        plots.save(plots.cohort_figure(found[name], shown, title=name), drawings / f"cohorts{end}.png")
        reliable = calibrated[name]
        if reliable is not None:
            plots.save(plots.reliability_figure(reliable, title=name), drawings / f"reliability{end}.png")
    if few_shot:
        curve = curve_of(tables, shown)
        write_text(folder / "tables" / "curve.json", json_text({**curve, "environment": made}))
        plots.save(plots.curve_figure(curve), drawings / "curve.png")


def curve_of(tables: Mapping[str, Table], methods: Sequence[str]) -> dict[str, Any]:
    """Metrics of some methods by the size of the support, with intervals over users.

    Args:
        tables: tables of the scenarios of protocol few-shot, whose names end with "= K".
        methods: names.

    Returns:
        ``{"k": [...], "metrics": [...], "methods": {method: {metric: [{"mean", "low", "high"}, ...]}}}``.
    """
    first = next(iter(tables.values()))
    return {
        "k": [int(name.rpartition("=")[2]) for name in tables],
        "metrics": [dataclasses.asdict(m) for m in first.metrics if m.per_user],
        "methods": {
            method: {
                m.name: [
                    plain({"mean": cell.mean, "low": cell.interval.low, "high": cell.interval.high})
                    for cell in (table.row(method).cells[m.name] for table in tables.values())
                    if cell.interval is not None
                ]
                for m in first.metrics
                if m.per_user
            }
            for method in methods
        },
    }


def file_name(scenario: str) -> str:
    """The name of a scenario as a part of file names.

    >>> file_name("warm users, cold items"), file_name("k = 10")
    ('warm-users-cold-items', 'k-10')
    """
    return "-".join("".join(c if c.isalnum() else " " for c in scenario).split())
