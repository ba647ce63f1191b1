"""Rows of the database of a service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

KINDS = ("click", "purchase", "rating", "forget")
"""Kinds of events; "forget" removes a rating."""


class NewItem(NamedTuple):
    """An item that was added to the catalogue while serving."""

    id: str
    title: str
    text: str
    details: dict[str, str]


class Shown(NamedTuple):
    """One place of a list.

    Attributes:
        place: 1 is the first.
        item: id of the item.
        arm: name of the model that chose the item.
        score: score of the item by that model.
        propensity: probability that this item is shown in this place; None for interleaved lists.
        own_place: place of the item in the model's own order.
    """

    place: int
    item: str
    arm: str
    score: float
    propensity: float | None
    own_place: int


class ShownList(NamedTuple):
    """A list that was shown to a user.

    Attributes:
        id: id of the list.
        user: the user's identifier.
        arm, model: name and digest of the model that ranked the list.
        mode: "single", "ab" or "interleave".
        history: (item, rating) pairs that the model adapted to.
        filters: conditions on the items, as JSON text.
        pool: number of items from which a random list is drawn.
        explore: probability that the list is random.
        places: the items.
    """

    id: str
    user: str
    arm: str
    model: str
    mode: str
    history: Sequence[tuple[str, float]]
    filters: str
    pool: int
    explore: float
    places: Sequence[Shown]


class Event(NamedTuple):
    """A user's action on an item; `kind` is one of `KINDS`, `list` the id of the list that showed the item, if any."""

    user: str
    item: str
    kind: str
    value: float = 1.0
    list: str | None = None
