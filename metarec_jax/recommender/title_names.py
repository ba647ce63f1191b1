"""Normalised forms of titles, by which items are found: without case, accents, punctuation, articles and year."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from metarec_jax.data.text import title_year

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
STRICT, LOOSE, OTHER = range(1, 4)
"""Levels of names: all words; without article; a name in brackets. Level 0 is the title as it is."""


def words(text: str) -> str:
    """The words of `text` in lower case, without accents and punctuation, joined by single spaces."""
    plain = text.casefold()
    if not plain.isascii():
        folded = unicodedata.normalize("NFKD", plain.translate(_LETTERS))
        plain = "".join(c for c in folded if not unicodedata.combining(c))
    if "&" in plain:
        plain = plain.replace("&", " and ")
    if _APOSTROPHE.search(plain):
        plain = _APOSTROPHE.sub("", _FRENCH.sub(r"\1 ", plain))
    return " ".join(_WORD.findall(plain))


def bare(text: str) -> str:
    """`words` without an article at the start, or at the end after a comma."""
    return _without_article(text, words(text))


def _without_article(text: str, of_text: str) -> str:
    head, comma, tail = text.rpartition(",")
    first, blank, rest = of_text.partition(" ")
    if comma and words(tail) in _ARTICLES and words(head):
        return of_text.rpartition(" ")[0]
    return rest if blank and first in _ARTICLES else of_text


def readings(name: str) -> list[tuple[str, str]]:
    """Possible (title, year) pairs of `name`: the year is in brackets, missing, or the last word."""
    found = [(without_year(name), title_year(name))]
    if not found[0][1] and (last := _BARE_YEAR.search(name)):
        found.append((name[: last.start()], last.group(1)))
    return found


def without_year(title: str) -> str:
    """A title without a year in brackets at its end."""
    return title[: title.rindex("(")] if title_year(title) else title


def plain_name(title: str) -> str:
    """The form of a title to which misspelt names are compared."""
    return bare(_BRACKETS.sub(" ", without_year(title)))


class Names:
    """The normalised names of a title.

    Attributes:
        words: all words, with those in brackets and the year.
        plain: as from `plain_name`.
        levels: pairs of a level and a name.
    """

    __slots__ = ("levels", "plain", "words")

    def __init__(self, title: str):
        self.words = words(title)
        year = title_year(title)
        base = title[: title.rindex("(")] if year else title
        main = _BRACKETS.sub(" ", base)
        if main != base or not title.endswith(f"({year})" if year else ""):
            strict = words(main)
        else:  # the same without the last word, and faster
            strict = self.words.rpartition(" ")[0] if year else self.words
        self.plain = _without_article(main, strict)
        self.levels = [(STRICT, strict), (LOOSE, self.plain)]
        if main != base:
            self.levels += [(STRICT, words(base)), (LOOSE, bare(base))]
            self.levels += [(OTHER, bare(name)) for name in _other_names(base)]


def _other_names(base: str) -> Iterator[str]:
    """Other names in brackets: "Seven (a.k.a. Se7en)" gives "Se7en"."""
    for name in _BRACKETS.findall(base):
        yield re.sub(r"^\s*a\.?k\.?a\.?\s+", "", name, flags=re.IGNORECASE)
