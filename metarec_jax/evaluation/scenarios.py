"""The tables of several scenarios in one document, with a summary: methods down, scenarios across."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarec_jax.evaluation.report import (
    Table,
    header_of,
    headline,
    json_text,
    left_out,
    print_table,
    to_markdown,
    tree_of,
)
from metarec_jax.evaluation.text_table import grid, number, print_grids

MAIN = ("mae", "rmse", "ndcg@5", "auc", "auc_liked", "auc_global")
"""Metrics that the summary of a table with more than `MOST` shows."""
MOST = 9


def several_to_json(tables: Mapping[str, Table], environment: Mapping[str, Any]) -> str:
    """Every table as JSON text, by the scenario's name; a single one as `report.to_json` has it."""
    if len(tables) == 1:
        return json_text({**tree_of(next(iter(tables.values()))), "environment": environment})
    first = next(iter(tables.values()))
    trees = {name: tree_of(table) for name, table in tables.items()}
    return json_text({"protocol": first.notes[0], "scenarios": trees, "environment": environment})


def several_to_markdown(tables: Mapping[str, Table], environment: Mapping[str, Any]) -> str:
    """The summary, then every table, as Markdown."""
    parts = []
    for title, header, body in summaries(tables):
        parts.append("\n".join([f"## {title}", "", *grid(header, body)]) + "\n")
    last = len(tables) - 1
    parts += [to_markdown(table, environment if i == last else None) for i, table in enumerate(tables.values())]
    return "\n".join(parts)


def print_tables(tables: Mapping[str, Table], console: Any = None, *, everything: bool = False) -> None:
    """Print the table of a single scenario, or the summary of several, whose own tables are in files.

    Args:
        tables: of each scenario, by its name.
        console: a rich console; stdout where None.
        everything: print all methods and metrics, not only the headline ones.
    """
    first = next(iter(tables.values()))
    if len(tables) == 1:
        print_table(first, console, everything=everything)
        return
    shown = tables if everything else {name: headline(table) for name, table in tables.items()}
    notes = list(dict.fromkeys(note for table in tables.values() for note in table.notes))
    print_grids(
        [(title, header, body, set()) for title, header, body in summaries(shown)],
        [*notes, *left_out(first, next(iter(shown.values())))],
        console,
    )


def summaries(tables: Mapping[str, Table]) -> list[tuple[str, list[str], list[list[str]]]]:
    """For each of the main metrics a title, a header and a body: methods down, scenarios across."""
    first = next(iter(tables.values()))
    chosen = [m for m in first.metrics if m.name in MAIN or len(first.metrics) <= MOST]
    found = []
    for m in chosen:
        body = [
            [row.method, *(number(table.row(row.method).cells[m.name].mean) for table in tables.values())]
            for row in first.rows
        ]
        found.append((header_of(m), ["method", *tables], body))
    return found
