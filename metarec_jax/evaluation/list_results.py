"""Tables and cohorts of an evaluation by lists, and the files that hold them.

tables/evaluation.json, .md   every method with its difference from the model, for every scenario
tables/cohorts.json           metrics by the number of shown clicks, and by the popularity of the targets
plots/                        all methods in the headline metrics
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.atomic_files import write_text
from metarec_jax.core.environment import environment
from metarec_jax.evaluation.budget import FULL, Budget
from metarec_jax.evaluation.cohorts import LEAST_USERS, Kind, bounds, label
from metarec_jax.evaluation.list_record import Listed, SeedLists
from metarec_jax.evaluation.methods import BEFORE, CLOSED, META, STRANGER, TWIN
from metarec_jax.evaluation.report import json_text, plain, write_reports
from metarec_jax.evaluation.table import SeedResult, Table, build_table, difference_between
from metarec_jax.evaluation.write_results import file_name
from metarec_jax.metrics.definitions import LISTS, TIES
from metarec_jax.metrics.metrics import UserValues

HEADLINE = ("recall_list@20", "recall_list@50", "ndcg_list@10", "ndcg_list@100")
METHODS = ("random", "popularity", "text similarity", "item-kNN", "EASE", "iALS", CLOSED, STRANGER, TWIN, BEFORE, META)
"""Methods that the command line prints by default."""
COMPARED = (META, "EASE", "iALS", CLOSED, "text similarity", "popularity")
"""Methods that others are compared with, where the evaluation has them; stars refer to the first one."""
COHORT_METRICS = ("recall_list@20", "ndcg_list@100")
KINDS = (
    Kind("history", "clicks that were shown", (1, 6, 11, 21, 51, 101, 201)),
    Kind("popularity", "median training clicks of the user's targets", (0, 1, 6, 21, 51, 101, 201, 501, 1001)),
)


def publish_lists(seeds: Sequence[SeedLists], folder: Path, budget: Budget = FULL) -> dict[str, Table]:
    """Make every table, and write them into a folder.

    Args:
        seeds: metrics of every seed.
        folder: folder of the evaluation.
        budget: resamples of the bootstrap.

    Returns:
        The table of each scenario.
    """
    names = list(dict.fromkeys(name for seed in seeds for name in seed.scenarios))
    results = {name: results_of(seeds, name) for name in names}
    tables = {name: _table(seeds, name, results[name], budget, several=len(names) > 1) for name in names}
    made = environment()
    where = folder / "tables"
    write_reports(tables, where, made)
    found = {name: _cohorts(seeds, name, results[name], budget.samples) for name in names}
    for name, table in tables.items() if budget.plots else ():
        from metarec_jax.evaluation import plots

        end = "" if len(tables) == 1 else f"-{file_name(name)}"
        plots.save(plots.methods_figure(table, HEADLINE), folder / "plots" / f"methods{end}.png")
    write_text(where / "cohorts.json", json_text({"scenarios": found, "environment": made}))
    return tables


def results_of(seeds: Sequence[SeedLists], name: str) -> dict[str, list[SeedResult]]:
    """Collect the results of each method.

    Args:
        seeds: metrics of every seed.
        name: name of the scenario; seeds without it are left out.

    Returns:
        Results of each seed, by the name of the method.
    """
    results: dict[str, list[SeedResult]] = {}
    for seed in seeds:
        if name not in seed.scenarios:
            continue
        users = seed.scenarios[name].user
        for method, judged in seed.scenarios[name].methods.items():
            one = SeedResult(
                seed=seed.seed,
                users=users,
                values={m: UserValues(v, np.ones(len(users))) for m, v in judged.values.items()},
                overall=judged.overall,
                settings=seed.about["settings"][method],
            )
            results.setdefault(method, []).append(one)
    return results


def _table(
    seeds: Sequence[SeedLists], name: str, results: Mapping[str, list[SeedResult]], budget: Budget, *, several: bool
) -> Table:
    first = next(seed for seed in seeds if name in seed.scenarios)
    about = first.about
    number = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    counts = [seed.about["candidates"] for seed in seeds]
    ranked = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    compared = tuple(method for method in COMPARED if method in results)
    table = build_table(
        results,
        title=f"{name}, {number}",
        protocol=about["protocol"],
        metrics=LISTS,
        references=compared,
        subject=compared[0],
        definitions=about["definitions"],
        judged=f"all {ranked} candidates are ranked, none is sampled; {TIES}",
        notes=[
            *([f"{name}: {about['scenarios'][name]['definition']}"] if several else []),
            *dict.fromkeys(note for seed in seeds for note in seed.about["notes"]),
        ],
        samples=budget.samples,
        errors=True,
    )
    return dataclasses.replace(table, headline_metrics=HEADLINE, headline_methods=METHODS)


def _cohorts(
    seeds: Sequence[SeedLists], name: str, results: Mapping[str, list[SeedResult]], samples: int
) -> dict[str, Any]:
    reference = next(method for method in COMPARED if method in results)
    tree: dict[str, list[Any]] = {kind.name: [] for kind in KINDS}
    for kind, low, high, chosen in cohorts_of([seed.scenarios[name] for seed in seeds if name in seed.scenarios]):
        part = {method: [part_of(r, c) for r, c in zip(found, chosen)] for method, found in results.items()}
        values, differences = (
            {
                metric: {
                    method: plain(difference_between(own, other, metric, samples, 0)._asdict())
                    for method, own in part.items()
                    if other is None or method != reference
                }
                for metric in COHORT_METRICS
            }
            for other in (None, part[reference])
        )
        users = np.unique(np.concatenate([result.users for result in part[reference]]))
        bound = {"cohort": label(low, high), "first": low, "last": high, "users": len(users)}
        tree[kind.name].append(bound | {"values": values, "differences": differences})
    return {"reference": reference, "cohorts": tree}


def cohorts_of(scenarios: Sequence[Listed]) -> Iterator[tuple[Kind, int, int | None, list[np.ndarray]]]:
    """Divide users into cohorts; those of fewer than `LEAST_USERS` users are left out.

    Args:
        scenarios: the users of one scenario in each seed.

    Yields:
        Kind of the cohort, its least and greatest number (None for no end), and bool [tasks] for each seed.
    """
    for kind in KINDS:
        numbers = [getattr(scenario, kind.name) for scenario in scenarios]
        for low, high in bounds(kind):
            chosen = [(n >= low) & (n < (np.inf if high is None else high + 1)) for n in numbers]
            if len(np.unique(np.concatenate([s.user[c] for s, c in zip(scenarios, chosen)]))) >= LEAST_USERS:
                yield kind, low, high, chosen


def part_of(result: SeedResult, chosen: np.ndarray) -> SeedResult:
    """The result of some of its users.

    Args:
        result: result of one seed.
        chosen: bool [users].

    Returns:
        The result; metrics that are no means over users are those of all users.
    """
    values = {name: UserValues(v.values[chosen], v.weights[chosen]) for name, v in result.values.items()}
    return dataclasses.replace(result, users=result.users[chosen], values=values)
