"""Checks of the arguments of public functions: a value is taken in the form that the function reads, or refused.

A kind is a function from any value to the form that the function reads; it raises `Unfit` with what to pass.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from metarec_jax.core.errors import MetarecError, written

P = ParamSpec("P")
R = TypeVar("R")
Kind = Callable[[Any], Any]


class Unfit(Exception):
    """A value of the wrong type or form; the message is what to pass in its place."""


def takes(**kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that its arguments are checked, and converted, before it runs.

    Args:
        **kinds: the kind of each argument to check, by its name. An argument that is left out keeps its default.

    Returns:
        The decorator. The function then raises a `MetarecError` that names the argument, its value and what to pass.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*given: P.args, **named: P.kwargs) -> R:
            try:
                bound = signature.bind(*given, **named)
            except TypeError as error:
                known = [name for name in signature.parameters if name not in ("self", "cls")]
                raise MetarecError(f"{function.__qualname__}: {error}; its arguments are {', '.join(known)}") from error
            for name, kind in kinds.items():
                if name in bound.arguments:
                    value = bound.arguments[name]
                    try:
                        bound.arguments[name] = kind(value)
                    except Unfit as unfit:
                        where = f"{function.__qualname__}: {name}"
                        raise MetarecError(f"{where} is {with_type(value)}; pass {unfit}") from unfit
            return function(*bound.args, **bound.kwargs)

        return checked

    return decorate


def with_type(value: Any) -> str:
    """A short description of a value and its type, for messages.

    >>> with_type("5"), with_type(None), with_type([1, 5])
    ("'5' (str)", 'None', 'of type list')
    """
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | bytes | numbers.Number):
        text = written(value[:100] if isinstance(value, str | bytes) else value)
        return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
    return f"of type {type(value).__name__}"


def whole(value: Any) -> int:
    """A whole number of at most 100 digits: also one of NumPy, and a float without a fraction.

    >>> whole(2.0)
    2
    """
    if not _is_truth(value):
        found = None
        try:
            found = operator.index(value)
        except TypeError:
            with contextlib.suppress(OverflowError):  # a fraction beyond float64
                if isinstance(value, numbers.Real) and float(value).is_integer():
                    found = int(float(value))
        if found is not None and abs(found) < 10**100:
            return found
    raise Unfit("a whole number, such as 10")


def number(value: Any) -> float:
    """A number that is not a boolean."""
    if _is_truth(value) or not isinstance(value, numbers.Real):
        raise Unfit("a number, such as 4.5")
    try:
        return float(value)
    except OverflowError:
        raise Unfit("a number that float64 holds, such as 4.5") from None


def truth(value: Any) -> bool:
    """True or False."""
    if not _is_truth(value):
        raise Unfit("True or False")
    return bool(value)


def text(value: Any) -> str:
    """A string: also one of NumPy."""
    if not isinstance(value, str):
        raise Unfit("a string")
    return str(value)


def path(value: Any) -> Path:
    """A path, from a string or a path."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise Unfit("the path of a folder, as a string or a pathlib.Path")
    return Path(value)


def item(value: Any) -> str | int:
    """An item: its title, "id:" and its id, or its id as a whole number."""
    if isinstance(value, str):
        return str(value)
    try:
        return whole(value)
    except Unfit:
        raise Unfit('the title of an item, "id:" and its id, or its id as a whole number') from None


def function(value: Any) -> Any:
    """A function."""
    if not callable(value):
        raise Unfit("a function")
    return value


def list_of(kind: Kind, what: str) -> Kind:
    """Make the kind of a list whose members have one kind.

    Args:
        kind: kind of a member.
        what: the members, for messages: "strings".

    Returns:
        A kind that takes any iterable but a string, a mapping or a table; it gives a list.
    """

    def read(value: Any) -> list[Any]:
        # A single string is iterable, and so is a table, over the names of its columns.
        if isinstance(value, str | bytes | Mapping) or hasattr(value, "columns") or not isinstance(value, Iterable):
            raise Unfit(f"a list of {what}")
        found = []
        for place, member in enumerate(value):
            try:
                found.append(kind(member))
            except Unfit as unfit:
                raise Unfit(
                    f"a list of {what}: its entry {place} is {with_type(member)}, and must be {unfit}"
                ) from unfit
        return found

    return read


def instance(*types: type, what: str) -> Kind:
    """Make the kind of objects of some types.

    Args:
        types: the types.
        what: such an object and where it comes from, for messages.

    Returns:
        A kind that takes no other object.
    """

    def read(value: Any) -> Any:
        if not isinstance(value, types):
            raise Unfit(what)
        return value

    return read


def optional(kind: Kind) -> Kind:
    """Make the kind that takes None, too."""
    return lambda value: None if value is None else kind(value)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # the latter are NumPy's
