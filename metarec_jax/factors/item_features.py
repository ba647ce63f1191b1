"""Standardised features of items, whose inner products are the prior covariance of item means and tastes."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from metarec_jax.core.types import Items, Strings
from metarec_jax.core.variance import standardisation

TEXT, POPULARITY, VECTOR, DETAIL = "text", "popularity", "vector", "detail:"
"""Names of sources. The name of a detail has a prefix, so that it cannot equal another source's."""
BUMPS = 8
"""Greatest number of radial basis functions of a numeric detail."""
WORDS = 64
"""Greatest number of words of a detail that have a feature, the most common ones."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Features of a numeric detail, such as a year: Gaussian radial basis functions.

    Attributes:
        centres: float64 [bumps], centres of the functions.
        width: standard deviation of a function.
    """

    centres: np.ndarray
    width: float

    def rows(self, values: Strings) -> Float[np.ndarray, "items bumps"]:
        """Compute a row of features for each value; zeros for a value that is not a number."""
        number = np.array([_number(value) for value in values])
        distance = (number[:, None] - self.centres) / self.width
        return np.where(np.isnan(distance), 0.0, np.exp(-np.square(distance) / 2))


@dataclasses.dataclass(frozen=True)
class Words:
    """Features of a detail that is a list of words, such as genres: one indicator for each known word, rows of norm 1.

    Attributes:
        known: words that have a feature.
    """

    known: tuple[str, ...]

    def rows(self, values: Strings) -> Float[np.ndarray, "items words"]:
        """Compute a row of features for each value; zeros for a value without a known word."""
        place = {word: i for i, word in enumerate(self.known)}
        found = np.zeros((len(values), len(self.known)))
        for row, value in enumerate(values):
            for word in _words(value):
                if word in place:
                    found[row, place[word]] = 1.0
        return found / np.sqrt(np.maximum(found.sum(axis=1, keepdims=True), 1.0))


@dataclasses.dataclass(frozen=True)
class Sources:
    """Standardisation of item features: each source gets mean 0 and mean squared norm 1 over the items it is fitted to.

    Attributes:
        details: features of each detail, by its name.
        shift: float64 [width], mean of each source, by its name.
        scale: factor of each source, by its name.
    """

    details: dict[str, Numbers | Words]
    shift: dict[str, np.ndarray]
    scale: dict[str, float]

    @classmethod
    def of(cls, items: Items, embeddings: Float[np.ndarray, "items hidden"], count: np.ndarray) -> Sources:
        """Fit the standardisation to the rated items of a catalogue; to all items where none is rated.

        Args:
            items: the catalogue.
            embeddings: embeddings of the items' texts.
            count: [items], number of ratings of each item.

        Returns:
            The standardisation of the sources that the items have.
        """
        # Only rated items are used, so that held-out items do not influence the statistics.
        seen = np.flatnonzero(count > 0) if (count > 0).any() else np.arange(len(items))
        known = {name: tuple(values[row] for row in seen) for name, values in items.details.items()}
        details = {name: _reader(values) for name, values in known.items() if len(set(values)) > 1}
        vectors = None if items.vectors is None else items.vectors[seen]
        raw = _raw(details, known, embeddings[seen], np.asarray(count)[seen], vectors)
        raw = {name: rows[~np.isnan(rows).any(axis=1)] for name, rows in raw.items()}
        found = {name: standardisation(rows) for name, rows in raw.items()}
        return cls(details, {n: s.shift for n, s in found.items()}, {n: s.scale for n, s in found.items()})

    def of_counts(self, count: np.ndarray) -> Sources:
        """Standardise the popularity anew, over the items that have ratings in `count` [items]."""
        found = standardisation(np.log1p(np.asarray(count, np.float64)[np.asarray(count) > 0])[:, None])
        return Sources(self.details, self.shift | {POPULARITY: found.shift}, self.scale | {POPULARITY: found.scale})

    def rows(
        self,
        details: Mapping[str, Strings],
        embeddings: Float[np.ndarray, "items hidden"],
        count: np.ndarray,
        vectors: Float[np.ndarray, "items width"] | None = None,
    ) -> dict[str, np.ndarray]:
        """Compute the standardised features of items.

        Args:
            details: values of each detail, by its name.
            embeddings: embeddings of the items' texts.
            count: [items], number of ratings of each item. The popularity of an item without ratings counts as unknown:
                the item may be new.
            vectors: further vectors of the items; None where unknown.

        Returns:
            Name of a source -> float64 [items, width]; zeros where a detail, vector or popularity is unknown.
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
    details: Mapping[str, Strings],
    embeddings: np.ndarray,
    count: np.ndarray,
    vectors: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Features before standardisation, [items, width] by name of the source."""
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
    """Choose the features of a detail.

    A detail is numeric if more than 90 % of its values are numbers, and more than `BUMPS` of them differ.
    """
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
