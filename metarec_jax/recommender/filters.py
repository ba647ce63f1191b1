"""Filters that restrict a list to items with certain details, and exclude given items."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from metarec_jax.core.arguments import Unfit, item, list_of, number, text
from metarec_jax.core.types import Items
from metarec_jax.recommender.errors import InputError

_SEPARATOR = re.compile(r"\s*[,|;]\s*")


class Filters(NamedTuple):
    """Conditions that an item of a list must meet, all of them.

    Attributes:
        details: name of a detail -> words or whole values, of which an item has at least one:
            ``{"genres": ["Comedy", "Drama"]}``. A value is a list of words, separated by ",", "|" or ";". Case and
            Unicode normal form make no difference.
        between: name of a numeric detail -> its least and its greatest value: ``{"year": (1990, 1999)}``.
        exclude: items that are left out, each by title, "id:" and id, or id as an int.
    """

    details: Mapping[str, Sequence[str]] = {}
    between: Mapping[str, tuple[float, float]] = {}
    exclude: Sequence[str | int] = ()


ALL = Filters()
"""No condition."""


def as_filters(value: Any) -> Filters:
    """The kind of an argument of filters (see `metarec_jax.core.arguments`).

    Raises:
        Unfit: the value is not `Filters`, or a condition has another form.
    """
    if not isinstance(value, Filters):
        raise Unfit('`Filters`, such as Filters({"genres": ["Comedy"]})')
    if not isinstance(value.details, Mapping) or not isinstance(value.between, Mapping):
        raise Unfit("`Filters` whose `details` and `between` are mappings by the name of a detail")
    for words in value.details.values():
        list_of(text, "words")(words)
    for limits in value.between.values():
        if len(list_of(number, "two numbers, the least and the greatest value")(limits)) != 2:
            raise Unfit("two numbers for each detail of `between`, the least and the greatest value")
    list_of(item, "items")(value.exclude)
    return value


class DetailIndex:
    """Finds items by their details.

    Args:
        items: the catalogue.

    >>> details = {"genres": ("Comedy, War", "Drama"), "year": ("1990", "")}
    >>> index = DetailIndex(Items(("1", "2"), ("A", "B"), ("", ""), details))
    >>> index.matches(Filters({"genres": ["war", "noir"]})).tolist()
    [True, False]
    >>> index.matches(Filters({"genres": ["Comedy, War"]})).tolist()
    [True, False]
    >>> index.matches(Filters(between={"year": (1990, 1999)})).tolist()
    [True, False]
    """

    def __init__(self, items: Items):
        self._count = 0
        self._rows: dict[str, dict[str, list[int]]] = {name: {} for name in items.details}
        self._rows_of_values: dict[str, dict[str, list[int]]] = {name: {} for name in items.details}
        self._numbers: dict[str, list[float]] = {name: [] for name in items.details}
        self._spellings: dict[str, dict[str, str]] = {name: {} for name in items.details}
        self.add(items)

    def add(self, items: Items) -> None:
        """Index the rows of `items` that were appended since the last call."""
        for name, values in items.details.items():
            for row in range(self._count, len(items)):
                self._numbers[name].append(_number(values[row]))
                self._rows_of_values[name].setdefault(_folded(values[row]), []).append(row)
                for word in filter(None, _SEPARATOR.split(values[row].strip())):
                    self._spellings[name].setdefault(_folded(word), word)
                    self._rows[name].setdefault(_folded(word), []).append(row)
        self._count = len(items)

    def words(self, most: int = 64) -> dict[str, list[str]]:
        """The words of each detail that has at most `most` distinct ones, most frequent first."""
        return {
            name: [self._spellings[name][word] for word in sorted(rows, key=lambda w, rows=rows: (-len(rows[w]), w))]
            for name, rows in self._rows.items()
            if len(rows) <= most
        }

    def check_name(self, name: str, *field: str | int) -> None:
        """Refuse a detail that the catalogue does not have.

        Args:
            name: name of the detail.
            *field: path of the refused value, for the error.

        Raises:
            InputError: there is no detail of that name.
        """
        if name not in self._rows:
            known = ", ".join(self._rows) or "none at all"
            raise InputError(f"items have no detail {name!r}; they have {known}", *field)

    def matches(self, filters: Filters) -> Bool[np.ndarray, " items"]:
        """Which items have the details that `filters` asks for.

        Raises:
            InputError: no item has a detail of that name, or a range is empty; its field is "details" or "between" and
                the name.
        """
        matches = np.ones(self._count, bool)
        for name, wanted in filters.details.items():
            self.check_name(name, "details", name)
            found = np.zeros(self._count, bool)
            for word in map(_folded, wanted):
                for rows_of in (self._rows[name], self._rows_of_values[name]):
                    found[rows_of.get(word, [])] = True
            matches &= found
        for name, (low, high) in filters.between.items():
            self.check_name(name, "between", name)
            if not low <= high:
                raise InputError(
                    f"the range of {name!r} is {low:g} to {high:g}: the first may not be the larger", "between", name
                )
            numbers = np.array(self._numbers[name])
            matches &= (numbers >= low) & (numbers <= high)  # false for NaN
        return matches


def _folded(word: str) -> str:
    """What two spellings of a word have in common."""
    return unicodedata.normalize("NFC", word.strip().casefold())


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
