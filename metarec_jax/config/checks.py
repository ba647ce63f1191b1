"""Checks that all dataclasses of choices share."""

from __future__ import annotations

import typing
from typing import Any

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.registry import choices_of, unknown


def require(condition: bool, message: str) -> None:
    """Raises a `MetarecError` with `message` unless `condition` holds."""
    if not condition:
        raise MetarecError(message)


def require_choices(config: Any, section: str) -> None:
    """Refuses a value that is none of those that a field's type lists (files and options are checked before)."""
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
