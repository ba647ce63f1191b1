"""Which items may be in a list: those with certain details, and none that was excluded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items

_SEPARATOR = re.compile(r"\s*[,|;]\s*")


class Filters(NamedTuple):
    """What a list is narrowed to; an item must pass all of it.

    Attributes:
        details: name of a detail -> words, of which an item has at least one: ``{"genres": ["Comedy", "Drama"]}``.
        between: name of a detail that is a number -> its least and its greatest value: ``{"year": (1990, 1999)}``.
        exclude: items that are left out, each by title, "id:" and id, or id as an int.
    """

    details: Mapping[str, Sequence[str]] = {}
    between: Mapping[str, tuple[float, float]] = {}
    exclude: Sequence[str | int] = ()


ALL = Filters()
"""Lets every item pass."""


class DetailIndex:
    """Finds items by their details.

    >>> details = {"genres": ("Comedy, War", "Drama"), "year": ("1990", "")}
    >>> index = DetailIndex(Items(("1", "2"), ("A", "B"), ("", ""), details))
    >>> index.passing(Filters({"genres": ["war", "noir"]})).tolist()
    [True, False]
    >>> index.passing(Filters(between={"year": (1990, 1999)})).tolist()
    [True, False]
    """

    def __init__(self, items: Items):
        self._count = 0
        self._rows: dict[str, dict[str, list[int]]] = {name: {} for name in items.details}
        self._numbers: dict[str, list[float]] = {name: [] for name in items.details}
        self._names: dict[str, dict[str, str]] = {name: {} for name in items.details}
        self.add(items)

    def add(self, items: Items) -> None:
        """Reads those of `items` that are new."""
        for name, values in items.details.items():
            for row in range(self._count, len(items)):
                self._numbers[name].append(_number(values[row]))
                for word in filter(None, _SEPARATOR.split(values[row].strip())):
                    self._names[name].setdefault(word.casefold(), word)
                    self._rows[name].setdefault(word.casefold(), []).append(row)
        self._count = len(items)

    def words(self, most: int = 64) -> dict[str, list[str]]:
        """The words of each detail that has at most so many, the most frequent first."""
        return {
            name: [self._names[name][word] for word in sorted(rows, key=lambda w, rows=rows: (-len(rows[w]), w))]
            for name, rows in self._rows.items()
            if len(rows) <= most
        }

    def passing(self, filters: Filters) -> Bool[np.ndarray, " items"]:
        """Which items have the details that `filters` asks for.

        Raises:
            MetarecError: no item has a detail of that name, or a range is none.
        """
        passing = np.ones(self._count, bool)
        for name, wanted in filters.details.items():
            found = np.zeros(self._count, bool)
            rows = self._of(name, self._rows)
            for word in wanted:
                found[rows.get(word.strip().casefold(), [])] = True
            passing &= found
        for name, (low, high) in filters.between.items():
            if not low <= high:
                raise MetarecError(f"the range of {name!r} is {low:g} to {high:g}: the first may not be the larger")
            numbers = np.array(self._of(name, self._numbers))
            passing &= (numbers >= low) & (numbers <= high)  # which is false of NaN
        return passing

    def _of(self, name: str, parts: dict[str, Any]) -> Any:
        if name not in parts:
            known = ", ".join(parts) or "none at all"
            raise MetarecError(f"items have no detail {name!r}; they have {known}")
        return parts[name]


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
