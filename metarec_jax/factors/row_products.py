"""Sums of outer products of rows by their owner, over tables that are sharded over devices.

Tables are sharded over the first axis of a mesh. Each device sums the rows of its own owners; the rows of the other
side's table are exchanged between devices (Mehta et al. 2021, "ALX: Large scale matrix factorization on TPUs", section
4.2).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from metarec_jax.core.over_users import over_users
from metarec_jax.factors.row_batches import Batch, Rows

AXIS = "shards"
"""Axis of the mesh over which tables are sharded."""
SHARDED, SAME = PartitionSpec(AXIS), PartitionSpec()
"""Partition specs of a table, and of what all devices have."""
_AT_ONCE = 128
"""Owners that are solved at once, few enough for a processor's cache."""


def one_device() -> Mesh:
    """Make a mesh of the first device of this process."""
    return jax.make_mesh((1,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:1])


def fetch(table: Array, place: Array) -> Array:
    """Read rows of a sharded table, from within a program of one device.

    Every device sends the places that it asks for to all, and gets the sum of what all have of them, of which one part
    is the row and all others are 0.

    Args:
        table: [each, columns], this device's part.
        place: int [...], places in the joined table.

    Returns:
        [..., columns].
    """
    devices = jax.lax.axis_size(AXIS)
    if devices == 1:
        return table[place]
    each = table.shape[0]
    asked = jax.lax.all_gather(place.ravel(), AXIS) - jax.lax.axis_index(AXIS) * each
    here = (asked >= 0) & (asked < each)
    found = jnp.where(here[..., None], table[jnp.where(here, asked, 0)], 0)
    return jax.lax.psum_scatter(found, AXIS).reshape(*place.shape, table.shape[1])


def sharded(function: Callable, mesh: Mesh, arguments: tuple, results: Any) -> Callable:
    """Make a program of all devices of one of each device.

    Args:
        function: program of one device.
        mesh: the devices.
        arguments, results: partition specs, `SHARDED` or `SAME`.

    Returns:
        A function of arrays of all devices.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=arguments, out_specs=results, check_vma=False)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def gather(sums: Array, table: Array, batch: Batch, everything: Array, *, mesh: Mesh) -> Array:
    """Add the outer products of the rows of a batch to the sums of their owners.

    The vector of a row has the columns of the other side's row in the table, and ``offset + scale value``.

    Args:
        sums: [devices, block + 1, width, width].
        table: [devices, each, width + 1]: columns, offset and scale.
        batch: rows.
        everything: [], whether rows that are held out are added.
        mesh: mesh with the axis `AXIS`.

    Returns:
        The sums.
    """

    def of_device(sums: Array, table: Array, batch: Batch, everything: Array) -> Array:
        batch = Batch(*(part[0] for part in batch))
        real = ~jnp.isnan(batch.value) & (everything | (batch.other >= 0))
        rows = fetch(table[0], jnp.where(batch.other < 0, -1 - batch.other, batch.other))
        value = jnp.where(real, batch.value, 0).astype(rows.dtype)
        last = rows[..., -2] + rows[..., -1] * value
        rows = jnp.concatenate([rows[..., :-2], last[..., None]], axis=-1)
        products = jnp.einsum("plk,plm->pkm", rows * real.astype(rows.dtype)[..., None], rows)
        return sums[0].at[batch.owner].add(products)[None]

    batch = Batch(*map(jnp.asarray, batch))
    return sharded(of_device, mesh, (SHARDED, SHARDED, SHARDED, SAME), SHARDED)(sums, table, batch, everything)


def sum_rows(rows: Rows, block: int, table: Array, everything: bool, *, mesh: Mesh) -> Array:
    """Sum the outer products of all rows of the owners of a block, as in `gather`.

    Args:
        rows: rows by owner.
        block: number of the block.
        table: [devices, each, width + 1]: columns, offset and scale.
        everything: whether rows that are held out are added.
        mesh: mesh with the axis `AXIS`.

    Returns:
        [devices, block + 1, width, width]; the last place is that of padding.
    """
    width = table.shape[-1] - 1
    shape = (rows.layout.devices, rows.layout.block + 1, width, width)
    sums, added = jnp.zeros(shape, table.dtype, device=NamedSharding(mesh, SHARDED)), np.asarray(everything)
    for batch in rows.batches[block]:
        sums = gather(sums, table, batch, added, mesh=mesh)
    return sums


def each_owner(function: Callable, block: tuple) -> tuple:
    """Map a function of one owner over a block, few owners at once.

    Args:
        function: function of the arrays of one owner.
        block: arrays with a leading axis of owners, whose number is a power of 2.

    Returns:
        Results with a leading axis of owners.
    """
    return over_users(lambda owner: function(*owner), block, at_once=min(_AT_ONCE, block[0].shape[0]))
