"""Which item a person means: titles matched without regard to case, accents, punctuation, articles and a missing year.

A match is taken only where one item is meant. Whatever else it could have been is said: two titles that fit are an
error that lists them, and a title that fits nothing is an error that lists the nearest.
"""

from __future__ import annotations

import difflib
import functools
import heapq
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.data.text import title_year

ID_PREFIX = "id:"
_ARTICLES = frozenset(  # of the languages that titles come in, folded
    re.findall(
        r"\w+",
        "the a an la le les l un une il lo i gli una el los las o os as der die das ein eine det den de het",
    )
)
_LETTERS = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_BARE_YEAR = re.compile(r"\s+((?:18|19|20)\d\d)\s*$")
_FRENCH = re.compile(r"\b([ld])['’`´]")  # "l'" is a word of its own,
_APOSTROPHE = re.compile(r"['’`´]")  # other apostrophes lie within words
_WORD = re.compile(r"[^\W_]+")
_SHOWN = 8


class Match(NamedTuple):
    """The row of an item, and what there is to say about the choice, or ""."""

    row: int
    note: str = ""


class _Names(NamedTuple):
    """Rows by name, from the strictest reading of a title to the loosest; one plain name a row; and all its words."""

    levels: tuple[dict[str, list[int]], ...]
    plain: list[str]
    words: list[str]


class TitleIndex:
    """Finds items by what people call them.

    Args:
        items: the catalogue.
        popularity: number of ratings of each item, which decides between two items of one title.

    >>> items = Items(ids=("7", "8"), titles=("The Tin Moon (1971)", "Tin Roofs (1980)"), texts=("", ""))
    >>> TitleIndex(items, np.array([3, 4])).find("tin moon, the")
    Match(row=0, note='')
    """

    def __init__(self, items: Items, popularity: Shaped[np.ndarray, " items"]):
        self._items = items
        self._popularity = popularity

    def add(self, items: Items, popularity: Shaped[np.ndarray, " items"]) -> None:
        """Takes in the last of `items`, which is new. Other threads may search at the same time: they find the item
        when all is there that they will ask of it."""
        self.prepare()
        row, title = len(items) - 1, items.titles[-1]
        # What a row leads to comes before what leads to the row: ids before titles, and both before words.
        self._popularity = popularity
        self._years.append(title_year(title))
        self._names.plain.append(_plain(title))
        self._rows_of_ids[items.ids[-1]] = row
        self._items = items
        self._enter(self._names, row, title)
        self._exact.setdefault(title, []).append(row)
        self._names.words.append(f" {_words(title)}")

    def prepare(self) -> None:
        """Reads all titles, which else happens when they are first asked for. Before other threads search."""
        _ = self._exact, self._rows_of_ids, self._years, self._names

    def search(self, text: str, most: int) -> list[int]:
        """Rows of items whose titles have words that begin as those of `text` do, those rated most first; where there
        are none, of those that look most like it.

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
        """The item called `name`: a title, or "id:" and an id.

        Raises:
            MetarecError: no item is called that, or several are.
        """
        if name.startswith(ID_PREFIX) and self.has_id(name.removeprefix(ID_PREFIX)):
            return self.find_id(name.removeprefix(ID_PREFIX))  # as it is written: an id may have blanks around it
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

    def find_id(self, identity: str) -> Match:
        """The item whose id is `identity`.

        Raises:
            MetarecError: there is none.
        """
        if identity not in self._rows_of_ids:
            near = difflib.get_close_matches(identity, self._items.ids, n=3) if len(identity) > 3 else []
            examples = ", ".join(near or self._items.ids[:3])
            raise MetarecError(
                f"no item has the id {identity!r}; the {len(self._items)} items have ids such as {examples}"
            )
        return Match(self._rows_of_ids[identity])

    def has_id(self, identity: str) -> bool:
        """Whether there is an item with that id."""
        return identity in self._rows_of_ids

    def nearest(self, name: str, count: int = 5) -> list[int]:
        """Rows of the `count` items whose titles look most like `name`, nearest first."""
        wanted = _bare(_readings(name)[0][0]) or name.casefold()
        grams = {f" {wanted} "[i : i + 3] for i in range(len(wanted))}

        def overlap(row: int) -> float:
            plain = self._names.plain[row]
            found = sum(gram in f" {plain} " for gram in grams)
            return found / (len(grams) + 0.2 * len(plain))

        def likeness(row: int) -> tuple[float, float]:
            ratio = difflib.SequenceMatcher(None, wanted, self._names.plain[row]).ratio()
            return round(ratio + overlap(row), 2), float(self._popularity[row])

        # A cheap look at all titles, then a closer one at few: there may be many thousands.
        few = heapq.nlargest(10 * count, range(len(self._items)), key=overlap)
        distinct: dict[str, int] = {}
        for row in sorted(few, key=likeness, reverse=True):
            distinct.setdefault(self._items.titles[row], row)
        return list(distinct.values())[:count]

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
        """The one item that `rows` mean; of items with one title, the one with the most ratings."""
        rows = list(dict.fromkeys(rows))  # a title can fit in more than one way
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
    """What `name` can mean as (title, year): the year in brackets, or none, or the last word."""
    readings = [(_without_year(name), title_year(name))]
    if not readings[0][1] and (bare := _BARE_YEAR.search(name)):
        readings.append((name[: bare.start()], bare.group(1)))
    return readings


def _without_year(title: str) -> str:
    return title[: title.rindex("(")] if title_year(title) else title


def _plain(title: str) -> str:
    """The one name of a title that others are compared with."""
    return _bare(_BRACKETS.sub(" ", _without_year(title)))


def _other_names(base: str) -> Iterator[str]:
    """Names in brackets: "Seven (a.k.a. Se7en)" is also called "Se7en"."""
    for name in _BRACKETS.findall(base):
        yield re.sub(r"^\s*a\.?k\.?a\.?\s+", "", name, flags=re.IGNORECASE)


def _words(text: str) -> str:
    """The letters and digits of `text`, without case, accents and punctuation, as words with one space between them."""
    plain = text.casefold()
    if not plain.isascii():
        folded = unicodedata.normalize("NFKD", plain.translate(_LETTERS))
        plain = "".join(c for c in folded if not unicodedata.combining(c))
    plain = _FRENCH.sub(r"\1 ", plain.replace("&", " and "))
    return " ".join(_WORD.findall(_APOSTROPHE.sub("", plain)))


def _bare(text: str) -> str:
    """`_words` without an article in front, or behind a comma."""
    head, comma, tail = text.rpartition(",")
    words = _words(text).split(" ")
    if comma and _words(head) and _words(tail) in _ARTICLES:
        words = words[:-1]
    elif len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)
