"""Errors that a user can resolve, and the exception for a signal to stop."""

import signal
from collections.abc import Sequence


class MetarecError(Exception):
    """A mistake in the input: the message names the value, the place and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class Stopped(BaseException):
    """A signal stopped the process; work in progress has been saved or cleaned up.

    Args:
        number: the signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number)
        self.number = number


def shown(value: object, most: int = 80) -> str:
    """A value as a message shows it: its `repr`, cut to `most` characters."""
    text = repr(value[: 2 * most] if isinstance(value, str) else value)
    if len(text) <= most:
        return text
    return f"{text[: most - 20]}... ({len(value) if isinstance(value, str) else len(text):,} characters)"


def listed(names: Sequence[object], most: int = 12) -> str:
    """Names in a row, as a message shows them: the first `most`, and the number of the others.

    Args:
        names: strings, or what `str` makes one of; each is cut to 60 characters.
        most: names that are shown.
    """
    first = ", ".join(f"{name}"[:60] for name in names[:most])
    return f"{first} and {len(names) - most:,} more" if len(names) > most else first
