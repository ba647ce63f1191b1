"""Search of items by title, ignoring case, accents, punctuation, articles and a missing year.

A match must be unique: a title that fits several items is an error that lists them, and a title that fits none is an
error that lists the most similar ones.
"""

from __future__ import annotations

import functools
import heapq
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from rapidfuzz import fuzz, process

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.data.text import title_year
from metarec_jax.recommender.errors import shortened

ID_PREFIX = "id:"
_ARTICLES = frozenset(  # of several languages, without accents
    re.findall(
        r"\w+",
        "the a an la le les l un une il lo i gli una el los las o os as der die das ein eine det den de het",
    )
)
_LETTERS = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_BARE_YEAR = re.compile(r"\s+((?:18|19|20)\d\d)\s*$")
_FRENCH = re.compile(r"\b([ld])['’`´]")  # "l'" is a separate word,
_APOSTROPHE = re.compile(r"['’`´]")  # other apostrophes are inside words
_WORD = re.compile(r"[^\W_]+")
_SHOWN = 8
"""Greatest number of items that an error about an ambiguous title lists."""
_SCORERS: tuple[Any, ...] = (fuzz.ratio, fuzz.token_sort_ratio, fuzz.partial_ratio)
"""Similarities of two titles; their sum tolerates misspelt, reordered and missing words."""


class Match(NamedTuple):
    """The row of an item, and a note on the choice, or ""."""

    row: int
    note: str = ""


class _Names(NamedTuple):
    """Normalised names of the catalogue's titles.

    Attributes:
        levels: rows by name, from the strictest normalisation of a title to the loosest.
        plain: name of each row, to which misspelt titles are compared.
        words: all words of each row's title, each preceded by a space.
    """

    levels: tuple[dict[str, list[int]], ...]
    plain: list[str]
    words: list[str]


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
        names, first = self._names, len(self._items)
        # What is looked up by row is written before the row can be found: ids before titles, and both before words.
        self._popularity = popularity
        self._years += [title_year(title) for title in items.titles[first:]]
        names.plain.extend(_plain(title) for title in items.titles[first:])
        self._rows_of_ids.update((identity, first + n) for n, identity in enumerate(items.ids[first:]))
        self._items = items
        for row, title in enumerate(items.titles[first:], start=first):
            self._enter(names, row, title)
            self._exact.setdefault(title, []).append(row)
            names.words.append(f" {_words(title)}")

    def prepare(self) -> None:
        """Build the index before the first search; call it before several threads search."""
        _ = self._exact, self._rows_of_ids, self._years, self._names

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
        wanted = _words(text).split()
        if not wanted:
            return sorted(range(len(self._items)), key=lambda row: -self._popularity[row])[:most]
        found = [row for row, words in enumerate(self._names.words) if all(f" {word}" in words for word in wanted)]
        best = heapq.nsmallest(most, found, key=lambda row: (-self._popularity[row], row))
        return best or self.nearest(text, most)

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
        if rows := self._exact.get(name):
            return self._choose(name, rows)
        for base, year in _readings(name):
            for keys, rows_of in zip((_words(base), _bare(base), _bare(base)), self._names.levels):
                rows = [r for r in rows_of.get(keys, ()) if year in ("", self._years[r]) or not self._years[r]]
                if keys and rows:
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
        items = len(self._items)  # read once: another thread may be adding an item
        likeness = self._likeness(_bare(_readings(name)[0][0]) or name.casefold(), self._names.plain[:items])
        order = np.lexsort((-self._popularity[:items], -np.round(likeness)))
        distinct: dict[str, int] = {}
        for row in order.tolist():
            distinct.setdefault(self._items.titles[row], row)
            if len(distinct) == count:
                break
        return list(distinct.values())

    @staticmethod
    def _likeness(name: str, others: Sequence[str]) -> Float[np.ndarray, " others"]:
        """Similarity of `name` to each of `others`, 0 to 300."""
        parts = [process.cdist([name], others, scorer=scorer, dtype=np.float32)[0] for scorer in _SCORERS]
        return np.sum(parts, axis=0)

    @functools.cached_property
    def _exact(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, title in enumerate(self._items.titles):
            rows.setdefault(title, []).append(row)
        return rows

    @functools.cached_property
    def _rows_of_ids(self) -> dict[str, int]:
        return {identity: row for row, identity in enumerate(self._items.ids)}

    @functools.cached_property
    def _years(self) -> list[str]:
        return [title_year(title) for title in self._items.titles]

    @functools.cached_property
    def _names(self) -> _Names:
        names = _Names((defaultdict(list), defaultdict(list), defaultdict(list)), [], [])
        for row, title in enumerate(self._items.titles):
            names.plain.append(_plain(title))
            self._enter(names, row, title)
            names.words.append(f" {_words(title)}")
        return names

    def _enter(self, names: _Names, row: int, title: str) -> None:
        strict, loose, other = names.levels
        base = _without_year(title)
        main = _BRACKETS.sub(" ", base)
        strict[_words(main)].append(row)
        loose[_bare(main)].append(row)
        if main != base:
            strict[_words(base)].append(row)
            loose[_bare(base)].append(row)
            for name in _other_names(base):
                other[_bare(name)].append(row)

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


def _readings(name: str) -> list[tuple[str, str]]:
    """Possible (title, year) pairs of `name`: the year is in brackets, missing, or the last word."""
    readings = [(_without_year(name), title_year(name))]
    if not readings[0][1] and (bare := _BARE_YEAR.search(name)):
        readings.append((name[: bare.start()], bare.group(1)))
    return readings


def _without_year(title: str) -> str:
    return title[: title.rindex("(")] if title_year(title) else title


def _plain(title: str) -> str:
    """The form of a title to which misspelt names are compared."""
    return _bare(_BRACKETS.sub(" ", _without_year(title)))


def _other_names(base: str) -> Iterator[str]:
    """Other names in brackets: "Seven (a.k.a. Se7en)" gives "Se7en"."""
    for name in _BRACKETS.findall(base):
        yield re.sub(r"^\s*a\.?k\.?a\.?\s+", "", name, flags=re.IGNORECASE)


def _words(text: str) -> str:
    """The words of `text` in lower case, without accents and punctuation, joined by single spaces."""
    plain = text.casefold()
    if not plain.isascii():
        folded = unicodedata.normalize("NFKD", plain.translate(_LETTERS))
        plain = "".join(c for c in folded if not unicodedata.combining(c))
    plain = _FRENCH.sub(r"\1 ", plain.replace("&", " and "))
    return " ".join(_WORD.findall(_APOSTROPHE.sub("", plain)))


def _bare(text: str) -> str:
    """`_words` without an article at the start, or at the end after a comma."""
    head, comma, tail = text.rpartition(",")
    words = _words(text).split(" ")
    if comma and _words(head) and _words(tail) in _ARTICLES:
        words = words[:-1]
    elif len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)
