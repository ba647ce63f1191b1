"""An approximate index, a graph of near neighbours that the package usearch searches, in place of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.retrieval.scan import Scan
from metarec_jax.recommender.retrieval.vectors import Found, Vectors, best, blocks, products

_PROBED = 4
"""Rows that the graph search visits at least, for each row that is asked for."""


class Graph:
    """A graph of the items' standardised vectors; lists with filters come from a scan.

    Args:
        vectors: vectors of the items.
        scan: the same items; it standardises queries, answers where few rows are allowed, and measures recall.
        saved: bytes of a graph that `saved` returned; None builds it.

    Raises:
        MetarecError: usearch is not installed.
    """

    def __init__(self, vectors: Vectors, scan: Scan, saved: np.ndarray | None = None):
        self.scan, self._vectors = scan, vectors
        self._graph = _usearch().Index(ndim=vectors.width, metric="ip", dtype="bf16", multi=False)
        if saved is not None:
            self._graph.load(saved.tobytes())
            return
        for rows in blocks(len(vectors)):
            self._graph.add(rows.astype(np.uint64), self._standard(rows), threads=0)

    def _standard(self, rows: np.ndarray) -> Float[np.ndarray, "some columns"]:
        table = self.scan.table
        return ((self._vectors[rows] - table.middle) / table.spread).astype(np.float32)

    def saved(self) -> np.ndarray:
        """The graph as bytes, uint8."""
        return np.frombuffer(bytes(self._graph.save()), np.uint8)

    def put(self, rows: Int[np.ndarray, " some"]) -> None:
        """Add rows to the graph, or replace them."""
        self.scan.put(rows)
        new = np.unique(np.asarray(rows, np.int64))
        for row in new.tolist():
            if row in self._graph:
                self._graph.remove(row)
        self._graph.add(new.astype(np.uint64), self._standard(new))

    def top(
        self,
        query: Float[np.ndarray, " columns"],
        count: int,
        allowed: Bool[np.ndarray, " items"] | None = None,
        without: Sequence[int] | Int[np.ndarray, " some"] = (),
    ) -> Found:
        """Find rows with high products; see `metarec_jax.recommender.retrieval.vectors.Index`. Never `Found.exact`.

        Args:
            query: finite numbers.
            count: at least 1.
            allowed: which rows may be found; None for all.
            without: rows that are left out, few.

        Returns:
            The rows.
        """
        if allowed is not None:
            return self.scan.top(query, count, allowed, without)
        query = np.asarray(query, np.float64)
        wanted = min(count + len(without), len(self._graph))
        self._graph.expansion_search = _PROBED * wanted
        weights = (query * self.scan.table.spread).astype(np.float32)
        found = self._graph.search(weights / max(float(np.abs(weights).max()), 1e-30), wanted)
        rows = np.setdiff1d(found.keys.astype(np.int64), np.asarray(without, np.int64))
        return best(rows, products(self._vectors, rows, query), count, exact=False)


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise MetarecError(
            'the index "graph" needs the package usearch: install it with pip install "metarec_jax[ann]", or use the '
            'index "scan"'
        ) from error
    return usearch.index
