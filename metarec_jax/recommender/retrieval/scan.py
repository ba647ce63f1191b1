"""Scan of all items for the highest inner products: int8 bounds, then the products themselves of those within reach.

The bounds (see `metarec_jax.recommender.retrieval.quantised`) prove which rows can be among the highest. As many rows
are computed from the vectors themselves as the proof needs, in the worst case all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from metarec_jax.recommender.retrieval.quantised import Quantised, Query, compiler_options, query_of, upper_bounds
from metarec_jax.recommender.retrieval.vectors import Found, Vectors, best, products

Highest = Callable[[Query, int, np.ndarray | None], tuple[np.ndarray, np.ndarray, float]]
"""(query, count, allowed) -> the `count` rows with the highest bounds, their bounds, and a bound of all other rows."""


class Scan:
    """An index that reads every row.

    Args:
        vectors: vectors of the items; rows may be appended later.
        table: the vectors, quantised.
        highest: finds rows by their bounds; None takes `highest_bounds` of the table.
        proves: whether `highest` is exact, so that its bounds prove anything.
    """

    def __init__(self, vectors: Vectors, table: Quantised, highest: Highest | None = None, *, proves: bool = True):
        self.table, self._vectors, self._proves = table, vectors, proves
        self._count = len(vectors)
        self._highest = highest or functools.partial(highest_bounds, table, self._count)
        # Rows that were appended or have changed since they were quantised. They are always computed.
        self._put_rows = np.zeros(0, np.int64)
        self._put_vectors = np.zeros((0, vectors.width), np.float32)

    def put(self, rows: Int[np.ndarray, " some"]) -> None:
        """Read the vectors of rows that were appended, or have changed."""
        new = np.unique(np.asarray(rows, np.int64))
        vectors = np.asarray(self._vectors[new], np.float32)
        kept = ~np.isin(self._put_rows, new)
        together = np.append(self._put_rows[kept], new), np.concatenate([self._put_vectors[kept], vectors])
        self._put_rows, self._put_vectors = together

    def top(
        self,
        query: Float[np.ndarray, " columns"],
        count: int,
        allowed: Bool[np.ndarray, " items"] | None = None,
        without: Sequence[int] | Int[np.ndarray, " some"] = (),
    ) -> Found:
        """Find the `count` rows with the highest products; see `metarec_jax.recommender.retrieval.vectors.Index`.

        Args:
            query: finite numbers.
            count: at least 1.
            allowed: which rows may be found; None for all.
            without: rows that are left out, few.

        Returns:
            The rows, proven to be the highest unless `proves` is False.
        """
        query = np.asarray(query, np.float64)
        asked = query_of(self.table, query)
        put, of_put = self._of_put(query, allowed, without)
        left_out = np.unique(np.concatenate([np.asarray(without, np.int64), self._put_rows]))
        left_out = left_out[left_out < self._count]
        wanted = count + len(left_out)
        tried = min(wanted + wanted // 2, self._count)
        while True:
            rows, bounds, others = self._highest(asked, tried, None if allowed is None else allowed[: self._count])
            rows = rows[np.isfinite(bounds)]
            rows = rows[~np.isin(rows, left_out)] if len(left_out) else rows
            scores = products(self._vectors, rows, query)
            found = best(np.append(rows, put), np.append(scores, of_put), count, exact=self._proves)
            reached = len(found.rows) == count and found.scores[-1] > others + asked.offset
            if not self._proves or reached or others == -np.inf:
                return found
            tried = tried * 4 if tried * 4 < self._count // 2 else self._count

    def _of_put(self, query: np.ndarray, allowed: np.ndarray | None, without: Sequence[int] | np.ndarray) -> tuple:
        """Rows that `put` read and that may be found, and their products."""
        rows, vectors = self._put_rows, self._put_vectors
        may = ~np.isin(rows, without)
        if allowed is not None:
            may &= allowed[rows]
        return rows[may], vectors[may].astype(np.float64) @ query


@functools.cache
def scan_program(shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    """Compile `upper_bounds` for tables of one shape, [tiles, columns, tile]."""
    tiles, columns, tile = shape
    arguments = [
        jax.ShapeDtypeStruct(shape, np.int8),
        *(jax.ShapeDtypeStruct(of, np.float32) for of in ((tiles, tile), (columns,), ())),
    ]
    return jax.jit(upper_bounds).lower(*arguments).compile(compiler_options())


def highest_bounds(
    table: Quantised, count: int, query: Query, wanted: int, allowed: Bool[np.ndarray, " items"] | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Find the rows with the highest bounds, on one device.

    Args:
        table: the rows.
        count: number of rows.
        query: the query.
        wanted: number of rows to find.
        allowed: which rows may be found; None for all. Others have the bound minus infinity.

    Returns:
        The rows, their bounds, and a bound of all other rows.
    """
    values = scan_program(table.values.shape)(table.values, table.scale, query.weights, query.slack)
    bounds = np.asarray(values).reshape(-1)[:count]
    if allowed is not None:
        bounds = np.where(allowed, bounds, np.float32(-np.inf))
    rows, others = highest(bounds, wanted)
    return rows, bounds[rows], others


def highest(values: Float[np.ndarray, " n"], wanted: int) -> tuple[Int[np.ndarray, " found"], float]:
    """Find the highest of many numbers, reading most of them once.

    A sample gives a first limit, which at least `wanted` numbers reach; only these are sorted into.

    Args:
        values: numbers without NaN.
        wanted: how many to find, at least 1.

    Returns:
        Rows of `wanted` numbers, in any order, and the least of them, which no other number exceeds; all rows and minus
        infinity where there are no others.
    """
    if wanted >= len(values):
        return np.arange(len(values)), -np.inf
    sample = values[:: max(1, len(values) // (16 * wanted))]
    rows = np.flatnonzero(values >= np.partition(sample, len(sample) - wanted)[len(sample) - wanted])
    found = values[rows]
    least = np.partition(found, len(found) - wanted)[len(found) - wanted]
    above, equal = rows[found > least], rows[found == least]
    return np.concatenate([above, equal[: wanted - len(above)]]), float(least)
