"""Building of indexes by kind, and their measured recall."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import numpy as np
from jaxtyping import Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.retrieval.graph import Graph
from metarec_jax.recommender.retrieval.quantised import Quantised, quantise
from metarec_jax.recommender.retrieval.scan import Scan
from metarec_jax.recommender.retrieval.sharded import ShardedBounds
from metarec_jax.recommender.retrieval.vectors import Index, Vectors

IndexKind = Literal["scan", "approximate-scan", "graph"]
"""A scan is exact; with `approx_max_k` on TPUs, or from a graph, an index is approximate."""


def build_index(
    vectors: Vectors, kind: str = "scan", table: Quantised | None = None, graph: np.ndarray | None = None
) -> Index:
    """Build an index.

    On one CPU device the highest bounds are selected on the host, which is faster than XLA's `top_k` there; elsewhere
    on the devices.

    Args:
        vectors: vectors of the items.
        kind: one of `IndexKind`.
        table: the vectors, quantised before; None quantises them.
        graph: bytes of a graph that was built before; None builds it.

    Returns:
        The index.

    Raises:
        MetarecError: there is no such kind, or a package that it needs is not installed.
    """
    if kind not in get_args(IndexKind):
        raise MetarecError(f"the index is {kind!r}; it must be one of {', '.join(map(repr, get_args(IndexKind)))}")
    table = quantise(vectors) if table is None else table
    devices, approximate = jax.local_devices(), kind == "approximate-scan"
    if devices[0].platform == "cpu" and not approximate:
        scan = Scan(vectors, table)
    else:
        sharded = ShardedBounds(table, len(vectors), devices, approximate=approximate)
        scan = Scan(vectors, table, sharded, proves=not approximate)
    return Graph(vectors, scan, graph) if kind == "graph" else scan


def recall(index: Index, exact: Index, queries: Float[np.ndarray, "queries columns"], count: int) -> float:
    """Share of the rows of highest products that an index finds.

    Args:
        index: the index to measure.
        exact: an index whose lists are exact.
        queries: one or more queries.
        count: number of rows of each.

    Returns:
        The mean over the queries.
    """
    shares = [
        len(np.intersect1d(index.top(query, count).rows, exact.top(query, count).rows)) / count for query in queries
    ]
    return float(np.mean(shares))
