"""Tables of text: as Markdown, and on a console of any width."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

Grid = tuple[str, list[str], list[list[str]], set[tuple[int, int]]]
"""Title, header, body and what is bold in it, of a table of text."""


def number(value: float, sign: str = "-", digits: int = 3) -> str:
    """A number as tables of this field print it.

    >>> number(0.8044), number(-0.0121, "+"), number(0.03, "+"), number(1.5), number(float("nan"))
    ('.804', '-.012', '+.030', '1.500', '–')
    """
    if not math.isfinite(value):
        return "–"
    text = f"{value:{sign}.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def grid(header: Sequence[str], body: Sequence[Sequence[str]], bold: Collection[tuple[int, int]] = ()) -> list[str]:
    """Lines of a Markdown table; `bold` are (row, column) of its body."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def cell(i: int, j: int) -> str:
        text = body[i][j].replace("|", r"\|").replace("*", r"\*")
        return f"**{text}**" if (i, j) in bold else text

    rows = [line([cell(i, j) for j in range(len(row))]) for i, row in enumerate(body)]
    return [line(header), "|---" + "|---:" * (len(header) - 1) + "|", *rows]


def print_grids(parts: Sequence[Grid], notes: Sequence[str], console: Any = None) -> None:
    """Print tables of text, in as many parts as the width of the rich `console` (a new one where None) needs."""
    from rich.console import Console

    console = console or Console()
    if not console.is_terminal:  # a file has no width that lines must fit
        console = Console(file=console.file, width=max(_width(h, b, range(1, len(h))) for _, h, b, _ in parts))
    for title, header, body, best in parts:
        for columns in _fitting(header, body, console.width):
            console.print(_rich_grid(title, header, body, columns, best))
    for note in notes:
        console.print(f"- {note}", style="dim", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _width(header: Sequence[str], body: Sequence[Sequence[str]], columns: Iterable[int]) -> int:
    """Of column 0 and `columns` as rich draws them: 3 characters around each cell, 1 for a star, and 1 to close."""
    return 1 + sum(3 + max(len(row[j].rstrip("*")) + 1 for row in (header, *body)) for j in (0, *columns))


def _fitting(header: Sequence[str], body: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Columns 1 .. n in as few groups as fit beside column 0 within `width`; each has at least one."""
    groups: list[list[int]] = [[]]
    for column in range(1, len(header)):
        if groups[-1] and _width(header, body, [*groups[-1], column]) > width:
            groups.append([])
        groups[-1].append(column)
    return groups


def _rich_grid(title: str, header, body, columns: Sequence[int], best: Collection[tuple[int, int]]) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(title, style="bold"), title_justify="left")
    drawn.add_column(header[0])
    for j in columns:
        drawn.add_column(Text(header[j]), justify="right", no_wrap=True)
    starred = {j for j in columns if any(row[j].endswith("*") for row in body)}
    for i, row in enumerate(body):
        cells = [row[j] + " " * (j in starred and not row[j].endswith("*")) for j in columns]  # digits stay in line
        styles = ["bold" if (i, j) in best else "" for j in columns]
        drawn.add_row(Text(row[0]), *(Text(cell, style=style) for cell, style in zip(cells, styles)))
    return drawn
