"""Trainable correction of item factors: one row for each item, added to the factors that were fitted in closed form.

Only the rows of a batch's distinct items are read, differentiated and updated, so that the cost of a step does not grow
with the catalogue. The table, and the one number for each row that the update needs, are sharded over the devices of
the mesh that is set (`jax.set_mesh`), a block of rows for each. Every device finds the distinct items of the whole
batch and contributes the rows that it holds; it updates these alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from metarec_jax.core.types import Episodes, Params, Rows
from metarec_jax.learner.prior import RATINGS

FIRST = RATINGS + 2
"""First column of the factors in a row's statistic, after mean and residual variance."""
MULTIPLE = 256
"""The rows of a table are a multiple of this, so that 1, 2, 4, ..., 256 devices hold tables of one shape."""
_LEAST = 1e-12
"""Least root mean square of a row's gradients; a row without gradient is divided by it and stays as it is."""


Places = tuple[Any, Any]
"""A number for each row of the supports int32 [users, support] and of the queries [users, query] of a batch."""


class Picked(NamedTuple):
    """Rows of the items of a batch.

    Attributes:
        item: int32 [distinct], rows of the table, ascending; behind the last one, the number of rows of the table.
        rows: float [distinct, rank], these rows; 0 behind the last one.
        places: int32 [users, support] and [users, query], the place in `rows` of each row of supports and queries.
    """

    item: Array
    rows: Array
    places: Places


def table_rows(items: int) -> int:
    """The number of rows of the table of a catalogue: `items`, rounded up to a `MULTIPLE`."""
    return -(-items // MULTIPLE) * MULTIPLE


def items_of(episodes: Episodes) -> Places:
    """The items of the supports and queries of a batch."""
    return episodes.support.item, episodes.query.item


def pick(table: Float[Array, "rows rank"], items: Places) -> Picked:
    """Read the rows of the distinct items of a batch.

    Args:
        table: the correction.
        items: rows of the table, of the supports and of the queries of the batch.

    Returns:
        The rows; their number is that of the rows of the batch, or of the table if that is less.
    """
    every = jnp.concatenate([part.ravel() for part in items])
    most = min(len(every), len(table))

    def of_device(part: Array, every: Array) -> tuple[Array, Array, Array]:
        distinct, place = jnp.unique(every, return_inverse=True, size=most, fill_value=_devices() * len(part))
        rows = part.at[_own(part, distinct)].get(mode="fill", fill_value=0)
        return distinct, _total(rows), place.ravel()

    distinct, rows, place = _on_devices(of_device, (_sharded(), PartitionSpec()), PartitionSpec())(table, every)
    support, query = jnp.split(place.astype(jnp.int32), [items[0].size])
    return Picked(distinct, rows, (support.reshape(items[0].shape), query.reshape(items[1].shape)))


def correct(episodes: Episodes, rows: Float[Array, "distinct rank"], places: Places) -> Episodes:
    """Add rows of the correction to the item factors of a batch.

    A row of an episode whose item has no ratings of others is left as it is: it stands for a new item, as rows do whose
    factors are dropped in training (`metarec_jax.data.splits.AsNew`), and new items have no correction.

    Args:
        episodes: the batch.
        rows: the correction of its distinct items.
        places: the place of each item in `rows`.

    Returns:
        The batch.
    """

    def added(part: Rows, place: Array) -> Rows:
        known = (part.statistic[..., 1:2] > 0).astype(rows.dtype)
        factors = part.statistic[..., FIRST:] + rows[place] * known
        return part._replace(statistic=jnp.concatenate([part.statistic[..., :FIRST], factors], axis=-1))

    support, query = map(added, (episodes.support, episodes.query), places)
    return episodes._replace(support=support, query=query)


def corrected(episodes: Episodes, table: Params) -> Episodes:
    """Add a correction to the item factors of a batch.

    Args:
        episodes: the batch.
        table: the correction, float [rows, rank]; None leaves the batch as it is.

    Returns:
        The batch.
    """
    if table is None:
        return episodes
    picked = pick(jnp.asarray(table), items_of(episodes))
    return correct(episodes, picked.rows, picked.places)


def descend(
    table: Float[Array, "rows rank"],
    squares: Float[Array, " rows"],
    item: Int[Array, " distinct"],
    gradient: Float[Array, "distinct rank"],
    rate: ArrayLike,
) -> tuple[Float[Array, "rows rank"], Float[Array, " rows"]]:
    """Take a step of row-wise Adagrad: Adagrad (Duchi, Hazan & Singer 2011) with one sum for each row.

    A row moves by ``rate gradient / sqrt(sum over steps of the mean square of its gradient)``. Rows without a gradient,
    and all rows that are not in `item`, stay as they are.

    Args:
        table: the correction.
        squares: sum over the steps before of the mean square of each row's gradient.
        item: distinct rows of the table; others than its rows are ignored.
        gradient: gradient by these rows.
        rate: learning rate.

    Returns:
        The new table and the new sums.
    """

    def of_device(part: Array, squares: Array, item: Array, gradient: Array, rate: Array) -> tuple[Array, Array]:
        own = _own(part, item)
        added = jnp.mean(gradient * gradient, axis=-1)
        total = squares.at[own].get(mode="fill", fill_value=0) + added
        step = rate * gradient / jnp.maximum(jnp.sqrt(total), _LEAST)[:, None]
        return part.at[own].add(-step, mode="drop"), squares.at[own].set(total, mode="drop")

    split, same = _sharded(), PartitionSpec()
    step = _on_devices(of_device, (split, split, same, same, same), split)
    return step(table, squares, item, gradient, jnp.asarray(rate, table.dtype))


def _axes() -> tuple[str, ...]:
    """Axes of the mesh that is set; none if that is one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.axis_names if mesh.size > 1 else ()


def _devices() -> int:
    return math.prod(jax.lax.axis_size(axis) for axis in _axes())


def _sharded() -> PartitionSpec:
    axes = _axes()
    return PartitionSpec(axes[0] if len(axes) == 1 else axes)


def _on_devices(function: Callable[..., Any], arguments: tuple, results: Any) -> Callable[..., Any]:
    """`function` as a program of each device, of its parts of arrays; on one device, `function` itself."""
    if not _axes():
        return function
    return jax.shard_map(function, in_specs=arguments, out_specs=results, check_vma=False)


def _total(parts: Array) -> Array:
    return jax.lax.psum(parts, _axes()) if _axes() else parts


def _own(part: Array, item: Array) -> Array:
    """The row in this device's part of each row of the table; the number of rows of the part for those elsewhere."""
    place = item - (jax.lax.axis_index(_axes()) * len(part) if _axes() else 0)
    return jnp.where((place >= 0) & (place < len(part)), place, len(part))
