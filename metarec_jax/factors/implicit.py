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

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.global_arrays import host, put
from metarec_jax.core.scratch import Scratch
from metarec_jax.core.stored_columns import Column, blocks, computed, count_values
from metarec_jax.factors.click_programs import add_clicks, gram_of, rotated, solve_by_click, solve_sums, zero_sums
from metarec_jax.factors.row_batches import Layout, Rows, layout, rows_by_owner
from metarec_jax.factors.row_products import AXIS, SHARDED, one_device
from metarec_jax.factors.sorted_rows import scratch_for

_FLOATS_OF_BLOCK = 1 << 20
"""Greatest number of elements of the matrices of the owners of a block."""
_LENGTHS = (64, 16)
"""Clicks of a piece: with longer ones, rows of a batch leave a processor's cache; shorter ones add more matrices."""


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
    user: Column,
    item: Column,
    confidence: Column,
    *,
    users: int,
    items: int,
    rank: int,
    penalties: Penalties = DEFAULT,
    sweeps: int = 16,
    mesh: Mesh | None = None,
    watch: Callable[[int], None] = lambda sweep: None,
    folder: Path | None = None,
) -> Clicks:
    """Fit factors to clicks by alternating least squares.

    Args:
        user, item: int [rows], each pair at most once. Columns are read in slices.
        confidence: float [rows], ``w``, positive; ones where clicks are not counted.
        users, items: numbers of users and items; those without clicks get zeros.
        rank: number of factors.
        penalties: weights of the loss.
        sweeps: number of sweeps.
        mesh: devices that share the tables; None takes one.
        watch: called after each sweep with its number.
        folder: where files are made if there are many rows; None takes the folder for temporary files.

    Returns:
        The factors; zeros where there are no clicks at all.

    Raises:
        MetarecError: a weight of the loss or a confidence is negative, zero or not finite.
    """
    _check(confidence, penalties)
    if not len(user):
        return Clicks(np.zeros((users, rank)), np.zeros((items, rank)))
    mesh = one_device() if mesh is None else mesh
    number_of_user, number_of_item = by_clicks(user, users), by_clicks(item, items)
    of_users, of_items = click_layout(users, rank, mesh), click_layout(items, rank, mesh)
    pairs = (
        computed(user, lambda some: number_of_user[some], np.int32),
        computed(item, lambda some: number_of_item[some], np.int32),
    )
    scratch = scratch_for(len(user), folder)
    by_user = group_clicks(*pairs, confidence, of_users, of_items, rank, scratch)
    by_item = group_clicks(*pairs[::-1], confidence, of_items, of_users, rank, scratch)
    start = np.random.default_rng(1).normal(scale=0.1 / np.sqrt(rank), size=(items, rank))[np.argsort(number_of_item)]
    start[by_item.count == 0] = 0.0
    of_item = put(of_items.spread(start).astype(jnp.result_type(float)), NamedSharding(mesh, SHARDED))
    of_user = of_item
    for sweep in range(sweeps):
        of_user = half_sweep(by_user, of_item, of_items, penalties, mesh)
        of_item = half_sweep(by_item, of_user, of_users, penalties, mesh)
        watch(sweep)
    return Clicks(of_users.joined(of_user)[number_of_user], of_items.joined(of_item)[number_of_item])


def _check(confidence: Column, penalties: Penalties) -> None:
    """Check that every half-sweep has one minimum."""
    for name, value, least in (("ridge", penalties.ridge, 1e-12), ("alpha", penalties.alpha, 0.0)):
        if not (np.isfinite(value) and value >= least):
            raise MetarecError(
                f"{name} is {value}, but a weight of the loss of clicks is at least {least:g} and finite"
            )
    for some in blocks(len(confidence)):
        part = np.asarray(confidence[some])
        wrong = np.flatnonzero(~(np.isfinite(part) & (part > 0)))
        if len(wrong):
            raise MetarecError(
                f"the confidence of click {some.start + wrong[0]} is {part[wrong[0]]}: confidences are positive and "
                "finite, so leave out rows that count nothing"
            )


def by_clicks(owner: Column, owners: int) -> np.ndarray:
    """Number owners by decreasing clicks, so that the owners of a block have similarly many.

    Args:
        owner: int [rows], owner of each click.
        owners: number of owners.

    Returns:
        int32 [owners], the number of each.
    """
    number = np.empty(owners, np.int32)
    number[np.argsort(-count_values(owner, owners), kind="stable")] = np.arange(owners, dtype=np.int32)
    return number


def click_layout(number: int, rank: int, mesh: Mesh) -> Layout:
    """Lay out a table of users or items for half-sweeps, in blocks whose matrices fit in a processor's cache.

    Args:
        number: users or items.
        rank: number of factors.
        mesh: mesh with the axis `AXIS`.

    Returns:
        The layout.
    """
    return layout(number, mesh.shape[AXIS], 1 << int(np.log2(max(_FLOATS_OF_BLOCK // rank**2, 1))))


def group_clicks(
    owner: Column,
    other: Column,
    confidence: Column,
    owners: Layout,
    others: Layout,
    rank: int,
    scratch: Scratch | None = None,
) -> Rows:
    """Group clicks by owner for `half_sweep`.

    Args:
        owner, other: int [rows], numbers of both sides by decreasing clicks.
        confidence: ``w``, positive.
        owners, others: layouts of both sides, from `click_layout`.
        rank: number of factors.
        scratch: keeps the clicks; None keeps them in memory.

    Returns:
        The clicks; blocks of owners with at most as many as factors are solved in the space of clicks.
    """
    held = np.zeros(len(owner), bool)
    return rows_by_owner(
        owner,
        other,
        confidence,
        held,
        owners,
        others,
        rank,
        lengths=_LENGTHS,
        most_whole=rank,
        scratch=scratch,
    )


def half_sweep(rows: Rows, other: Array, others: Layout, penalties: Penalties, mesh: Mesh) -> Array:
    """Compute the factors of one side given those of the other.

    In the basis in which the Gram matrix ``G`` of the other side is diagonal, the matrix of an owner is ``D + F' W F``
    with a diagonal ``D``. Owners with at most as many clicks as factors are solved by
    ``(D + F' W F)^-1 F' W = D^-1 F' (W^-1 + F D^-1 F')^-1``, at the cost of a matrix of clicks x clicks.

    Args:
        rows: clicks by owner, from `group_clicks`.
        other: [devices, each, rank], factors of the other side.
        others: its layout.
        penalties: weights of the loss.
        mesh: mesh with the axis `AXIS`.

    Returns:
        [devices, each, rank].
    """
    with jax.default_matmul_precision("highest"):  # a TPU multiplies float32 in bfloat16 by default
        return _half_sweep(rows, other, others, penalties, mesh)


def _half_sweep(rows: Rows, other: Array, others: Layout, penalties: Penalties, mesh: Mesh) -> Array:
    size, basis = np.linalg.eigh(np.asarray(host(gram_of(other)), np.float64))
    diagonal = np.asarray(penalties.alpha * np.maximum(size, 0.0), other.dtype)
    table, basis = rotated(other, np.asarray(basis, other.dtype)), np.asarray(basis.T, other.dtype)
    own = rows.layout
    weight = penalties.ridge * (rows.count + penalties.alpha * others.number) ** penalties.power
    ridge = own.spread(weight, padding=1.0).astype(other.dtype)
    found = []
    for block in range(own.blocks):
        own_ridge = ridge[:, block * own.block : (block + 1) * own.block]
        if rows.whole[block]:
            (batch,) = rows.batches[block]
            found.append(solve_by_click(table, batch, own_ridge, diagonal, basis, mesh=mesh))
            continue
        sums = zero_sums(own.devices, own.block, table, mesh=mesh)
        for batch in rows.batches[block]:
            sums = add_clicks(sums, table, batch, mesh=mesh)
        found.append(solve_sums(sums, own_ridge, diagonal, basis, mesh=mesh))
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
    """Compute the factors of new users, all in one half-sweep.

    Args:
        user, item: int [rows], clicks, each pair once.
        users: number of users.
        items: factors of all items.
        penalties: weights of the loss.

    Returns:
        The factors; zeros for a user without clicks.
    """
    mesh, rank = one_device(), items.shape[1]
    owners, others = click_layout(users, rank, mesh), click_layout(len(items), rank, mesh)
    number = by_clicks(user, users)
    rows = group_clicks(number[user], item, np.ones(len(user), np.float32), owners, others, rank)
    table = jnp.asarray(others.spread(items).astype(jnp.result_type(float)))
    return owners.joined(half_sweep(rows, table, others, penalties, mesh))[number]
