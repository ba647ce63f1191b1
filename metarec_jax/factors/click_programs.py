"""Programs of a half-sweep of implicit least squares, in a basis in which the other side's Gram matrix is diagonal."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from metarec_jax.factors.row_batches import Batch
from metarec_jax.factors.row_products import SHARDED, each_owner, fetch, sharded
from metarec_jax.learner.spd_inverse import solve


class Sums(NamedTuple):
    """Sums over the clicks of the owners of a block, with a place more for padding.

    Attributes:
        matrix: ``F' W F``, [devices, block + 1, rank, rank].
        pull: ``F' w``, [devices, block + 1, rank].
    """

    matrix: Array
    pull: Array


@jax.jit
def gram_of(factors: Array) -> Array:
    """Compute the Gram matrix [rank, rank] of factors [devices, each, rank]."""
    return jnp.einsum("dik,dim->km", factors, factors)


@jax.jit
def rotated(factors: Array, basis: Array) -> Array:
    """Write factors in another basis.

    Args:
        factors: [devices, each, rank].
        basis: [rank, rank], a vector of the basis in each column.

    Returns:
        [devices, each, rank].
    """
    return factors @ basis


@functools.partial(jax.jit, static_argnames=("devices", "block", "mesh"))
def zero_sums(devices: int, block: int, table: Array, *, mesh: Mesh) -> Sums:
    """Make sums of no clicks.

    Args:
        devices: number of devices.
        block: owners of a block.
        table: factors of the other side, of which the type and the number of columns are taken.
        mesh: mesh with the axis `AXIS`.

    Returns:
        The sums.
    """
    rank, place = table.shape[-1], NamedSharding(mesh, SHARDED)
    shapes = (devices, block + 1, rank, rank), (devices, block + 1, rank)
    return Sums(*(jax.lax.with_sharding_constraint(jnp.zeros(shape, table.dtype), place) for shape in shapes))


def _read(table: Array, batch: Batch) -> tuple[Array, Array, Array]:
    """Owners, rows of the other side and confidences of one device's batch; zeros for padding."""
    owner, other, value = (part[0] for part in batch)
    return owner, fetch(table[0], other), jnp.nan_to_num(value).astype(table.dtype)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def add_clicks(sums: Sums, table: Array, batch: Batch, *, mesh: Mesh) -> Sums:
    """Add the clicks of a batch to the sums of their owners.

    Args:
        sums: the sums, whose memory is used for the result.
        table: [devices, each, rank], factors of the other side.
        batch: clicks.
        mesh: mesh with the axis `AXIS`.

    Returns:
        The sums.
    """

    def of_device(sums: Sums, table: Array, batch: Batch) -> Sums:
        owner, rows, weight = _read(table, batch)
        weighted = rows * weight[..., None]
        matrix = sums.matrix[0].at[owner].add(jnp.einsum("plk,plm->pkm", weighted, rows))
        pull = sums.pull[0].at[owner].add(jnp.sum(weighted, axis=1))
        return Sums(matrix[None], pull[None])

    return sharded(of_device, mesh, (SHARDED, SHARDED, SHARDED), SHARDED)(sums, table, batch)


@functools.partial(jax.jit, static_argnames="mesh")
def solve_sums(sums: Sums, ridge: Array, diagonal: Array, basis: Array, *, mesh: Mesh) -> Array:
    """Compute the factors of the owners of a block: ``(F' W F + diag(diagonal + ridge))^-1 F' w``.

    Args:
        sums: from `add_clicks`.
        ridge: [devices, block], weight of the squared factors of each owner.
        diagonal: [rank], weighted eigenvalues of the Gram matrix of the other side.
        basis: [rank, rank], from the basis of the eigenvectors to that of the factors.
        mesh: mesh with the axis `AXIS`.

    Returns:
        [devices, block, rank].
    """

    def of_owner(matrix: Array, pull: Array, ridge: Array) -> tuple[Array]:
        return (solve(matrix + jnp.diag(diagonal + ridge), pull[:, None])[:, 0],)

    def of_device(sums: Sums, ridge: Array) -> Array:
        return (each_owner(of_owner, (sums.matrix[0, :-1], sums.pull[0, :-1], ridge[0]))[0] @ basis)[None]

    return sharded(of_device, mesh, (SHARDED, SHARDED), SHARDED)(sums, ridge)


@functools.partial(jax.jit, static_argnames="mesh")
def solve_by_click(table: Array, batch: Batch, ridge: Array, diagonal: Array, basis: Array, *, mesh: Mesh) -> Array:
    """Compute the factors of the owners of a block with few clicks, by a system of clicks x clicks.

    Args:
        table: [devices, each, rank], factors of the other side.
        batch: a piece for each owner.
        ridge, diagonal, basis, mesh: as for `solve_sums`.

    Returns:
        [devices, block, rank].
    """

    def of_owner(rows: Array, weight: Array, ridge: Array) -> tuple[Array]:
        root = jnp.sqrt(weight)
        rows = rows * root[:, None]
        scaled = rows / (diagonal + ridge)[None]
        return (solve(jnp.eye(len(root), dtype=rows.dtype) + scaled @ rows.T, root[:, None])[:, 0] @ scaled,)

    def of_device(table: Array, batch: Batch, ridge: Array) -> Array:
        _, rows, weight = _read(table, batch)
        return (each_owner(of_owner, (rows, weight, ridge[0]))[0] @ basis)[None]

    return sharded(of_device, mesh, (SHARDED, SHARDED, SHARDED), SHARDED)(table, batch, ridge)
