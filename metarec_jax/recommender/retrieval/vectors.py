"""Interfaces of retrieval by inner product: what an index reads, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

BLOCK = 1 << 15
"""Number of rows that are read at a time where all rows are read."""


@runtime_checkable
class Vectors(Protocol):
    """The vectors of all items, which are read by rows and need not be in memory."""

    @property
    def width(self) -> int:
        """Number of columns."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some columns"]:
        """The vectors of some rows, float32 or float64."""
        ...


class Found(NamedTuple):
    """Rows with high inner products.

    Attributes:
        rows: int64, by descending product; the lower row first where products are equal.
        scores: float64, the products, computed from the vectors themselves.
        exact: whether these are proven to be the highest of all allowed rows.
    """

    rows: np.ndarray
    scores: np.ndarray
    exact: bool


@runtime_checkable
class Index(Protocol):
    """Finds the rows of highest inner product with a query."""

    def top(
        self,
        query: Float[np.ndarray, " columns"],
        count: int,
        allowed: Bool[np.ndarray, " items"] | None = None,
        without: Sequence[int] | Int[np.ndarray, " some"] = (),
    ) -> Found:
        """Find the `count` rows with the highest products; fewer where fewer are allowed.

        Args:
            query: finite numbers.
            count: at least 1.
            allowed: which rows may be found; None for all.
            without: rows that are left out, few.

        Returns:
            The rows.
        """
        ...

    def put(self, rows: Int[np.ndarray, " some"]) -> None:
        """Read the vectors of rows that were appended, or have changed, without building the index again."""
        ...


def blocks(count: int) -> Iterator[np.ndarray]:
    """Yield the rows 0 to `count` - 1 in blocks."""
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))


def products(
    vectors: Vectors, rows: Int[np.ndarray, " some"], query: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, " some"]:
    """Inner products of some rows with a query, in float64.

    Args:
        vectors: the vectors.
        rows: rows of them.
        query: the other factor.

    Returns:
        float64 [some].
    """
    query = np.asarray(query, np.float64)
    parts = [np.asarray(vectors[rows[part]], np.float64) @ query for part in (some for some in blocks(len(rows)))]
    return np.concatenate([np.zeros(0), *parts])


def best(rows: np.ndarray, scores: np.ndarray, count: int, *, exact: bool) -> Found:
    """Keep the `count` highest scores.

    Args:
        rows: distinct rows.
        scores: their scores.
        count: number of rows to keep.
        exact: as in `Found`.

    Returns:
        The rows by descending score; the lower row first where scores are equal.
    """
    order = np.lexsort((rows, -scores))[:count]
    return Found(rows[order], scores[order], exact)
