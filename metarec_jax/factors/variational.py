"""Half-sweeps of a variational Bayesian factorisation of ratings: users given items, and items given users.

The rating of item ``i`` by user ``u``, standardised over all rows, is

    r_ui = b_i + z_i . t_u + noise,    z_i = (x_i, f_i),    noise ~ N(0, s_i)

with known columns ``x_i`` (a 1, and what is known of the item) and free factors ``f_i``. Priors are
``t_u ~ N(a, C)`` and ``(b_i, f_i) ~ N(M' g_i, diag(psi))`` with features ``g_i``. The posterior is approximated by
independent normal distributions of all users and items (Lim & Teh 2007, "Variational Bayesian approach to movie rating
prediction"; Macau, Simm et al. 2017, for the map ``M`` of features). Users given items and items given users are normal
distributions in closed form, whose parameters are sums over rows of the outer product of one vector ``e`` with itself:
``e = (z_i, r - b_i) / sqrt(s_i)`` for a user, and ``e = (1, t_u, r)`` for an item.

The expected outer product is that of the means, summed exactly, plus the covariance of ``e``. The latter is averaged
over the items or users with similar numbers of ratings, so that a row costs one outer product of vectors, and no
covariance is kept for single users or items. A half-sweep costs rows x width^2 + owners x width^3, where width is the
number of columns.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from metarec_jax.factors.row_products import AXIS, SAME, SHARDED, each_owner, fetch, sharded
from metarec_jax.learner.spd_inverse import inverse


class Other(NamedTuple):
    """What a half-sweep reads of the other side.

    Attributes:
        table: [devices, each, width + 1]: columns of ``e`` but the last; then offset and scale, so that the last column
            of ``e`` is ``offset + scale r``.
        covariance: [kinds, width, width], mean covariance of ``e`` for each kind of the other side.
    """

    table: Array
    covariance: Array


class UserSums(NamedTuple):
    """Sums over the users of a block.

    Attributes:
        moments: [width, width], of the second moments of ``(1, t_u)``, without users without ratings.
        covariance: [kinds, width - 1, width - 1], of the covariances of ``t_u`` of each kind.
    """

    moments: Array
    covariance: Array


class ItemSums(NamedTuple):
    """Sums over the items of a block, without items without ratings.

    Attributes:
        left: [], expected squares of residuals of all rows.
        variance: [1 + free], variances of ``(b_i, f_i)``.
        covariance: [kinds, 1 + free, 1 + free], covariances of ``(b_i, f_i)``, divided by ``s_i``, of each kind.
    """

    left: Array
    variance: Array
    covariance: Array


class ItemPrior(NamedTuple):
    """Prior of the items, and noise.

    Attributes:
        map: ``M``, [features, 1 + free].
        variance: ``psi``, [1 + free].
        noise: [], variance of the noise over all rows.
        doubt: [], rows that the noise over all rows weighs as much as in the noise of an item.
        moments: [1 + free, 1 + free], second moments of ``(1, t_u)`` at the free factors, under the prior of users.
    """

    map: Array
    variance: Array
    noise: Array
    doubt: Array
    moments: Array


def _expected(sums: Array, counts: Array, covariance: Array) -> Array:
    """Expected sums of outer products of the owners of a block, [block, width, width]."""
    return sums[:-1] + jnp.einsum("ok,kab->oab", counts, covariance)


def _by_kind(values: Array, kind: Array, kinds: int, weight: Array) -> Array:
    """Sum values [block, ...] of each kind."""
    share = jax.nn.one_hot(kind, kinds, dtype=values.dtype) * weight[:, None]
    return jnp.einsum("ok,oab->kab", share, values)


@functools.partial(jax.jit, static_argnames="mesh")
def solve_users(
    sums: Array, counts: Array, kind: Array, covariance: Array, mean: Array, precision: Array, *, mesh: Mesh
) -> tuple[Array, UserSums]:
    """Compute the posterior of the users of a block.

    Args:
        sums: [devices, block + 1, width, width], from `gather`.
        counts: [devices, block, kinds], rows of each user by the kind of the item.
        kind: int [devices, block], kind of each user; 0 without ratings.
        covariance: of `Other`.
        mean, precision: ``a`` and the inverse of ``C``.
        mesh: mesh with the axis `AXIS`.

    Returns:
        Posterior means [devices, block, width - 1], and sums.
    """

    def of_user(moments: Array) -> tuple[Array, Array]:
        found = inverse(precision + moments[:-1, :-1])
        return found @ (precision @ mean + moments[:-1, -1]), found

    def of_device(sums, counts, kind, covariance):
        taste, found = each_owner(of_user, (_expected(sums[0], counts[0], covariance),))
        seen = (kind[0] > 0).astype(taste.dtype)
        rows = jnp.concatenate([jnp.ones_like(taste[:, :1]), taste], axis=1) * seen[:, None]
        spread = _by_kind(found, kind[0], covariance.shape[0], seen)
        second = (rows.T @ rows).at[1:, 1:].add(spread.sum(0))
        return taste[None], jax.lax.psum(UserSums(second, spread), AXIS)

    specs = (SHARDED, SHARDED, SHARDED, SAME)
    return sharded(of_device, mesh, specs, (SHARDED, SAME))(sums, counts, kind, covariance)


@functools.partial(jax.jit, static_argnames="mesh")
def solve_items(
    sums: Array,
    counts: Array,
    kind: Array,
    covariance: Array,
    known: Array,
    features: Array,
    noise: Array,
    prior: ItemPrior,
    *,
    mesh: Mesh,
) -> tuple[Array, Array, Array, ItemSums]:
    """Compute the posterior of the items of a block.

    Args:
        sums: [devices, block + 1, width, width], from `gather`.
        counts: [devices, block, kinds], rows of each item by the kind of the user.
        kind: int [devices, block], kind of each item; 0 without ratings.
        covariance: of `Other`.
        known: ``x_i``, [devices, block, known].
        features: ``g_i``, [devices, block, features].
        noise: ``s_i`` before, [devices, block].
        prior: prior of the items.
        mesh: mesh with the axis `AXIS`.

    Returns:
        Posterior means of ``(b_i, f_i)`` [devices, block, 1 + free]; ``s_i``; the variance of ``b_i + z_i . t_u`` that
        comes from the item's own uncertainty, [devices, block]; and sums.
    """

    def of_item(moments: Array, rows: Array, known: Array, features: Array, noise: Array) -> tuple[Array, ...]:
        given = slice(1, 1 + len(known))
        own = jnp.concatenate([jnp.zeros(1, int), jnp.arange(1 + len(known), len(moments) - 1)])
        of_own = moments[own][:, own]
        pull = moments[own, -1] - moments[own, given] @ known
        spread = inverse(jnp.diag(1 / prior.variance) + of_own / noise)
        mean = spread @ (features @ prior.map / prior.variance + pull / noise)
        residual = jnp.concatenate([mean[:1], known, mean[1:], jnp.full_like(mean[:1], -1)])
        left = residual @ moments @ residual + jnp.sum(spread * of_own)
        noise = (left + prior.doubt * prior.noise) / (rows + prior.doubt)
        return mean, spread, left, noise, jnp.sum(spread * prior.moments)

    def of_device(sums, counts, kind, covariance, known, features, noise):
        moments = _expected(sums[0], counts[0], covariance)
        mean, spread, left, after, doubt = each_owner(
            of_item, (moments, jnp.sum(counts[0], axis=1), known[0], features[0], noise[0])
        )
        seen = (kind[0] > 0).astype(after.dtype)
        found = ItemSums(
            jnp.sum(left * seen),
            jnp.einsum("oaa,o->a", spread, seen),
            _by_kind(spread, kind[0], covariance.shape[0], seen / after),
        )
        return mean[None], after[None], doubt[None], jax.lax.psum(found, AXIS)

    specs = (SHARDED, SHARDED, SHARDED, SAME, SHARDED, SHARDED, SHARDED)
    return sharded(of_device, mesh, specs, (SHARDED, SHARDED, SHARDED, SAME))(
        sums, counts, kind, covariance, known, features, noise
    )


@functools.partial(jax.jit, static_argnames="mesh")
def predict(users: Array, items: Array, user: Array, item: Array, *, mesh: Mesh) -> Array:
    """Predict ratings from the posterior means.

    Args:
        users, items: tables of `Other`.
        user, item: int [devices, n], places of users and items.
        mesh: mesh with the axis `AXIS`.

    Returns:
        [devices, n].
    """

    def of_device(users, items, user, item):
        taste, row = fetch(users[0], user[0])[:, 1:-2], fetch(items[0], item[0])
        return ((jnp.sum(taste * row[:, :-2], axis=-1) - row[:, -2]) / row[:, -1])[None]

    return sharded(of_device, mesh, (SHARDED,) * 4, SHARDED)(users, items, user, item)
