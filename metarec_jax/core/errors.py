"""Errors that a user can resolve, and the exception for a signal to stop."""

import signal
from collections.abc import Sequence

_MOST = 2400
"""Greatest length of an error message, in characters."""


def shortened(text: str) -> str:
    """A text whose middle is left out if it is longer than a message may be."""
    if len(text) <= _MOST:
        return text
    return f"{text[: _MOST // 2]} ... ({len(text) - _MOST:,} characters) ... {text[-_MOST // 2 :]}"


class MetarecError(Exception):
    """Error that the user can resolve; the message names the value, its place and the remedy.

    The command line prints the message without a traceback and exits with status 2.

    Args:
        message: the message. The middle of one that quotes a very long value is left out.

    Attributes:
        status: exit status of the command.
    """

    status = 2

    def __init__(self, message: str = ""):
        super().__init__(shortened(message))


class PeerError(MetarecError):
    """Other processes of a training are gone or do not answer; the command exits with status 76, and can be resumed."""

    status = 76


class Stopped(BaseException):
    """Exception for a process that a signal stopped, after work in progress was saved or cleaned up.

    Args:
        number: the signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number)
        self.number = number


def written(value: object) -> str:
    """The `repr` of a value, also of an integer of more than 4,300 digits, which Python refuses to write."""
    try:
        return repr(value)
    except ValueError:
        return "an integer of thousands of digits"


def shown(value: object, most: int = 80) -> str:
    """Format a value for an error message.

    Args:
        value: the value.
        most: greatest length of the `repr`, in characters.

    Returns:
        The `repr` of the value; a longer one is truncated and followed by the number of characters.
    """
    text = written(value[: 2 * most] if isinstance(value, str) else value)
    if len(text) <= most:
        return text
    return f"{text[: most - 20]}... ({len(value) if isinstance(value, str) else len(text):,} characters)"


def listed(names: Sequence[object], most: int = 12) -> str:
    """Format a list of names for an error message.

    Args:
        names: objects whose `str` is shown, each truncated to 60 characters.
        most: greatest number of names that are shown.

    Returns:
        The first names between commas, and the number of the others.
    """
    first = ", ".join(f"{name}"[:60] for name in names[:most])
    return f"{first} and {len(names) - most:,} more" if len(names) > most else first
