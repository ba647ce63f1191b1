"""What a long piece of work says of itself. The default says nothing; the command line draws bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable


@runtime_checkable
class Advance(Protocol):
    """Moves a bar: `done` of the bar's total, and a short text beside it."""

    def __call__(self, done: int, text: str = "") -> None:
        """Shows `done` and `text`."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Where progress is shown."""

    def note(self, text: str) -> None:
        """Says one line."""
        ...

    def bar(self, label: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """Shows a bar until the context ends."""
        ...


class Quiet:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Drops the line."""

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Shows no bar."""
        yield lambda done, text="": None


QUIET = Quiet()
