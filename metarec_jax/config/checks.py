"""Checks that the dataclasses of options share."""

from __future__ import annotations

import typing
from typing import Any

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


def require_choices(config: Any, section: str) -> None:
    """Check that each field of a config has one of the values that its type allows.

    Values from files and from the command line are checked when they are read; this also checks values set in Python.

    Args:
        config: dataclass of options.
        section: name of the config's section, for the message.

    Raises:
        MetarecError: a field has another value; the message lists the allowed ones.
    """
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        value, choices = getattr(config, name), choices_of(hint)
        if choices and value not in choices:
            raise unknown(f"{section}.{name}", value, choices)


def is_text_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by this name."""
    try:
        return bool("a".encode(name))
    except (LookupError, ValueError):  # ValueError: a NUL in the name
        return False
