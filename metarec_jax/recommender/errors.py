"""Errors with the path to the invalid value in an argument, which a caller can map to a field of its own input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from metarec_jax.core.errors import MetarecError, written


class InputError(MetarecError):
    """Error about an invalid value in an argument.

    Attributes:
        field: path to the value within the argument: keys and indices, outermost first; empty for the whole argument.
    """

    def __init__(self, message: str, *field: str | int):
        super().__init__(message)
        self.field = field


class Unavailable(MetarecError):
    """Error about an unusable resource of the recommender, such as its encoder; all arguments are valid.

    Args:
        message: message with value, place and remedy, which may contain file names.

    Attributes:
        what: description of the unusable resource, without file names.
    """

    def __init__(self, message: str, what: str):
        super().__init__(message)
        self.what = what


@contextlib.contextmanager
def located(*field: str | int) -> Iterator[None]:
    """Raise every `MetarecError` of the block but `Unavailable` as an `InputError` whose path starts with `field`.

    >>> try:
    ...     with located("history", 3):
    ...         raise InputError("the rating is too high", "rating")
    ... except InputError as error:
    ...     print(error.field)
    ('history', 3, 'rating')
    """
    try:
        yield
    except Unavailable:
        raise
    except MetarecError as error:
        inner = error.field if isinstance(error, InputError) else ()
        raise InputError(str(error), *field, *inner) from error


def shortened(value: object, most: int = 100) -> str:
    """Format a value for an error message.

    Args:
        value: the value.
        most: greatest length of the `repr`, in characters.

    Returns:
        The `repr` of the value; a longer one is truncated and ends with "…".

    >>> shortened("x" * 300, 8)
    "'xxxxxxx…"
    """
    text = written(value)
    return text if len(text) <= most else f"{text[:most]}…"
