"""A user's history as people write it, checked against the catalogue and the rating scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.title_search import Match
from metarec_jax.train.catalogue import Scale


class Rated(NamedTuple):
    """One interaction of a history: an item (its title, "id:" and its id, or the id as an int) and its rating."""

    item: str | int
    rating: float


History = Sequence[Rated] | Sequence[tuple[str | int, float]] | Mapping[str, float] | Mapping[int, float]


class CheckedHistory(NamedTuple):
    """A history that can be adapted to.

    Attributes:
        item: int32 [n], rows of the latest items, latest first, no more than a support holds.
        rating: float32 [n], their ratings.
        seen: int32 [m], rows of all items, oldest first.
        ratings: float32 [m], the ratings of all.
        notes: what there is to say about how it was read.
    """

    item: np.ndarray
    rating: np.ndarray
    seen: np.ndarray
    ratings: np.ndarray
    notes: tuple[str, ...]


def check_history(history: History, find: Callable[[str | int], Match], scale: Scale, most: int) -> CheckedHistory:
    """Reads a history.

    Args:
        history: items and ratings, oldest first, or a mapping from one to the other.
        find: an item's row by what a person calls it.
        scale: what ratings can be.
        most: interactions that a support holds; earlier ones are left out of it.

    Raises:
        MetarecError: an unknown or ambiguous item, one that is rated twice, or a rating that is not on the scale.
    """
    pairs = list(history.items()) if isinstance(history, Mapping) else list(history)
    named: dict[int, str | int] = {}
    ratings, notes = [], []
    for item, rating in pairs:
        match = find(item)
        if match.row in named:
            first = named[match.row]
            names = f"{item!r} is there twice" if first == item else f"{first!r} and {item!r} are one item"
            raise MetarecError(f"{names}: an item has one rating, so keep one of the two")
        named[match.row] = item
        ratings.append(_on_scale(item, rating, scale))
        notes += [match.note] if match.note else []
    return history_of(np.fromiter(named, np.int32, count=len(named)), np.array(ratings, np.float32), most, notes)


def history_of(seen: np.ndarray, ratings: np.ndarray, most: int, notes: Sequence[str] = ()) -> CheckedHistory:
    """A history from rows of items and their ratings, oldest first; `most` as for `check_history`."""
    if len(seen) > most:
        notes = [*notes, f"of {len(seen)} ratings the latest {most} are used: the model was trained on no more"]
    return CheckedHistory(
        item=seen[::-1][:most], rating=ratings[::-1][:most], seen=seen, ratings=ratings, notes=tuple(notes)
    )


def _on_scale(item: str | int, rating: float, scale: Scale) -> float:
    try:
        value = float(rating)
    except (TypeError, ValueError):
        value = math.nan
    if scale.kind == "click" and value not in (0.0, 1.0):
        raise MetarecError(f"{item!r} has {rating!r}; write 1 (clicked) or 0 (shown and not clicked)")
    if not scale.low <= value <= scale.high:  # which is false of NaN, too
        raise MetarecError(f"{item!r} is rated {rating!r}; ratings lie between {scale.low:g} and {scale.high:g}")
    return value
