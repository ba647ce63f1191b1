"""Conversion of users' histories to text, and selection of the items that users like."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool

from metarec_jax.core.types import Interactions
from metarec_jax.data.histories import histories

RATED = ("Hated", "Disliked", "Did not mind", "Liked", "Loved")
"""Verbs of ratings, from the least to the greatest of the scale."""
CLICKED = ("Passed over", "Chose")
"""Verbs of clicks."""


def sentences(data: Interactions, users: np.ndarray, rows: Bool[np.ndarray, " rows"]) -> list[list[str]]:
    """Describe each user's interactions, one sentence per interaction, in the order of time.

    Args:
        data: the interactions.
        users: int [users], rows of the user table.
        rows: interactions to include.

    Returns:
        For each user, in the order given, sentences such as "Liked Toy Story (1995).".
    """
    own = histories(_only(data, rows), users)
    words = CLICKED if data.kind == "click" else RATED
    place = np.rint(_part_of_scale(data, np.asarray(own.rating)) * (len(words) - 1)).astype(int)
    told = [f"{words[p]} {data.items.titles[i]}." for p, i in zip(place, own.item)]
    return [told[start : start + count] for start, count in zip(own.start, own.count)]


def liked_items(data: Interactions, users: np.ndarray, rows: Bool[np.ndarray, " rows"]) -> list[np.ndarray]:
    """Find the items that each user likes.

    Args:
        data, users, rows: as for `sentences`.

    Returns:
        For each user, in the order given, the rows of the liked items in the item table, int32 [liked], ascending.
    """
    likes = rows & (data.rating >= data.scale.least_liked)
    own = histories(_only(data, likes), users)
    return [np.sort(own.item[start : start + count]) for start, count in zip(own.start, own.count)]


def _part_of_scale(data: Interactions, rating: np.ndarray) -> np.ndarray:
    """Map ratings linearly to 0 (lowest end of the scale) to 1 (highest end)."""
    ends = data.scale.standardised()
    return (rating - ends.low) / (ends.high - ends.low)


def _only(data: Interactions, rows: np.ndarray) -> Interactions:
    columns = {name: getattr(data, name)[rows] for name in ("user", "item", "rating", "time")}
    return dataclasses.replace(data, **columns)
