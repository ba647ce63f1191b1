"""Output of the command line: progress bars on a terminal, plain lines elsewhere, and tables of results.

Results go to stdout, everything else to stderr, so that a result can be piped.
"""

from __future__ import annotations

import contextlib
import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from metarec_jax.core.progress import Advance, Reporter


def make_reporter() -> Reporter:
    """Make the reporter for stderr: notes and bars on a terminal, otherwise only notes, one line each."""
    return Bars() if sys.stderr.isatty() else Lines()


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal takes for commands, and those that turn the direction of text; tabs and line ends are not
among them."""


def printable(text: str) -> str:
    """Replace characters that a terminal takes for commands by their codes, such as ``\\x1b``; texts of users' data may
    hold any."""
    return _CONTROLS.sub(lambda match: repr(match.group())[1:-1], text)


def _cell(text: str) -> str:
    return printable(" ".join(text.splitlines()))


class Lines:
    """Notes on stderr, one line each."""

    def note(self, text: str) -> None:
        """Print one line."""
        print(printable(text), file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Show no bar.

        Args:
            label: not used.
            total: not used.

        Yields:
            A function that does nothing.
        """
        yield lambda done, text="": None


class Bars:
    """Notes and bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def note(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Show a bar until the context ends.

        Args:
            label: text in front of the bar.
            total: value at which the bar is full.

        Yields:
            A function that updates the bar.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=total, text="")
            yield lambda done, text="": progress.update(task, completed=done, text=text)


def print_grid(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Collection[int] = (),
    bold: Collection[tuple[int, int]] = (),
    console: Any = None,
) -> None:
    """Print a table, with rules on a terminal and without them elsewhere.

    If the table is too wide, titles of number columns are folded, then cells of the other columns.

    Args:
        title: printed above the table.
        header: titles of the columns.
        rows: cells, [rows, columns].
        numbers: columns that are aligned on the right and whose cells are never folded.
        bold: (row, column) of cells in bold.
        console: a rich console; stdout where None.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = result_console() if console is None else console
    rows = [[_cell(cell) for cell in row] for row in rows]
    lines = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=lines)
    folded = table_width(max(map(len, column)) for column in zip(header, *rows)) > console.width
    for column, name in enumerate(header):
        if column not in numbers:
            table.add_column(Text(name), overflow="fold")
            continue
        width = max(map(len, ("-", *name.split(), *(row[column] for row in rows))))
        lines_of_name = textwrap.wrap(name, width) if folded else [name]
        table.add_column(Text("\n".join(lines_of_name)), justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(*(Text(cell, style="bold" if (i, j) in bold else "") for j, cell in enumerate(row)))
    console.print(table)


def table_width(columns: Iterable[int]) -> int:
    """Width of a table whose columns have these widths: 3 characters around each, and 1 at the end."""
    return 1 + sum(3 + width for width in columns)


def result_console() -> Any:
    """A rich console on stdout; where stdout is no terminal, it is wide enough for most lines."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
