"""Errors with the path to the refused value in an argument, from which a caller can name the field of its own input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from metarec_jax.core.errors import MetarecError


class InputError(MetarecError):
    """Refusal of a value in an argument.

    Attributes:
        field: path to the value within the argument: keys and indices, outermost first; empty for the whole argument.
    """

    def __init__(self, message: str, *field: str | int):
        super().__init__(message)
        self.field = field


class Unavailable(MetarecError):
    """Something that the recommender itself needs cannot be used, such as its encoder: no argument is wrong.

    Args:
        message: value, place and remedy; it can name files.

    Attributes:
        what: what cannot be used, without the names of files.
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
    """Return a value as messages show it: its `repr`, of which no more than the beginning.

    Args:
        value: what was given.
        most: characters.

    >>> shortened("x" * 300, 8)
    "'xxxxxxx…"
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
