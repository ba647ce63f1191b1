"""What the command line shows: bars and colours on a terminal, plain lines elsewhere.

Results go to stdout; everything else goes to stderr, so that a result can be piped.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from metarec_jax.core.progress import Advance, Reporter


def make_reporter() -> Reporter:
    """The reporter that suits stderr: bars on a terminal, otherwise one plain line a note and no bars."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """One plain line a note, on stderr."""

    def note(self, text: str) -> None:
        """Says one line."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Shows no bar."""
        yield lambda done, text="": None


class Bars:
    """Notes and bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def note(self, text: str) -> None:
        """Says one line, above a bar that is being drawn."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Draws a bar until the context ends."""
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
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()
) -> None:
    """Prints a table on stdout: drawn on a terminal, otherwise with columns that line up.

    Args:
        title: what stands above.
        header: names of the columns.
        rows: cells.
        numbers: columns that are aligned on the right.
    """
    console = result_console()
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None if plain(console) else _box())
    for column, name in enumerate(header):
        table.add_column(Text(name), justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def result_console() -> Any:
    """A rich console on stdout; where that is no terminal, wide enough to break no line."""
    from rich.console import Console

    console = Console(highlight=False)
    return Console(highlight=False, width=200) if plain(console) else console


def plain(console: Any) -> bool:
    """Whether `console` is no terminal."""
    return not console.is_terminal


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
