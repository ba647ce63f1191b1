"""Checks that the dataclasses of options share."""

from __future__ import annotations

import dataclasses
import os
import typing
from typing import Any

from metarec_jax.config.limits import check_limits
from metarec_jax.core import arguments
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.registry import choices_of, unknown


def require(condition: bool, message: str) -> None:
    """Raise a `MetarecError` unless a condition holds.

    Args:
        condition: the condition.
        message: message of the error.

    Raises:
        MetarecError: the condition is false.
    """
    if not condition:
        raise MetarecError(message)


def require_types(config: Any, section: str = "") -> None:
    """Check that each field of a config has a value of its type, and convert paths, lists and numbers of NumPy to it.

    Numbers, texts and lists are also held to `metarec_jax.config.limits`.

    Values from files and from the command line are checked when they are read; this also checks values set in Python.

    Args:
        config: dataclass of options.
        section: name of the config's section, for the message; "" for a whole config.

    Raises:
        MetarecError: a field has a value of another type or beyond its limit, or not one of its choices; the
            message lists those.
    """
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        option = f"{section}.{name}" if section else name
        taken = as_type(value, hint, option)
        check_limits(option, taken)
        if taken is not value:
            object.__setattr__(config, name, taken)


def as_type(value: Any, hint: Any, name: str) -> Any:
    """Take a value as the type of an option.

    Args:
        value: any value.
        hint: annotation of the option's field.
        name: name of the option, for the message.

    Returns:
        The value in that type.

    Raises:
        MetarecError: the value is of another type, or not one of the choices.
    """
    if choices := choices_of(hint):
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        raise unknown(name, value, choices)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise MetarecError(f"{name} is {arguments.with_type(value)}; it must be a list")
        return tuple(as_type(v, typing.get_args(hint)[0], f"{name}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, typing.cast(type, hint)):
            made = typing.cast(type, hint).__name__
            raise MetarecError(f"{name} is {arguments.with_type(value)}; it must be a {made}, or use `from_json`")
        return value
    if hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    kind = _KINDS.get(hint)
    if kind is None or type(value) is hint:
        return value
    try:
        return kind(value)
    except arguments.Unfit:
        raise MetarecError(f"{name} is {arguments.with_type(value)}; it must be of type {hint.__name__}") from None


def _integer(value: Any) -> int:
    if isinstance(value, float):  # a share where a number of things is meant, as likely as not
        raise arguments.Unfit("a whole number")
    return arguments.whole(value)


_KINDS: dict[Any, arguments.Kind] = {
    str: arguments.text,
    int: _integer,
    float: arguments.number,
    bool: arguments.truth,
}


def is_text_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by this name."""
    try:
        return bool("a".encode(name))
    except (LookupError, ValueError):  # ValueError: a NUL in the name
        return False
