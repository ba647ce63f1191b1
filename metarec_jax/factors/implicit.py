"""Factors of clicks and plays: implicit least squares.

The factors ``t_u`` of users and ``f_i`` of items minimise

    sum over clicks of w_ui (1 - t_u . f_i)^2  +  alpha sum over all u, i of (t_u . f_i)^2
        +  sum_u l_u |t_u|^2  +  sum_i l_i |f_i|^2,        l_u = ridge (clicks of u + alpha items)^power

with confidences ``w`` and ``l_i`` alike (Hu, Koren & Volinsky 2008, "Collaborative filtering for implicit feedback
datasets"; Rendle et al. 2021, "Revisiting the performance of iALS on item recommendation benchmarks", section 2). Users
given items, and items given users, are ridge regressions whose matrix is a sum over clicks and ``alpha`` times the Gram
matrix of the other side, so that no negatives are drawn. A half-sweep costs clicks x rank^2 + owners x rank^3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from metarec_jax.factors.row_batches import Layout, Rows, layout, rows_by_owner
from metarec_jax.factors.row_products import AXIS, SHARDED, each_owner, one_device, sharded, sum_rows
from metarec_jax.learner.spd_inverse import inverse


class Penalties(NamedTuple):
    """Weights of the loss.

    Attributes:
        alpha: weight of what was not clicked.
        ridge: weight of the squared factors.
        power: how much the weight of the squared factors grows with clicks.
    """

    alpha: float = 0.3
    ridge: float = 0.006
    power: float = 1.0


DEFAULT = Penalties()


class Clicks(NamedTuple):
    """Fitted factors.

    Attributes:
        users: float [users, rank].
        items: float [items, rank].
    """

    users: np.ndarray
    items: np.ndarray


def fit_clicks(
    user: np.ndarray,
    item: np.ndarray,
    confidence: Float[np.ndarray, " rows"],
    *,
    users: int,
    items: int,
    rank: int,
    penalties: Penalties = DEFAULT,
    sweeps: int = 16,
    mesh: Mesh | None = None,
    watch: Callable[[int], None] = lambda sweep: None,
) -> Clicks:
    """Fit factors to clicks by alternating least squares.

    Args:
        user, item: int [rows], each pair at most once.
        confidence: ``w``, positive; ones where clicks are not counted.
        users, items: numbers of users and items; those without clicks get zeros.
        rank: number of factors.
        penalties: weights of the loss.
        sweeps: number of sweeps.
        mesh: devices that share the tables; None takes one.
        watch: called after each sweep with its number.

    Returns:
        The factors.
    """
    mesh = one_device() if mesh is None else mesh
    of_users, of_items = layout(users, mesh.shape[AXIS]), layout(items, mesh.shape[AXIS])
    held = np.zeros(len(user), bool)
    by_user = rows_by_owner(user, item, confidence, held, of_users, of_items, rank + 1)
    by_item = rows_by_owner(item, user, confidence, held, of_items, of_users, rank + 1)
    start = np.random.default_rng(1).normal(scale=0.1 / np.sqrt(rank), size=(items, rank))
    start[by_item.count == 0] = 0.0
    dtype = jnp.result_type(float)
    place = NamedSharding(mesh, PartitionSpec(AXIS))
    of_item = jax.device_put(of_items.spread(start).astype(dtype), place)
    of_user = of_item
    for sweep in range(sweeps):
        of_user = half_sweep(by_user, of_item, of_items, penalties, mesh)
        of_item = half_sweep(by_item, of_user, of_users, penalties, mesh)
        watch(sweep)
    return Clicks(of_users.joined(of_user), of_items.joined(of_item))


def half_sweep(rows: Rows, other: Array, others: Layout, penalties: Penalties, mesh: Mesh) -> Array:
    """Compute the factors of one side given those of the other.

    Args:
        rows: clicks by owner, their values the confidences.
        other: [devices, each, rank], factors of the other side.
        others: its layout.
        penalties: weights of the loss.
        mesh: mesh with the axis `AXIS`.

    Returns:
        [devices, each, rank].
    """
    table, gram = _table(other), _gram(other)
    place = NamedSharding(mesh, PartitionSpec(AXIS))
    own = rows.layout
    weight = penalties.ridge * (rows.count + penalties.alpha * others.number) ** penalties.power
    ridge = jax.device_put(own.spread(weight, padding=1.0).astype(other.dtype), place)
    alpha, found = jnp.asarray(penalties.alpha, other.dtype), []
    for block in range(own.blocks):
        sums = sum_rows(rows, block, table, True, weighted=True, mesh=mesh)
        some = slice(block * own.block, (block + 1) * own.block)
        found.append(_solve(sums, ridge[:, some], gram, alpha, mesh=mesh))
    return jnp.concatenate(found, axis=1)


def fold_in(
    item: np.ndarray,
    confidence: np.ndarray,
    items: Float[np.ndarray, "items rank"],
    gram: Float[np.ndarray, "rank rank"],
    penalties: Penalties = DEFAULT,
) -> Float[np.ndarray, " rank"]:
    """Compute the factors of a new user.

    Args:
        item: int [clicks], the user's items.
        confidence: [clicks].
        items: factors of all items.
        gram: ``items.T @ items``.
        penalties: weights of the loss.

    Returns:
        The factors.
    """
    own = np.asarray(items[item], np.float64)
    ridge = penalties.ridge * (len(item) + penalties.alpha * len(items)) ** penalties.power
    matrix = own.T @ (own * confidence[:, None]) + penalties.alpha * gram + ridge * np.eye(own.shape[1])
    return np.linalg.solve(matrix, own.T @ confidence)


def fold_in_many(
    user: np.ndarray,
    item: np.ndarray,
    users: int,
    items: Float[np.ndarray, "items rank"],
    penalties: Penalties = DEFAULT,
) -> Float[np.ndarray, "users rank"]:
    """Compute the factors of new users.

    Args:
        user, item: int [rows], clicks, each pair once.
        users: number of users.
        items: factors of all items.
        penalties: weights of the loss.

    Returns:
        The factors; zeros for a user without clicks.
    """
    gram = items.T.astype(np.float64) @ items
    order = np.argsort(user, kind="stable")
    ends = np.cumsum(np.bincount(user, minlength=users))
    found = np.zeros((users, items.shape[1]))
    for number, own in enumerate(np.split(item[order], ends[:-1])):
        if len(own):
            found[number] = fold_in(own, np.ones(len(own)), items, gram, penalties)
    return found


@jax.jit
def _table(factors: Array) -> Array:
    """Columns, offset 1 and scale 0: the vector of a row is ``(f, 1)``."""
    one = jnp.ones_like(factors[..., :1])
    return jnp.concatenate([factors, one, 0 * one], axis=-1)


@jax.jit
def _gram(factors: Array) -> Array:
    return jnp.einsum("dik,dim->km", factors, factors)


@functools.partial(jax.jit, static_argnames="mesh")
def _solve(sums: Array, ridge: Array, gram: Array, alpha: Array, *, mesh: Mesh) -> Array:
    def of_owner(moments: Array, ridge: Array) -> tuple[Array]:
        matrix = moments[:-1, :-1] + alpha * gram + ridge * jnp.eye(len(gram), dtype=gram.dtype)
        return (inverse(matrix) @ moments[:-1, -1],)

    def of_device(sums: Array, ridge: Array) -> Array:
        return each_owner(of_owner, (sums[0, :-1], ridge[0]))[0][None]

    return sharded(of_device, mesh, (SHARDED, SHARDED), SHARDED)(sums, ridge)
