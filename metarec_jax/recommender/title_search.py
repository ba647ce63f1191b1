"""Search of items by title, ignoring case, accents, punctuation, articles and a missing year.

A match must be unique: a title that fits several items is an error that lists them, and a title that fits none is an
error that lists the most similar ones.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from rapidfuzz import fuzz, process

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.data.text import title_year
from metarec_jax.recommender.errors import shortened
from metarec_jax.recommender.title_index import TitlePart
from metarec_jax.recommender.title_names import LOOSE, OTHER, STRICT, bare, plain_name, readings, words
from metarec_jax.recommender.top_rows import top_rows

ID_PREFIX = "id:"
_SHOWN = 8
"""Greatest number of items that an error about an ambiguous title lists."""
_SCORERS: tuple[Any, ...] = (fuzz.ratio, fuzz.token_sort_ratio, fuzz.partial_ratio)
"""Similarities of two titles; their sum tolerates misspelt, reordered and missing words."""
_COMPARED = 1000
"""Number of titles of a large catalogue that are compared with a misspelt one: those that share most trigrams."""
_POPULAR = 50
"""Number of them that have most ratings, whatever they share."""
_LONGEST = 200
"""Number of characters of a misspelt title that are compared."""


class Match(NamedTuple):
    """The row of an item, and a note on the choice, or ""."""

    row: int
    note: str = ""


class TitleIndex:
    """Finds items by title or id.

    Args:
        items: the catalogue.
        popularity: number of ratings of each item, which decides between items of the same title.

    >>> items = Items(ids=("7", "8"), titles=("The Tin Moon (1971)", "Tin Roofs (1980)"), texts=("", ""))
    >>> TitleIndex(items, np.array([3, 4])).find("tin moon, the")
    Match(row=0, note='')
    """

    def __init__(self, items: Items, popularity: Shaped[np.ndarray, " items"]):
        self._items = items
        self._popularity = popularity

    def add(self, items: Items, popularity: Shaped[np.ndarray, " items"]) -> None:
        """Index the rows of `items` that were appended since the last call. Other threads may search meanwhile.

        Args:
            items: the catalogue with the new items.
            popularity: number of ratings of each item.
        """
        self.prepare()
        parts, first = self._parts, len(self._items)
        # Other threads search meanwhile: what is looked up by row is written before a row can be found.
        self._rows_of_ids.update((identity, first + n) for n, identity in enumerate(items.ids[first:]))
        self._popularity = popularity
        self._items = items
        # Parts are merged so that each is larger than all that follow it, and few are searched.
        while len(parts) > 1 and parts[-1].count <= len(items) - first:
            first = parts[-1].first
            parts = parts[:-1]
        self._parts = (*parts, TitlePart(items.titles[first:], first))

    def prepare(self) -> None:
        """Build the index before the first search; call it before several threads search."""
        _ = self._parts, self._rows_of_ids

    def search(self, text: str, most: int) -> list[int]:
        """Find items whose titles contain words that start with the words of `text`, most ratings first.

        If there are none, the items with the most similar titles are returned.

        Args:
            text: beginnings of words; "" finds every item.
            most: greatest number of rows to return.

        Returns:
            Rows of the items.

        >>> items = Items(ids=("7", "8"), titles=("The Tin Moon (1971)", "Tin Roofs (1980)"), texts=("", ""))
        >>> TitleIndex(items, np.array([3, 4])).search("ti", 5)
        [1, 0]
        """
        wanted = words(text).split()
        if not wanted:
            return top_rows(self._popularity, most, np.arange(len(self._items))).tolist()
        found = np.concatenate([part.beginning(wanted) for part in self._parts])
        return top_rows(self._popularity, most, found).tolist() or self.nearest(text, most)

    def find(self, name: str) -> Match:
        """Look up the item called `name`: a title, or "id:" and an id.

        Raises:
            MetarecError: no item, or more than one, has this name.
        """
        if name.startswith(ID_PREFIX) and self.has_id(name.removeprefix(ID_PREFIX)):
            return self.find_id(name.removeprefix(ID_PREFIX))  # not stripped: an id may start or end with blanks
        name = name.strip()
        if name.startswith(ID_PREFIX):
            return self.find_id(name.removeprefix(ID_PREFIX).strip())
        if not name:
            raise MetarecError("a title is empty: name an item by its title or as id:ID")
        if rows := self._named(0, name):
            return self._choose(name, rows)
        titles = self._items.titles
        for base, year in readings(name):
            for level, key in ((STRICT, words(base)), (LOOSE, bare(base)), (OTHER, bare(base))):
                rows = self._named(level, key) if key else []
                if rows := [row for row in rows if not year or title_year(titles[row]) in ("", year)]:
                    return self._choose(name, rows)
        raise MetarecError(self._unknown(name))

    def find_id(self, identity: str | int) -> Match:
        """Look up the item whose id is `identity`.

        Raises:
            MetarecError: there is no such item; the message lists the most similar ids.
        """
        identity = str(identity)
        if identity not in self._rows_of_ids:
            near = process.extract(identity, self._items.ids, scorer=_SCORERS[0], limit=3, score_cutoff=60)
            names = [found for found, *_ in near if len(identity) > 3] or self._items.ids[:3]
            examples = ", ".join(name if len(name) <= 100 else f"{name[:100]}…" for name in names)
            raise MetarecError(
                f"no item has the id {shortened(identity)}; the {len(self._items)} items have ids such as {examples}"
            )
        return Match(self._rows_of_ids[identity])

    def has_id(self, identity: str) -> bool:
        """Whether there is an item with that id."""
        return identity in self._rows_of_ids

    def nearest(self, name: str, count: int = 5) -> list[int]:
        """Find the items whose titles are most similar to `name`, each title once.

        Args:
            name: a title, perhaps misspelt.
            count: greatest number of rows to return.

        Returns:
            Rows of the items, most similar first.
        """
        titles = self._items.titles  # read once: another thread may be adding an item
        name = (bare(readings(name)[0][0]) or name.casefold())[:_LONGEST]
        rows = self._compared(name, len(titles))
        likeness = self._likeness(name, [plain_name(titles[row]) for row in rows.tolist()])
        order = np.lexsort((-self._popularity[rows], -np.round(likeness)))
        distinct: dict[str, int] = {}
        for row in rows[order].tolist():
            distinct.setdefault(titles[row], row)
            if len(distinct) == count:
                break
        return list(distinct.values())

    def _compared(self, name: str, items: int) -> Int[np.ndarray, " rows"]:
        """Rows of the first `items` whose titles are compared with a name, ascending: all of a small catalogue."""
        every = np.arange(items)
        if items <= _COMPARED:
            return every
        popular = top_rows(self._popularity, _POPULAR, every)
        similar = [part.similar(name, _COMPARED, self._popularity) for part in self._parts]
        rows = np.unique(np.concatenate([popular, *similar]))
        return rows[rows < items]

    @staticmethod
    def _likeness(name: str, others: Sequence[str]) -> Float[np.ndarray, " others"]:
        """Similarity of `name` to each of `others`, 0 to 300."""
        parts = [process.cdist([name], others, scorer=scorer, dtype=np.float32)[0] for scorer in _SCORERS]
        return np.sum(parts, axis=0)

    @functools.cached_property
    def _parts(self) -> tuple[TitlePart, ...]:
        return (TitlePart(self._items.titles),)

    @functools.cached_property
    def _rows_of_ids(self) -> dict[str, int]:
        return {identity: row for row, identity in enumerate(self._items.ids)}

    def _named(self, level: int, name: str) -> list[int]:
        return [row for part in self._parts for row in part.named(level, name)]

    def _choose(self, name: str, rows: Sequence[int]) -> Match:
        """Choose among `rows` with one common title the item with the most ratings.

        Raises:
            MetarecError: the rows have several titles.
        """
        rows = list(dict.fromkeys(rows))  # a title can match at more than one level
        titles = {self._items.titles[row] for row in rows}
        if len(titles) > 1:
            raise MetarecError(f"{name!r} could be {self._list(rows)}: write the whole title with its year, or id:ID")
        best, *rest = sorted(rows, key=lambda row: (-self._popularity[row], row))
        if not rest:
            return Match(best)
        others = ", ".join(f"{ID_PREFIX}{self._items.ids[row]}" for row in rest)
        return Match(
            best,
            f"{len(rows)} items are called {self._items.titles[best]!r}: took {ID_PREFIX}{self._items.ids[best]}, "
            f"which has the most ratings, and not {others}",
        )

    def _list(self, rows: Sequence[int]) -> str:
        shown = sorted(rows, key=lambda row: (-self._popularity[row], row))[:_SHOWN]
        names = "; ".join(f"{self._items.titles[row]} ({ID_PREFIX}{self._items.ids[row]})" for row in shown)
        return names + (f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else "")

    def _unknown(self, name: str) -> str:
        near = "; ".join(self._items.titles[row] for row in self.nearest(name))
        hint = f", and {ID_PREFIX}{name} means the item of that id" if name in self._rows_of_ids else ""
        return f"no item is called {name!r}; the nearest are: {near}{hint}"
