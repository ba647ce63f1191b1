"""Tables of text: as Markdown, and on a console of any width."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from metarec_jax.core.console import print_grid, table_width

Grid = tuple[str, list[str], list[list[str]], set[tuple[int, int]]]
"""Title, header, body and the (row, column) of its bold cells, of a table of text."""
WIDTH = 100
"""Columns of a table that is printed to a file or a pipe."""
LABEL = 20
"""Labels of rows are folded to this many characters before a table is split."""


def number(value: float, sign: str = "-", digits: int = 3) -> str:
    """Format a number as tables do: without the 0 before the decimal point.

    Args:
        value: the number.
        sign: format of the sign, "-" or "+".
        digits: decimal digits.

    Returns:
        The text; "–" where the number is not finite.

    >>> number(0.8044), number(-0.0121, "+"), number(0.03, "+"), number(1.5), number(float("nan"))
    ('.804', '-.012', '+.030', '1.500', '–')
    """
    if not math.isfinite(value):
        return "–"
    text = f"{value:{sign}.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def grid(header: Sequence[str], body: Sequence[Sequence[str]], bold: Collection[tuple[int, int]] = ()) -> list[str]:
    """Format a Markdown table.

    Args:
        header: titles of the columns.
        body: cells of each row.
        bold: (row, column) of the bold cells of the body.

    Returns:
        Lines of the table.
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def cell(i: int, j: int) -> str:
        text = body[i][j].replace("|", r"\|").replace("*", r"\*")
        return f"**{text}**" if (i, j) in bold else text

    rows = [line([cell(i, j) for j in range(len(row))]) for i, row in enumerate(body)]
    return [line(header), "|---" + "|---:" * (len(header) - 1) + "|", *rows]


def print_grids(parts: Sequence[Grid], notes: Sequence[str], console: Any = None) -> None:
    """Print tables of numbers, and notes below them, within the width of the console.

    Long labels in the first column are folded; a table that is still too wide is printed in several parts.

    Args:
        parts: the tables.
        notes: sentences.
        console: a rich console; stdout where None. A console that is not a terminal has `WIDTH` columns.
    """
    from rich.console import Console

    console = Console() if console is None else console
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    for title, header, body, best in parts:
        starred = {j for j in range(len(header)) if any(row[j].endswith("*") for row in body)}
        cells = [
            [text + " " * (j in starred and not text.endswith("*")) for j, text in enumerate(row)]  # aligns the digits
            for row in body
        ]
        for columns in _fitting(header, cells, console.width):
            print_grid(
                title,
                [header[j] for j in columns],
                [[row[j] for j in columns] for row in cells],
                numbers=range(1, len(columns)),
                bold={(i, columns.index(j)) for i, j in best if j in columns},
                console=console,
            )
    for note in notes:
        console.print(f"- {note}", style="dim", markup=False, highlight=False)


def _fitting(header: Sequence[str], body: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Split the columns into as few groups as fit within `width`, each with column 0 and at least one other.

    Titles may be folded between words, and column 0 to `LABEL` characters.
    """
    least = [max(len(text) for text in (*name.split(), *(row[j] for row in body), "")) for j, name in enumerate(header)]
    least[0] = min(max(least[0], len(header[0])), LABEL)
    groups = [[0]]
    for column in range(1, len(header)):
        if len(groups[-1]) > 1 and table_width(least[j] for j in (*groups[-1], column)) > width:
            groups.append([0])
        groups[-1].append(column)
    return groups
