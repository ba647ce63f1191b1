"""A user's history as given by the caller, checked against the catalogue and the rating scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.core.arguments import with_type
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import Scale
from metarec_jax.recommender.errors import InputError, located, shortened
from metarec_jax.recommender.history_forms import pairs_of
from metarec_jax.recommender.title_search import Match


class Rated(NamedTuple):
    """One interaction of a history: an item (its title, "id:" and its id, or the id as an int) and its rating."""

    item: str | int
    rating: float


History = (
    Sequence[Rated]
    | Sequence[tuple[str | int, float]]
    | Mapping[str, float]
    | Mapping[int, float]
    | Sequence[str | int]
)
"""Interactions, oldest first: items and their ratings; of a run on clicks also the clicked items alone."""


class CheckedHistory(NamedTuple):
    """A history whose items are rows of the catalogue and whose ratings are on the scale.

    Attributes:
        rows: int32 [n], rows of the items, oldest first; no row twice.
        ratings: float32 [n], on the standard scale (`metarec_jax.core.scale`).
        notes: remarks on how the titles were read.
    """

    rows: np.ndarray
    ratings: np.ndarray
    notes: tuple[str, ...] = ()

    def latest(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and ratings of the `most` latest interactions, latest first, in the order of a support."""
        return self.rows[::-1][:most], self.ratings[::-1][:most]

    def changed(self, new: CheckedHistory, removed: Sequence[int] = ()) -> CheckedHistory:
        """Append ratings to this history, and remove some.

        Args:
            new: ratings to append; they replace earlier ratings of the same items.
            removed: rows whose ratings are removed.

        Returns:
            The longer history, with the notes of `new`.
        """
        remaining = ~np.isin(self.rows, [*removed, *new.rows])
        return CheckedHistory(
            np.concatenate([self.rows[remaining], new.rows]),
            np.concatenate([self.ratings[remaining], new.ratings]),
            new.notes,
        )


EMPTY = CheckedHistory(np.zeros(0, np.int32), np.zeros(0, np.float32))
"""The history of a new user."""


def check_history(history: History | Any, find: Callable[[str | int], Match], scale: Scale) -> CheckedHistory:
    """Look up the items of a history and check its ratings.

    Args:
        history: items and ratings, oldest first, in any form that `pairs_of` reads; a checked one is returned.
        find: looks up an item by title or id.
        scale: the rating scale of the run, which the ratings are on.

    Returns:
        The checked history.

    Raises:
        InputError: an unknown or ambiguous item, an item that is rated twice, or a rating that is not on the scale;
            its field is the position in the history and "item" or "rating".
    """
    if isinstance(history, CheckedHistory):
        return history
    pairs = pairs_of(history, click=scale.kind == "click")
    names: dict[int, str | int] = {}
    ratings, notes = [], []
    for place, (item, rating) in enumerate(pairs):
        part = "item"
        try:
            match = find(item)
            if match.row in names:
                first = names[match.row]
                both = (
                    f"{shortened(item)} is there twice"
                    if first == item
                    else f"{shortened(first)} and {shortened(item)} are one item"
                )
                raise MetarecError(f"{both}: an item has one rating, so keep one of the two")
            names[match.row] = item
            notes += [match.note] if match.note else []
            part = "rating"
            ratings.append(_on_scale(item, rating, scale))
        except MetarecError as error:
            raise InputError(str(error), place, part) from error
    rows = np.fromiter(names, np.int32, count=len(names))
    return CheckedHistory(rows, np.array(ratings, np.float32), tuple(notes))


def rows_to_remove(
    history: CheckedHistory, items: Sequence[str | int], find: Callable[[str | int], Match]
) -> list[int]:
    """Look up items whose ratings are to be removed from a history.

    Args:
        history: the history.
        items: titles or ids.
        find: looks up an item by title or id.

    Returns:
        Rows of the items.

    Raises:
        InputError: an item is unknown or not in the history; its field is the position in `items`.
    """
    rows = []
    for place, item in enumerate(items):
        with located(place):
            row = find(item).row
        if row not in history.rows:
            raise InputError(f"{shortened(item)} is to be forgotten, but it is not in the user's history", place)
        rows.append(row)
    return rows


def _on_scale(item: str | int, rating: Any, scale: Scale) -> np.float32:
    if scale.kind == "rating" and type(rating).__name__ in ("bool", "bool_"):
        raise MetarecError(
            f"{shortened(item)} has {rating!r}, which is no rating: write {scale.low:.7g} to {scale.high:.7g}"
        )
    try:
        value = float(rating)
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
        value = math.nan
    given = shortened(rating) if isinstance(rating, int | float) else with_type(rating)
    if scale.kind == "click" and value not in (0.0, 1.0):
        raise MetarecError(f"{shortened(item)} has {given}; write 1 (clicked) or 0 (shown and not clicked)")
    place = scale.place(value)
    if place is None:
        raise MetarecError(
            f"{shortened(item)} is rated {given}; ratings lie between {scale.low:.7g} and {scale.high:.7g}"
        )
    return place
