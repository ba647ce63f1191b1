"""A compact index of titles: rows by name, by the beginnings of words, and by trigrams.

All of it is in sorted NumPy arrays. A million titles of four words take about 0.2 GB, and seconds to index; a look-up
reads a few ranges of the arrays. An index does not change: new titles have an index of their own.
"""

from __future__ import annotations

import array
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from metarec_jax.recommender.title_names import Names

_CHUNK = 1 << 16
"""Number of titles whose trigrams are computed at a time."""
_MOST_READ = 1 << 19
"""Number of rows in lists of trigrams that a search for similar names reads, about; the rarest trigrams come first."""
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint32)
_SYLLABIC = 0x2E80
"""First code point of scripts whose words have few characters (Chinese, Japanese, Korean); they have bigrams too."""
_LAST = "\U0010ffff"


class TitlePart:
    """Index of consecutive rows of a catalogue.

    Args:
        titles: titles of the rows.
        first: row of the first title.
    """

    def __init__(self, titles: Sequence[str], first: int = 0):
        self.first, self.count = first, len(titles)
        known: dict[str, int] = {}
        word_of, row_of = array.array("i"), array.array("i")
        hashes, named = array.array("q"), array.array("i")
        grams = []
        for start in range(0, len(titles), _CHUNK):
            plain = []
            for row, title in enumerate(titles[start : start + _CHUNK], start=start):
                names = Names(title)
                plain.append(names.plain)
                for level, name in [(0, title), *names.levels]:
                    hashes.append(hash((level, name)))
                    named.append(row)
                for word in set(names.words.split(" ")):
                    word_of.append(known.setdefault(word, len(known)))
                    row_of.append(row)
            grams.append(_grams(plain) + np.uint64(start))
        # Words in the order of their letters, so that those with one beginning have one range of rows.
        order = sorted(range(len(known)), key=list(known).__getitem__)
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        self._words = sorted(known)
        of_word = place[np.frombuffer(word_of, np.int32)]
        by_word = np.argsort(of_word, kind="stable")
        self._rows = np.frombuffer(row_of, np.int32)[by_word]
        self._starts = np.searchsorted(of_word[by_word], np.arange(len(order) + 1))
        by_hash = np.argsort(np.frombuffer(hashes, np.int64), kind="stable")
        self._hashes = np.frombuffer(hashes, np.int64)[by_hash]
        self._named = np.frombuffer(named, np.int32)[by_hash]
        pairs = np.concatenate(grams or [np.zeros(0, np.uint64)])
        grams.clear()
        pairs.sort()
        self._gram_rows = (pairs & np.uint64(0xFFFFFFFF)).astype(np.int32)
        codes = (pairs >> np.uint64(32)).astype(np.uint32)
        begins = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(codes) else np.zeros(0, np.int64)
        self._codes, self._gram_starts = codes[begins], np.append(begins, len(codes))
        self._gram_counts = np.bincount(self._gram_rows, minlength=self.count).astype(np.uint16)

    def named(self, level: int, name: str) -> list[int]:
        """Rows with a name, ascending.

        Args:
            level: level of the name, as in `metarec_jax.recommender.title_names`; 0 for titles.
            name: the normalised name.

        Returns:
            The rows; one with two equal names is there twice.
        """
        low, high = (np.searchsorted(self._hashes, hash((level, name)), side) for side in ("left", "right"))
        return (self._named[low:high] + self.first).tolist()

    def beginning(self, starts: Sequence[str]) -> Int[np.ndarray, " rows"]:
        """Rows whose titles have, for each text of `starts`, a word that begins with it, ascending."""
        ranges = []
        for text in starts:
            low, high = bisect_left(self._words, text), bisect_left(self._words, text + _LAST)
            ranges.append((self._starts[low], self._starts[high]))
        left = None
        for low, high in sorted(ranges, key=lambda pair: pair[1] - pair[0]):
            has = np.zeros(self.count, bool)
            has[self._rows[low:high]] = True
            left = np.flatnonzero(has) if left is None else left[has[left]]
        return (np.arange(self.count) if left is None else left) + self.first

    def similar(self, name: str, most: int, popularity: Shaped[np.ndarray, " items"]) -> Int[np.ndarray, " rows"]:
        """Rows whose plain names share most trigrams with a name.

        Args:
            name: a plain name.
            most: greatest number of rows to return.
            popularity: of each row of the catalogue; it decides between names that share as much.

        Returns:
            The rows, in any order.
        """
        wanted = np.unique(_grams([name]) >> np.uint64(32)).astype(np.uint32)
        place = np.searchsorted(self._codes, wanted)
        place = place[place < len(self._codes)]
        place = place[np.isin(self._codes[place], wanted)]
        sizes = self._gram_starts[place + 1] - self._gram_starts[place]
        rarest = np.argsort(sizes, kind="stable")
        before = np.cumsum(sizes[rarest]) - sizes[rarest]
        read = place[rarest[before <= _MOST_READ]]
        lists = [self._gram_rows[self._gram_starts[p] : self._gram_starts[p + 1]] for p in read]
        if not lists:
            return np.zeros(0, np.int64)
        shared = np.bincount(np.concatenate(lists), minlength=self.count)
        rows = np.flatnonzero(shared)
        if len(rows) > most:
            found = shared[rows].astype(np.float32)
            likeness = found / len(read) + 4 * found / (len(wanted) + self._gram_counts[rows])
            likeness += _below_one(popularity[rows + self.first]) / 1000
            rows = rows[np.argpartition(-likeness, most)[:most]]
        return rows + self.first


def _below_one(popularity: Shaped[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    counts = np.maximum(popularity.astype(np.float32), 0)
    return counts / (1 + counts)


def _grams(names: Sequence[str]) -> Shaped[np.ndarray, " pairs"]:
    """The distinct trigrams of names, each word of which begins with two blanks and ends with one.

    Returns:
        uint64 [pairs], sorted: a hash of the trigram in the upper 32 bits, and the number of the name in the lower.
    """
    text = "".join(f"  {name.replace(' ', '  ')} \n" for name in names if name or len(names) > 1)
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    a, b, c = letters[:-2], letters[1:-1], letters[2:]
    number = np.cumsum(letters == ord("\n"), dtype=np.uint64)[:-2]
    blank, end = np.uint32(ord(" ")), np.uint32(ord("\n"))
    real = (a != end) & (b != end) & (c != end) & ~((b == blank) & (c == blank))
    syllabic = (a >= _SYLLABIC) & (b >= _SYLLABIC)

    def pairs(kept: np.ndarray, third: np.ndarray) -> np.ndarray:
        mixed = a[kept] * _FACTORS[0] + b[kept] * _FACTORS[1] + third[kept] * _FACTORS[2]
        mixed ^= mixed >> np.uint32(15)
        return (mixed.astype(np.uint64) << np.uint64(32)) | number[kept]

    return np.unique(np.concatenate([pairs(real, c), pairs(syllabic, np.zeros_like(c))]))
