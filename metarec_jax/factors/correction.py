"""Trainable correction of item factors: one row for each item, added to the factors that were fitted in closed form.

Only the rows of a batch's items are read, differentiated and updated, so that the cost of a step does not grow with the
catalogue. The table, and the one number for each row that the update needs, are sharded over the devices of the mesh
that is set (`jax.set_mesh`), a block of rows for each; users of a batch are sharded over the same devices.

A device asks the holders of the distinct items of its users for their rows, and sends them the gradients (`jax.lax.
all_to_all`). Each pair of devices has a buffer of fixed size. Where the rows that one device reads from another do not
fit, all devices take several turns, each with a part of the rows. Items that are neighbours in the catalogue are on
different devices (`place_of`), since popular items are often neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from metarec_jax.core.types import Episodes, Params, Rows
from metarec_jax.learner.prior import RATINGS

FIRST = RATINGS + 2
"""First column of the factors in a row's statistic, after mean and residual variance."""
MULTIPLE = 768
"""The rows of a table are a multiple of this, so that 1, 2, 3, 4, 6, 8, ..., 768 devices hold tables of one shape."""
SPARE = 4
"""Size of the buffer of a pair of devices, in units of the rows that it needs where items are spread evenly."""
_FACTOR = 475
"""Without a common divisor with ``MULTIPLE``, and near that divided by the golden ratio."""
LEAST = 8
"""Least number of rows of a buffer."""
_TINY = 1e-12
"""Least root mean square of a row's gradients; a row without gradient is divided by it and stays as it is."""


class Routes(NamedTuple):
    """Where the rows of a device's items are; on one device the sizes are those of the whole batch.

    Attributes:
        place: int32 [rows of the batch], for each its place in `distinct`.
        distinct: int32 [rows of the batch], the distinct rows of the table, ascending; behind the last one, their
            number.
        device: int32 [rows of the batch], the device that holds each of `distinct`.
        turn: int32 [rows of the batch], the turn in which each of `distinct` is sent.
        slot: int32 [rows of the batch], its slot in the buffer of that turn.
        turns: int32 [1], number of turns, the same on all devices.
    """

    place: Array
    distinct: Array
    device: Array
    turn: Array
    slot: Array
    turns: Array


class Picked(NamedTuple):
    """Rows of the items of a batch.

    Attributes:
        rows: float [users, support + query, rank], the row of the item of each interaction.
        routes: where they come from.
    """

    rows: Array
    routes: Routes


def table_rows(items: int) -> int:
    """The number of rows of the table of a catalogue: `items`, rounded up to a `MULTIPLE`."""
    return -(-items // MULTIPLE) * MULTIPLE


def place_of(item: Any, rows: int) -> Any:
    """The row of an item in the table: neighbours in the catalogue are spread evenly (multiplicative hashing).

    Args:
        item: row of the catalogue, or an array of them.
        rows: number of rows of the table.

    Returns:
        The row of the table.

    >>> [place_of(item, 1536) for item in (0, 1, 2, 768, 769)]
    [0, 950, 364, 1, 951]
    """
    return item % MULTIPLE * _FACTOR % MULTIPLE * (rows // MULTIPLE) + item // MULTIPLE


def items_of(episodes: Episodes) -> Int[Array | np.ndarray, "users interactions"]:
    """The items of the supports and queries of a batch, supports first; on the host for arrays of the host."""
    of_support, of_query = episodes.support.item, episodes.query.item
    return of_support.__array_namespace__().concatenate([of_support, of_query], axis=1)


def pick(table: Float[Array, "rows rank"], items: Int[Array | np.ndarray, "users interactions"]) -> Picked:
    """Read the rows of the items of a batch.

    Args:
        table: the correction.
        items: rows of the catalogue, for each interaction.

    Returns:
        The rows.
    """

    def of_device(part: Array, items: Array) -> Picked:
        routes = _routes(items.ravel(), len(part))

        def turn(number: Array, found: Array) -> Array:
            asked = _to_holders(routes, number, _own_rows(routes, len(part)), len(part))
            given = _exchange(part.at[asked].get(mode="fill", fill_value=0))
            own = given.at[routes.device, routes.slot].get(mode="fill", fill_value=0)
            return jnp.where((routes.turn == number)[:, None], own, found)

        if _axes():
            found = jnp.zeros((len(routes.distinct), part.shape[1]), part.dtype)
            found = jax.lax.fori_loop(0, routes.turns[0], turn, found)
        else:
            found = part.at[routes.distinct].get(mode="fill", fill_value=0)
        return Picked(found[routes.place].reshape(*items.shape, -1), routes)

    split = _sharded()
    return _on_devices(of_device, (split, split), split)(table, jnp.asarray(items))


def correct(episodes: Episodes, rows: Float[Array, "users interactions rank"]) -> Episodes:
    """Add rows of the correction to the item factors of a batch.

    A row of an episode whose item has no ratings of others is left as it is: it stands for a new item, as rows do whose
    factors are dropped in training (`metarec_jax.data.splits.AsNew`), and new items have no correction.

    Args:
        episodes: the batch.
        rows: the correction of the item of each interaction, those of the supports first.

    Returns:
        The batch.
    """

    def added(part: Rows, own: Array) -> Rows:
        known = (part.statistic[..., 1:2] > 0).astype(own.dtype)
        factors = part.statistic[..., FIRST:] + own * known
        return part._replace(statistic=jnp.concatenate([part.statistic[..., :FIRST], factors], axis=-1))

    of_support, of_query = jnp.split(rows, [episodes.support.item.shape[1]], axis=1)
    return episodes._replace(support=added(episodes.support, of_support), query=added(episodes.query, of_query))


def corrected(episodes: Episodes, table: Params) -> Episodes:
    """Add a correction to the item factors of a batch.

    Args:
        episodes: the batch.
        table: the correction, float [rows, rank]; None leaves the batch as it is.

    Returns:
        The batch.
    """
    return episodes if table is None else correct(episodes, pick(jnp.asarray(table), items_of(episodes)).rows)


def descend(
    table: Float[Array, "rows rank"],
    squares: Float[Array, " rows"],
    routes: Routes,
    gradient: Float[Array, "users interactions rank"],
    rate: ArrayLike,
) -> tuple[Float[Array, "rows rank"], Float[Array, " rows"]]:
    """Take a step of row-wise Adagrad: Adagrad (Duchi, Hazan & Singer 2011) with one sum for each row.

    A row moves by ``rate gradient / sqrt(sum over steps of the mean square of its gradient)``, where its gradient is
    the sum over the interactions with its item. Rows without a gradient stay as they are.

    Args:
        table: the correction.
        squares: sum over the steps before of the mean square of each row's gradient.
        routes: of the batch, from `pick`.
        gradient: gradient by the row of each interaction.
        rate: learning rate.

    Returns:
        The new table and the new sums.
    """

    def of_device(part: Array, squares: Array, routes: Routes, gradient: Array, rate: Array) -> tuple[Array, Array]:
        own = _sums(gradient.reshape(-1, part.shape[1]), routes.place, len(routes.distinct))
        if not _axes():
            return _descend(part, squares, routes.distinct, own, rate)

        def turn(number: Array, held: tuple[Array, Array]) -> tuple[Array, Array]:
            row = _to_holders(routes, number, _own_rows(routes, len(part)), len(part)).ravel()
            sent = _to_holders(routes, number, own, 0).reshape(-1, part.shape[1])
            distinct, place = jnp.unique(row, return_inverse=True, size=len(row), fill_value=len(part))
            return _descend(*held, distinct, _sums(sent, place, len(row)), rate)

        return jax.lax.fori_loop(0, routes.turns[0], turn, (part, squares))

    split = _sharded()
    step = _on_devices(of_device, (split, split, split, split, PartitionSpec()), split)
    return step(table, squares, routes, gradient, jnp.asarray(rate, table.dtype))


def _descend(table: Array, squares: Array, row: Array, gradient: Array, rate: Array) -> tuple[Array, Array]:
    """The step of distinct rows of a part of the table; others than its rows are ignored."""
    total = squares.at[row].get(mode="fill", fill_value=0) + jnp.mean(gradient * gradient, axis=-1)
    step = rate * gradient / jnp.maximum(jnp.sqrt(total), _TINY)[:, None]
    return table.at[row].add(-step, mode="drop"), squares.at[row].set(total, mode="drop")


def _sums(values: Array, place: Array, count: int) -> Array:
    return jax.ops.segment_sum(values, place, count)


def _routes(items: Array, held: int) -> Routes:
    """Routes of a device's items, where each device holds `held` rows of the table."""
    devices, count = _devices(), len(items)
    rows = devices * held
    distinct, place = jnp.unique(place_of(items, rows), return_inverse=True, size=count, fill_value=rows)
    device, own = distinct // held, distinct % held
    if not _axes():
        unused = jnp.zeros_like(distinct)
        return _as_int32(Routes(place.ravel(), distinct, device, unused, unused, jnp.ones(1)))

    def laid(turns: Array) -> tuple[Array, Array, Array]:
        """Turn and slot of each row, and whether all rows fit."""
        turn = own % turns
        order = jnp.lexsort((turn, device))
        group = (device * turns + turn)[order]
        slot = jnp.zeros(count, jnp.int32).at[order].set(jnp.arange(count) - jnp.searchsorted(group, group))
        return turn, slot, _greatest(jnp.where(distinct < rows, slot, 0)) < _buffer(count)

    def more(state: tuple[Array, tuple[Array, Array, Array]]) -> tuple[Array, tuple[Array, Array, Array]]:
        turns = jnp.minimum(2 * state[0], held)  # with one row a turn they fit
        return turns, laid(turns)

    one = jnp.ones((), jnp.int32)
    turns, (turn, slot, _) = jax.lax.while_loop(lambda state: ~state[1][2], more, (one, laid(one)))
    return _as_int32(Routes(place.ravel(), distinct, device, turn, slot, turns[None]))


def _as_int32(routes: Routes) -> Routes:
    return Routes(*(part.astype(jnp.int32) for part in routes))


def _buffer(count: int) -> int:
    """Rows in the buffer of a pair of devices, where a device has `count` interactions."""
    return min(count, max(LEAST, -(-SPARE * count // _devices())))


def _own_rows(routes: Routes, held: int) -> Array:
    """The row of each of the distinct rows in the part of its device."""
    return routes.distinct % held


def _to_holders(routes: Routes, number: Array, values: Array, empty: int) -> Array:
    """Send a value for each distinct row of a turn to the device that holds it: [devices, buffer, ...], by sender."""
    devices = _devices()
    buffer = jnp.full((devices, _buffer(len(routes.distinct)), *values.shape[1:]), empty, values.dtype)
    device = jnp.where(routes.turn == number, routes.device, devices)  # others are dropped
    return _exchange(buffer.at[device, routes.slot].set(values, mode="drop"))


def _exchange(buffer: Array) -> Array:
    """Send part i of the buffer to device i: the new part i comes from device i."""
    return jax.lax.all_to_all(buffer, _axes(), 0, 0, tiled=True)


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


def _greatest(numbers: Array) -> Array:
    """The greatest number of all devices."""
    return jax.lax.pmax(jnp.max(numbers), _axes())
