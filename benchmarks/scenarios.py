"""Tables of an evaluation, or of a comparison, whose columns are scenarios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metarec_jax.evaluation.text_table import grid, number
from metarec_jax.metrics.definitions import metric

GAIN_METRICS = ("mae", "rmse", "accuracy", "ndcg@5", "precision@5", "mrr@5", "auc", "auc_liked")
GAIN_METRICS += ("recall_list@20", "ndcg_list@100")
"""Metrics of a table of differences: those of ratings and of lists."""


def values(document: Mapping[str, Any], cells: Sequence[str]) -> str:
    """Values of methods in each scenario.

    Args:
        document: the evaluation.json of one protocol.
        cells: "METRIC of METHOD" for each row of the table.

    Returns:
        A Markdown table. \\* marks a difference from the first reference whose 95 % interval excludes zero.
    """
    scenarios = _scenarios(document)
    body = [["users", *(str(_users(scenario)) for scenario in scenarios.values())]]
    for cell in cells:
        name, _, method = cell.partition(" of ")
        row = [f"{metric(name).title}: {method}"]
        for scenario in scenarios.values():
            found = _method(scenario, method)
            away = found["differences"].get(scenario["references"][0], {}).get(name, {})
            row.append(number(found["metrics"][name]["mean"]) + ("*" if away.get("excludes_zero") else ""))
        body.append(row)
    return "\n".join(grid(["", *scenarios], body))


def gains(document: Mapping[str, Any], references: Sequence[str]) -> str:
    """Differences of the subject of an evaluation from other methods, or of a comparison, in each scenario.

    Args:
        document: the evaluation.json of one protocol, or what ``metarec compare --json`` prints.
        references: names of the other methods; of a comparison, the name of what it compares with.

    Returns:
        A Markdown table of differences with their 95 % intervals; \\* marks intervals that exclude zero.
    """
    body, columns = [], _scenarios(document)
    for reference in references:
        for name in GAIN_METRICS:
            found = [_difference(scenario, reference, name) for scenario in columns.values()]
            if any(found):
                label = f"{metric(name).title} − {reference}"
                body.append([label, *(_interval(difference) for difference in found)])
    return "\n".join(grid(["", *columns], body))


def _scenarios(document: Mapping[str, Any]) -> dict[str, Any]:
    """Scenarios by name; a table of one scenario names none."""
    if "lines" in document:
        whole = [line for line in document["lines"] if line["rows"] == "all rows"]
        names = dict.fromkeys(line["scenario"] for line in whole)
        return {name: {line["metric"]: line for line in whole if line["scenario"] == name} for name in names}
    return document.get("scenarios") or {"all test users": document}


def _users(scenario: Mapping[str, Any]) -> int:
    first = scenario["methods"][0]["metrics"]
    return next(iter(first.values()))["interval"]["users"]


def _method(scenario: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(method for method in scenario["methods"] if method["name"] == name)


def _difference(scenario: Mapping[str, Any], reference: str, name: str) -> dict[str, Any] | None:
    if "methods" not in scenario:
        return scenario[name]["difference"] if name in scenario else None
    return _method(scenario, scenario["subject"])["differences"][reference].get(name)


def _interval(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    star = "*" if found["excludes_zero"] else ""
    return f"{number(found['difference'], '+')}{star} [{number(found['low'], '+')}, {number(found['high'], '+')}]"
