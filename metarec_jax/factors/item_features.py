"""What is known of an item itself, as rows of numbers whose inner products say how alike two items are."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from metarec_jax.core.types import Items
from metarec_jax.core.variance import standardisation

TEXT, POPULARITY, VECTOR, DETAIL = "text", "popularity", "vector", "detail:"
"""Names of sources; that of a detail is its own after a prefix, since data may call a detail anything."""
BUMPS = 8
"""Places on the scale of a number that a feature is close to or far from."""
WORDS = 64
"""Most common values of a detail that are told apart."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A detail that is a number, such as a year: Gaussian bumps along its scale.

    Attributes:
        centres: float64 [bumps].
        width: of a bump.
    """

    centres: np.ndarray
    width: float

    def rows(self, values: tuple[str, ...]) -> Float[np.ndarray, "items bumps"]:
        """One row a value; what is no number is far from everything."""
        number = np.array([_number(value) for value in values])
        distance = (number[:, None] - self.centres) / self.width
        return np.where(np.isnan(distance), 0.0, np.exp(-np.square(distance) / 2))


@dataclasses.dataclass(frozen=True)
class Words:
    """A detail that is a list of words, such as genres: 1 for each that is there, and rows of length 1.

    Attributes:
        known: the words that are told apart.
    """

    known: tuple[str, ...]

    def rows(self, values: tuple[str, ...]) -> Float[np.ndarray, "items words"]:
        """One row a value; zeros where no known word is in it."""
        place = {word: i for i, word in enumerate(self.known)}
        found = np.zeros((len(values), len(self.known)))
        for row, value in enumerate(values):
            for word in _words(value):
                if word in place:
                    found[row, place[word]] = 1.0
        return found / np.sqrt(np.maximum(found.sum(axis=1, keepdims=True), 1.0))


@dataclasses.dataclass(frozen=True)
class Sources:
    """How items become rows of numbers: every source apart, each of mean 0 and mean squared length 1 over the items
    that it was made from.

    Attributes:
        details: reader of each detail, by its name.
        shift, scale: of each source, by its name: float64 [width], and a number.
    """

    details: dict[str, Numbers | Words]
    shift: dict[str, np.ndarray]
    scale: dict[str, float]

    @classmethod
    def of(cls, items: Items, embeddings: Float[np.ndarray, "items hidden"], count: np.ndarray) -> Sources:
        """The sources that these items have; `count` [items] says how often each was rated."""
        # Of the items that were rated: what is held out must not show, not even in a mean over texts.
        seen = np.flatnonzero(count > 0) if (count > 0).any() else np.arange(len(items))
        known = {name: tuple(values[row] for row in seen) for name, values in items.details.items()}
        details = {name: _reader(values) for name, values in known.items() if len(set(values)) > 1}
        vectors = None if items.vectors is None else items.vectors[seen]
        raw = _raw(details, known, embeddings[seen], np.asarray(count)[seen], vectors)
        raw = {name: rows[~np.isnan(rows).any(axis=1)] for name, rows in raw.items()}
        found = {name: standardisation(rows) for name, rows in raw.items()}
        return cls(details, {n: s.shift for n, s in found.items()}, {n: s.scale for n, s in found.items()})

    def rows(
        self,
        details: Mapping[str, tuple[str, ...]],
        embeddings: Float[np.ndarray, "items hidden"],
        count: np.ndarray,
        vectors: Float[np.ndarray, "items width"] | None = None,
    ) -> dict[str, np.ndarray]:
        """Rows of some items, [items, width] by the name of the source; zeros where an item lacks a detail or a vector.

        Of an item that nobody rated the popularity is not known: it may be new, and then nobody can have rated it.
        """
        if VECTOR in self.shift and vectors is None:
            vectors = np.full((len(embeddings), len(self.shift[VECTOR])), np.nan)
        raw = _raw(self.details, details, embeddings, count, vectors if VECTOR in self.shift else None)
        found = {name: np.nan_to_num((rows - self.shift[name]) * self.scale[name]) for name, rows in raw.items()}
        found[POPULARITY][np.asarray(count) == 0] = 0.0
        for name in self.details:
            if name not in details:
                found[DETAIL + name][:] = 0.0
        return found


def _raw(
    readers: dict[str, Numbers | Words],
    details: Mapping[str, tuple[str, ...]],
    embeddings: np.ndarray,
    count: np.ndarray,
    vectors: np.ndarray | None,
) -> dict[str, np.ndarray]:
    missing = ("",) * len(embeddings)
    found = {
        TEXT: np.asarray(embeddings, np.float64),
        POPULARITY: np.log1p(np.asarray(count, np.float64))[:, None],
        **{DETAIL + name: reader.rows(details.get(name, missing)) for name, reader in readers.items()},
    }
    if vectors is not None:
        found[VECTOR] = np.asarray(vectors, np.float64)
    return found


def _reader(values: tuple[str, ...]) -> Numbers | Words:
    """A column is one of numbers if nearly everything in it is a number, and there are many."""
    number = np.array([_number(value) for value in values])
    known = number[~np.isnan(number)]
    if len(known) > 0.9 * len(values) and len(np.unique(known)) > BUMPS:
        centres = np.unique(np.quantile(known, np.linspace(0.02, 0.98, BUMPS)))
        width = float(np.ptp(centres)) / max(len(centres) - 1, 1)
        return Numbers(centres, width or 1.0)
    common = Counter(word for value in values for word in set(_words(value))).most_common(WORDS)
    return Words(tuple(word for word, _ in common))


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _words(value: str) -> list[str]:
    return [word for part in re.split(r"[|,;]", value) if (word := part.strip())]
