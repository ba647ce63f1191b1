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


@contextlib.contextmanager
def located(*field: str | int) -> Iterator[None]:
    """Raise every `MetarecError` of the block as an `InputError` whose path starts with `field`.

    >>> try:
    ...     with located("history", 3):
    ...         raise InputError("the rating is too high", "rating")
    ... except InputError as error:
    ...     print(error.field)
    ('history', 3, 'rating')
    """
    try:
        yield
    except MetarecError as error:
        inner = error.field if isinstance(error, InputError) else ()
        raise InputError(str(error), *field, *inner) from error
