"""The scale of a data set's ratings, and its map to the standard scale that all models and metrics compute on.

Ratings are moved to the standard scale of 1 to 5 once, where data or a history is read, and predictions are moved back
where they are shown or stored. So constants of the model (prior variances, penalties, gains) mean the same whatever the
unit of the ratings is: the same opinions in another unit give the same parameters. Clicks stay 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

Kind = Literal["rating", "click"]

STANDARD_LOW, STANDARD_HIGH = 1.0, 5.0
"""Ends of the standard scale of ratings."""
LIKED = 4.0
"""Least liked rating on the standard scale, where none is configured: the top quarter of the scale."""


class Scale(NamedTuple):
    """The ratings that a data set allows, in the data's own unit.

    Attributes:
        kind: "rating" or "click".
        levels: the values that a rating can take, ascending; empty where ratings are continuous.
        low, high: least and greatest rating.
        liked: least rating of a liked item; None for the top quarter of the scale.
    """

    kind: Kind
    levels: tuple[float, ...]
    low: float
    high: float
    liked: float | None = None

    @property
    def unit(self) -> float:
        """Length of 1 on the standard scale, in the unit of the data."""
        return 1.0 if self.kind == "click" else (self.high - self.low) / (STANDARD_HIGH - STANDARD_LOW) or 1.0

    @property
    def is_standard(self) -> bool:
        """Whether the data's unit is that of the standard scale, so that nothing is converted."""
        return self.kind == "click" or (self.low, self.high) == (STANDARD_LOW, STANDARD_HIGH)

    def standard(self, rating: Any) -> Any:
        """Ratings on the standard scale.

        Args:
            rating: a number or an array (float64 for full precision), in the data's unit.

        Returns:
            The same kind of number or array.
        """
        return rating if self.is_standard else (rating - self.low) / self.unit + STANDARD_LOW

    def original(self, rating: Any) -> Any:
        """Ratings in the data's unit; the inverse of `standard`.

        Args:
            rating: an array, on the standard scale.

        Returns:
            float64, or the array as it is where nothing is converted.
        """
        if self.is_standard:
            return rating
        return (np.asarray(rating, np.float64) - STANDARD_LOW) * self.unit + self.low

    def decimal(self, rating: Any) -> Any:
        """Ratings in the data's unit as a person wrote them, without the digits that float32 does not have: 0.1.

        Args:
            rating: a number or an array, on the standard scale.

        Returns:
            float64 of the same shape; a float for a number.
        """
        found = np.asarray(self.original(rating), np.float64)
        if not self.is_standard:
            found = np.round(found, 5 - math.floor(math.log10(self.unit)))  # float32 is good to 2.4e-7 of 5
        return found if found.ndim else float(found)

    def place(self, rating: float) -> np.float32 | None:
        """A rating on the standard scale, as the model reads it; None if it is outside the scale.

        Rounding to float32 is part of the comparison: the ends of the data can be given, whatever their binary
        representation is.

        Args:
            rating: in the data's unit.
        """
        low, high = (self.low, self.high) if self.kind == "click" else (STANDARD_LOW, STANDARD_HIGH)
        with np.errstate(over="ignore"):
            found = np.float32(self.standard(float(rating)))
        return found if low <= found <= high else None

    def standardised(self) -> Scale:
        """The scale of the ratings after `standard`."""
        if self.kind == "click":
            return self
        levels = tuple(float(np.float32(self.standard(level))) for level in self.levels)
        return Scale(self.kind, levels, STANDARD_LOW, STANDARD_HIGH, self.least_liked)

    @property
    def middle(self) -> float:
        """Middle of the scale, on the standard scale."""
        ends = self.standardised()
        return (ends.low + ends.high) / 2

    @property
    def least_liked(self) -> float:
        """Least rating of a liked item, on the standard scale; for clicks, 1."""
        if self.kind == "click":
            return 1.0
        return LIKED if self.liked is None else float(np.float32(self.standard(self.liked)))

    @property
    def liked_from(self) -> float:
        """Least rating of a liked item, in the data's unit."""
        return self.decimal(self.least_liked)

    def likes(self, rating: np.ndarray) -> np.ndarray:
        """Whether ratings, in the data's unit, are those of liked items; NaN is not.

        Args:
            rating: float [...].

        Returns:
            bool [...].
        """
        return np.asarray(self.standard(np.asarray(rating, np.float64))).astype(np.float32) >= self.least_liked


CLICKS = Scale("click", (0.0, 1.0), 0.0, 1.0)
STARS = Scale("rating", (1.0, 2.0, 3.0, 4.0, 5.0), STANDARD_LOW, STANDARD_HIGH)


def scale_from_json(document: Mapping[str, Any]) -> Scale:
    """The scale that ``scale._asdict()`` was written of.

    Raises:
        KeyError, TypeError, ValueError: the document describes none.
    """
    kind, levels = document["kind"], tuple(map(float, document["levels"]))
    low, high, liked = float(document["low"]), float(document["high"]), document.get("liked")
    liked = None if liked is None else float(liked)
    if kind not in ("rating", "click") or not all(map(math.isfinite, (*levels, low, high, liked or 0.0))) or low > high:
        raise ValueError("it is no scale of ratings or clicks")
    return Scale(kind, levels, low, high, liked)
