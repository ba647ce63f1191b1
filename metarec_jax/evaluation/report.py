"""Text forms of tables: JSON, Markdown and the terminal; of several scenarios also a summary."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarec_jax.core.atomic_files import make_folder, remove_leftovers, write_text
from metarec_jax.core.environment import summary
from metarec_jax.evaluation.bootstrap import Interval
from metarec_jax.evaluation.table import Cell, Row, Table
from metarec_jax.evaluation.text_table import Grid, grid, number, print_grids
from metarec_jax.metrics.definitions import Metric

MAIN = ("mae", "rmse", "ndcg@5", "auc", "auc_liked", "auc_global", "recall_list@20", "ndcg_list@100")
"""Metrics that the summary of a table with more than `MOST` shows."""
MOST = 9


def to_json(table: Table, environment: Mapping[str, Any]) -> str:
    """A table as JSON text.

    Args:
        table: from `build_table`.
        environment: environment that made it, from `metarec_jax.core.environment.environment`.

    Returns:
        Strict JSON: null where a number is undefined.
    """
    return json_text({**tree_of(table), "environment": environment})


def json_text(tree: Mapping[str, Any]) -> str:
    """Indented JSON text, which refuses NaN."""
    return json.dumps(tree, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def tree_of(table: Table) -> dict[str, Any]:
    """A table as a tree of JSON values."""

    def cell(found: Cell) -> dict[str, Any]:
        spread = None if found.interval is None else {k: getattr(found.interval, k) for k in ("low", "high", "users")}
        numbers = {"mean": found.mean, "sd": found.sd, "seeds": found.seeds}
        if math.isfinite(found.error):
            numbers["error"] = found.error
        return plain(numbers) | {"interval": spread if spread is None else plain(spread)}

    return {
        "title": table.title,
        "notes": list(table.notes),
        "seeds": list(table.seeds),
        "metrics": [dataclasses.asdict(m) for m in table.metrics],
        "methods": [
            {
                "name": row.method,
                "definition": row.definition,
                "metrics": {name: cell(found) for name, found in row.cells.items()},
                "differences": {
                    other: {name: interval(found) for name, found in by_metric.items()}
                    for other, by_metric in row.differences.items()
                },
                "settings": [plain(s) for s in row.settings],
            }
            for row in table.rows
        ],
        "references": list(table.references),
        "subject": table.subject,
    }


def to_markdown(table: Table, environment: Mapping[str, Any] | None = None) -> str:
    """A table as Markdown: notes, methods, differences of the subject, and definitions of all names.

    Args:
        table: from `build_table`.
        environment: environment that made it, from `metarec_jax.core.environment.environment`; None leaves it out.

    Returns:
        The text.
    """
    lines = [f"## {table.title}", "", *(f"- {note}" for note in table.notes), ""]
    header, body = main_cells(table)
    lines += grid(header, body, _best(table, table.rows))
    if table.subject and table.references:
        header, body = difference_cells(table)
        lines += ["", f"**{table.subject}**, difference from:", "", *grid(header, body)]
    lines += ["", *(f"- {row.method}: {row.definition}" for row in table.rows if row.definition)]
    lines += ["", *(f"- {m.title} ({m.better} is better): {m.definition}" for m in table.metrics)]
    if environment is not None:
        lines += ["", f"Made by `{environment['command']}`; {summary(dict(environment))}."]
    return "\n".join(lines) + "\n"


def print_table(table: Table, console: Any = None, *, everything: bool = False) -> None:
    """Print a table, in as many parts as the width of the console needs.

    Args:
        table: from `build_table`.
        console: a rich console; stdout where None.
        everything: print all methods and metrics, not only the headline ones.
    """
    shown = table if everything else headline(table)
    parts: list[Grid] = [(table.title, *main_cells(shown), _best(shown, table.rows))]
    if shown.subject and shown.references:
        header, body = difference_cells(shown)
        if not everything:  # the subject's own values are in the main table
            header, *body = ([*row[:1], *row[2:]] for row in (header, *body))
        parts.append((f"{table.subject}: difference from", header, body, set()))
    print_grids(parts, [*table.notes, *left_out(table, shown)], console)


def headline(table: Table) -> Table:
    """The table with only its headline metrics and methods."""
    methods = table.headline_methods or table.methods
    references = tuple(name for name in table.references if name in methods)
    rows = [
        dataclasses.replace(row, differences={name: row.differences[name] for name in references if name != row.method})
        for row in table.rows
        if row.method in methods
    ]
    metrics = tuple(m for m in table.metrics if m.name in table.headline_metrics or not table.headline_metrics)
    return dataclasses.replace(table, metrics=metrics, rows=tuple(rows), references=references)


def left_out(table: Table, shown: Table) -> list[str]:
    """A note on how much of a table is shown, if not all of it.

    Args:
        table: the whole table.
        shown: the part that is printed.

    Returns:
        One note, or none.
    """
    counts = [
        f"{len(some)} of {len(every)} {name}"
        for name, some, every in (("methods", shown.rows, table.rows), ("metrics", shown.metrics, table.metrics))
        if len(some) < len(every)
    ]
    return [f"{' and '.join(counts)} are shown; --all prints all of them"] if counts else []


def write_report(table: Table, folder: str | os.PathLike[str], environment: Mapping[str, Any]) -> list[pathlib.Path]:
    """Write ``evaluation.json`` and ``evaluation.md``, each atomically.

    Args:
        table: from `build_table`.
        folder: where the files are written; it is made where it is missing.
        environment: environment that made the table.

    Returns:
        Paths of the files.

    Raises:
        MetarecError: the folder cannot be written to.
    """
    folder = make_folder(pathlib.Path(folder))
    texts = {"evaluation.json": to_json(table, environment), "evaluation.md": to_markdown(table, environment)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def write_reports(tables: Mapping[str, Table], folder: pathlib.Path, environment: Mapping[str, Any]) -> None:
    """Write ``evaluation.json`` and ``evaluation.md`` of all scenarios, and remove what an interrupted writing left.

    Args:
        tables: tables by name of their scenario.
        folder: where the files are written; it is made where it is missing.
        environment: environment that made the tables.

    Raises:
        MetarecError: the folder cannot be written to.
    """
    remove_leftovers(make_folder(folder))
    if len(tables) == 1:
        write_report(next(iter(tables.values())), folder, environment)
    else:
        write_text(folder / "evaluation.json", several_to_json(tables, environment))
        write_text(folder / "evaluation.md", several_to_markdown(tables, environment))


def several_to_json(tables: Mapping[str, Table], environment: Mapping[str, Any]) -> str:
    """Tables of all scenarios as JSON text; a single table has the layout of `to_json`.

    Args:
        tables: tables by name of their scenario.
        environment: environment that made them.

    Returns:
        The text.
    """
    if len(tables) == 1:
        return json_text({**tree_of(next(iter(tables.values()))), "environment": environment})
    first = next(iter(tables.values()))
    trees = {name: tree_of(table) for name, table in tables.items()}
    return json_text({"protocol": first.notes[0], "scenarios": trees, "environment": environment})


def several_to_markdown(tables: Mapping[str, Table], environment: Mapping[str, Any]) -> str:
    """The summary of all scenarios, then every table, as Markdown.

    Args:
        tables: tables by name of their scenario.
        environment: environment that made them.

    Returns:
        The text.
    """
    parts = []
    for title, header, body in summaries(tables):
        parts.append("\n".join([f"## {title}", "", *grid(header, body)]) + "\n")
    last = len(tables) - 1
    parts += [to_markdown(table, environment if i == last else None) for i, table in enumerate(tables.values())]
    return "\n".join(parts)


def print_tables(tables: Mapping[str, Table], console: Any = None, *, everything: bool = False) -> None:
    """Print the table of a single scenario, or the summary of several, whose own tables are in files.

    Args:
        tables: tables of each scenario, by its name.
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
    """For each of the main metrics: a title, a header and a body with a row per method and a column per scenario."""
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


def main_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and body of the main table as text; a star where the difference's interval excludes zero."""
    header = ["method", *(header_of(m) for m in table.metrics)]
    body = []
    for row in table.rows:
        against = row.differences.get(table.references[0], {}) if table.references else {}
        marks = ["*" if m.name in against and against[m.name].excludes_zero else "" for m in table.metrics]
        body.append([row.method, *(_show(row.cells[m.name]) + mark for m, mark in zip(table.metrics, marks))])
    return header, body


def difference_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and body, as text, of the subject's values and differences with their intervals.

    The body has a row per metric, and a column per reference.
    """
    row = table.row(table.subject or "")
    body = []
    for m in table.metrics:
        own = row.cells[m.name].interval
        found = [by_metric.get(m.name) for by_metric in row.differences.values()]
        if own is not None:
            body.append([header_of(m), _show_level(own), *("–" if i is None else show_interval(i) for i in found)])
    return ["metric", "itself", *row.differences], body


def header_of(m: Metric) -> str:
    """Title of a metric's column; the arrow points to the better direction."""
    return f"{m.title} {'↓' if m.better == 'lower' else '↑'}"


def _show(cell: Cell) -> str:
    spread = cell.error if math.isfinite(cell.error) else cell.sd
    return number(cell.mean) + (f" ±{number(spread)}" if math.isfinite(spread) else "")


def _show_level(found: Interval) -> str:
    if not math.isfinite(found.difference):
        return "–"
    return f"{number(found.difference)} [{', '.join(number(x) for x in (found.low, found.high))}]"


def show_interval(found: Interval) -> str:
    """A difference as tables print it, with a star where the interval excludes zero."""
    if not math.isfinite(found.difference):
        return "–"
    ends = ", ".join(number(x, "+") for x in (found.low, found.high))
    return f"{number(found.difference, '+')} [{ends}]{'*' if found.excludes_zero else ''}"


def _best(table: Table, among: Sequence[Row]) -> set[tuple[int, int]]:
    """Positions (row, column) in the body of `main_cells` of the best means among the rows `among`, metric by metric.

    A metric whose means are all equal has no best one.
    """
    best = set()
    for column, m in enumerate(table.metrics, start=1):
        finite = [x for x in (row.cells[m.name].mean for row in among) if math.isfinite(x)]
        if finite and min(finite) < max(finite):
            top = min(finite) if m.better == "lower" else max(finite)
            best |= {(i, column) for i, row in enumerate(table.rows) if row.cells[m.name].mean == top}
    return best


def interval(found: Interval) -> dict[str, Any]:
    """An interval as JSON values, with whether it excludes zero."""
    return {**plain(found._asdict()), "excludes_zero": found.excludes_zero}


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values for strict JSON: NaN becomes null, and numpy numbers become Python numbers."""

    def one(x: Any) -> Any:
        if isinstance(x, tuple | list):
            return [one(y) for y in x]
        x = x.item() if isinstance(x, np.generic) else x
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return {name: one(x) for name, x in values.items()}
