"""Checks that all dataclasses of choices share."""

from __future__ import annotations

import typing
from typing import Any, Literal

from metarec_jax.core.errors import MetarecError


def require(condition: bool, message: str) -> None:
    """Raises a `MetarecError` with `message` unless `condition` holds."""
    if not condition:
        raise MetarecError(message)


def require_choices(config: Any, section: str) -> None:
    """Refuses a value that is none of those that a field's type lists (files and options are checked before)."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value, choices = getattr(config, name), typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            known = ", ".join(map(repr, choices))
            require(value in choices, f"{section}.{name} is {value!r}; it must be one of {known}")
