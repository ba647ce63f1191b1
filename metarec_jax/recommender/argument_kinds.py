"""Kinds of arguments of a recommender, for `metarec_jax.core.arguments.takes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarec_jax.core.arguments import Unfit, instance, item, list_of, text
from metarec_jax.recommender.user_state import UserState

STATE = instance(UserState, what="the state of a user, which `adapt` returns")
"""The state of a user."""
ITEMS = list_of(item, "items")
"""Items of the catalogue."""
HISTORIES = list_of(lambda history: history, "histories (of a mapping by user, its values), or adapt one with `adapt`")
"""Histories of users."""


def some_bytes(value: Any) -> bytes:
    """The bytes of a state."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise Unfit("the bytes that `to_bytes` returned")
    return bytes(value)


def details(value: Any) -> dict[str, str]:
    """Details of an item by name."""
    if not isinstance(value, Mapping):
        raise Unfit('a mapping from names to strings, such as {"genres": "Comedy"}')
    return {text(name): text(detail) for name, detail in value.items()}


def rater(value: Any) -> tuple[Any, Any]:
    """A history and a rating."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Unfit("a pair (history, rating)")
    return value[0], value[1]
