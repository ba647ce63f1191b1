"""Vectors as int8 with a scale for each row, and a bound on the error of their inner products."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.retrieval.vectors import Vectors, blocks

CPU_TILE, TILE = 176, 1024
"""Number of rows in a tile on a CPU, and elsewhere. In a tile each column is contiguous, so that a vector instruction
works on many rows. CPUs read tiles of a power of two more slowly, and tiles that exceed their first cache; accelerators
pad the last axis to a multiple of 128."""
_TERMS = 33
"""Number of columns that are summed before they are added to the total: fewer instructions wait for one another."""
_LEVELS = 127
_SAMPLE = 1 << 15
"""Number of rows from which the mean and the spread of each column are estimated."""
_UNIT = 2.0**-24
"""Largest relative rounding error of a float32."""


class Quantised(NamedTuple):
    """A row ``x`` is ``middle + spread * (scale * values + residual)``, element by element.

    Attributes:
        values: int8 [tiles, columns, tile]; 0 in rows beyond the last.
        scale: float32 [tiles, tile].
        middle, spread: float64 [columns], so that no column decides the scale of a row alone.
        residual: largest Euclidean norm of a row's residual, divided by the row's scale.
    """

    values: Array
    scale: Array
    middle: np.ndarray
    spread: np.ndarray
    residual: float


class Query(NamedTuple):
    """A query for quantised rows.

    The product of a row with the query is at most ``scale * (values . weights + slack) + offset``.

    Attributes:
        weights: float32 [columns].
        slack: bound of the error of ``values . weights``, whatever the row.
        offset: product of the columns' middles with the query, and what float64 rounds.
    """

    weights: np.ndarray
    slack: np.float32
    offset: float


def quantise(vectors: Vectors) -> Quantised:
    """Read and quantise all vectors, a block at a time.

    Args:
        vectors: one or more.

    Returns:
        The quantised vectors.

    Raises:
        MetarecError: a vector is not finite.
    """
    count, width = len(vectors), vectors.width
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
    some = np.asarray(vectors[sample], np.float64)
    some = some[np.isfinite(some).all(axis=1)] if not np.isfinite(some).all() else some
    middle, spread = (some.mean(axis=0), some.std(axis=0)) if len(some) else (np.zeros(width), np.ones(width))
    spread[~(spread > 0)] = 1.0
    size = CPU_TILE if jax.default_backend() == "cpu" else TILE
    tiles = -(-count // size)
    values, scale = np.zeros((tiles, width, size), np.int8), np.zeros((tiles, size), np.float32)
    residual = 0.0
    for rows in blocks(count):
        standard = (np.asarray(vectors[rows], np.float64) - middle) / spread
        largest = np.abs(standard).max(axis=1)
        if not np.isfinite(largest).all():
            raise MetarecError(
                f"the vector of row {rows[~np.isfinite(largest)][0]} has a number that is infinite or NaN: "
                "the items' embeddings or statistics are damaged, so restore the run from a copy, or train it again"
            )
        # A scale that float32 holds as a normal number; a row of smaller numbers is zeros, and a residual.
        of_rows = np.maximum(largest / _LEVELS, np.finfo(np.float32).tiny).astype(np.float32)
        own = np.clip(np.rint(standard / of_rows[:, None].astype(np.float64)), -_LEVELS, _LEVELS).astype(np.int8)
        left = standard / of_rows[:, None].astype(np.float64) - own
        residual = max(residual, float(np.sqrt(np.einsum("ij,ij->i", left, left).max())))
        tile, place = np.divmod(rows, size)
        values[tile, :, place] = own
        scale[tile, place] = of_rows
    return Quantised(jnp.asarray(values), jnp.asarray(scale), middle, spread, residual)


def query_of(table: Quantised, query: Float[np.ndarray, " columns"]) -> Query:
    """Convert a query, with a bound on the error of its products.

    The quantisation error of a product is at most ``scale * residual * |w|_2`` (Cauchy and Schwarz), and at most
    ``scale * |w|_1 / 2``, since no element is rounded by more than half a step. Float32 adds at most
    ``(columns + 8) u / (1 - (columns + 8) u)`` times the sum of the terms' sizes (Higham 2002, "Accuracy and stability
    of numerical algorithms", section 3.1), which are at most 127 times a weight; the 8 are the roundings of weights,
    slack and scale.

    Args:
        table: the rows.
        query: finite numbers.

    Returns:
        The query.

    Raises:
        MetarecError: the query is not finite, or too large for float32.
    """
    exact = np.asarray(query, np.float64) * table.spread
    weights = exact.astype(np.float32)
    if not np.isfinite(weights).all():
        raise MetarecError(
            "the vector of a user is infinite or NaN: its inner steps diverge; train the run again with a lower "
            "--updater.rate"
        )
    absolute = float(np.abs(exact).sum())
    quantisation = min(absolute / 2 * (1 + 1e-6), table.residual * float(np.sqrt(exact @ exact)) * (1 + 1e-6))
    roundings = (len(exact) + 8) * _UNIT
    slack = quantisation + (_LEVELS + 1) * absolute * roundings / (1 - roundings)
    slack += np.finfo(np.float32).tiny * len(exact) * _LEVELS  # sums that underflow
    offset = float(table.middle @ query) + 2.0**-45 * float(np.abs(table.middle) @ np.abs(query))
    return Query(weights, np.nextafter(np.float32(slack), np.float32(np.inf)), offset)


def upper_bounds(values: Array, scale: Array, weights: Array, slack: Array) -> Float[Array, "tiles tile"]:
    """Bound the product of each row with a query from above, less the query's offset.

    The sum over columns is written out, so that XLA compiles it to one loop over rows, which reads each byte once; it
    compiles a matrix product or a reduction of int8 into a program that is ten times as slow on CPUs. The bound of the
    rounding holds for sums in any order.

    Args:
        values, scale: of the rows.
        weights, slack: of the query.

    Returns:
        float32.
    """
    total = jnp.broadcast_to(slack, scale.shape)
    terms = [weights[column] * values[:, column, :].astype(jnp.float32) for column in range(values.shape[1])]
    for first in range(0, len(terms), _TERMS):
        total = total + sum(terms[first + 1 : first + _TERMS], start=terms[first])
    return total * scale


def compiler_options() -> dict[str, bool | str]:
    """Options for programs with `upper_bounds`: XLA compiles for half of the vector registers' width by default."""
    return {"xla_cpu_prefer_vector_width": "512"} if jax.default_backend() == "cpu" else {}
