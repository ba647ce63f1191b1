"""Progress reports of long computations: none by default; bars on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable


@runtime_checkable
class Advance(Protocol):
    """Updates a bar to `done` of its total, with a short text."""

    def __call__(self, done: int, text: str = "") -> None:
        """Show `done` and `text`."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Receiver of progress reports."""

    def note(self, text: str) -> None:
        """Show one line."""
        ...

    def bar(self, label: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """Show a bar until the context ends.

        Args:
            label: text in front of the bar.
            total: value at which the bar is full.

        Returns:
            A context manager whose value updates the bar.
        """
        ...


class Quiet:
    """Reports nothing."""

    def note(self, text: str) -> None:
        """Ignore the line."""

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


QUIET = Quiet()
