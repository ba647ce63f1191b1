"""Covariance of users' tastes over items: a Gaussian process whose kernel is learned from ratings.

The ratings of a user are ``mean + f + noise``, with ``f ~ N(0, K)`` over all items, independent for each user. ``K`` is
the mode of its posterior under an inverse Wishart prior around a kernel ``K0`` of the items' features, found by
expectation maximisation (Yu, Tresp & Schwaighofer 2005, "Learning Gaussian processes from multiple tasks", section 4;
here the mean is fixed, with a Gaussian process prior of its own):

    K <- (sum_u E[f_u f_u'] + strength K0) / (users + strength)

No matrix of items x items is computed for a single user: ``sum_u E[f_u f_u'] = U K - K B K`` for U users, where ``B``
sums ``A_u - a_u a_u'`` at the items of each user, ``A_u`` is the inverse covariance of the user's ratings, and ``a_u``
is the product of ``A_u`` with the ratings' deviations from the mean.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.core.over_users import over_users

_FLOATS_AT_ONCE = 1 << 22
"""Greatest number of elements of the covariances of one batch of users."""
_USERS_AT_ONCE = 64
LEAST = 1e-4
"""Least residual variance of an item."""


class Rated(NamedTuple):
    """Ratings of some users, padded to one length.

    Attributes:
        item: int32 [users, rated], row of the kernel; 0 where padded.
        rating: float32 [users, rated], 0 where padded.
        mask: float32 [users, rated], 0 where padded.
    """

    item: np.ndarray
    rating: np.ndarray
    mask: np.ndarray


class Learned(NamedTuple):
    """A fitted kernel.

    Attributes:
        kernel: float32 [items, items], covariance of a user's expected ratings of items.
        noise: float32 [], variance of a rating around the user's expected rating.
    """

    kernel: Array
    noise: Array


def batches(user: np.ndarray, item: np.ndarray, rating: np.ndarray) -> list[Rated]:
    """Divide ratings into batches of users with similar numbers of ratings.

    Users are padded to a power of 2 of ratings, and batches with users without ratings.

    Args:
        user, item: int [rows], user of each rating, and row of its item in the kernel.
        rating: float [rows].

    Returns:
        The batches, by increasing length.
    """
    order = np.argsort(user, kind="stable")
    _, start, count = np.unique(user[order], return_index=True, return_counts=True)
    length = 1 << np.ceil(np.log2(np.maximum(count, 8))).astype(int)
    found = []
    for size in map(int, np.unique(length)):
        # All batches of a length have the same shape for any data, so that all folds share one compilation.
        at_once = min(max(_FLOATS_AT_ONCE // size**2, 1), _USERS_AT_ONCE)
        members = np.flatnonzero(length == size)
        for first in range(0, len(members), at_once):
            some = members[first : first + at_once]
            batch = _padded(order, item, rating, start[some], count[some], size)
            found.append(Rated(*(np.pad(leaf, ((0, at_once - len(some)), (0, 0))) for leaf in batch)))
    return found


def _padded(
    order: np.ndarray, item: np.ndarray, rating: np.ndarray, start: np.ndarray, count: np.ndarray, length: int
) -> Rated:
    real = np.arange(length) < count[:, None]
    row = order[np.where(real, start[:, None] + np.arange(length), 0)]
    return Rated(
        np.where(real, item[row], 0).astype(np.int32),
        np.where(real, rating[row], 0).astype(np.float32),
        real.astype(np.float32),
    )


def learn(
    rated: list[Rated],
    mean: Float[np.ndarray, " items"],
    start: Float[np.ndarray, "items items"],
    *,
    noise: float,
    strength: float,
    iterations: int,
) -> Learned:
    """Fit the kernel and the noise variance by expectation maximisation.

    Args:
        rated: ratings by user, from `batches`.
        mean: mean rating of each item.
        start: ``K0``, which is also the initial kernel.
        noise: initial variance of the noise.
        strength: weight of the prior around ``K0``, in users.
        iterations: number of iterations; 0 returns the initial values.

    Returns:
        The kernel and the noise variance.
    """
    users = sum(float(batch.mask[:, 0].sum()) for batch in rated)
    rows = sum(float(batch.mask.sum()) for batch in rated)
    first = jnp.asarray(start, jnp.float32)
    expected = jnp.asarray(mean, jnp.float32)
    kernel, variance = first, jnp.float32(noise)
    for _ in range(iterations):
        gathered, squares = jnp.zeros_like(first), jnp.zeros(())
        for batch in rated:
            gathered, squares = _gather(gathered, squares, kernel, variance, expected, batch)
        kernel = _update(kernel, first, gathered, jnp.float32(users), jnp.float32(strength))
        variance = squares / rows
    return Learned(kernel, variance)


def covariance(kernel: Array, noise: Array | float, item: Array, mask: Array) -> Float[Array, "rated rated"]:
    """Compute the covariance of the ratings of one user.

    Args:
        kernel: [items, items].
        noise: variance of the noise.
        item: int [rated], the rated items.
        mask: [rated], 0 where padded.

    Returns:
        The covariance; rows and columns of padding are those of the identity.
    """
    real = mask[:, None] * mask[None, :]
    return kernel[item[:, None], item[None, :]] * real + jnp.diag(jnp.where(mask > 0, noise, 1.0))


@functools.partial(jax.jit, donate_argnums=0)
def _gather(gathered: Array, squares: Array, kernel: Array, noise: Array, mean: Array, rated: Rated) -> tuple:
    def one(rated: Rated) -> tuple[Array, Array]:
        item, rating, mask = map(jnp.asarray, rated)
        inverse = jnp.linalg.inv(covariance(kernel, noise, item, mask))
        pull = inverse @ ((rating - mean[item]) * mask)
        # E[(r - mean - f)^2] = (noise a)^2 + noise - noise^2 A
        left = jnp.square(noise * pull) + noise - jnp.square(noise) * jnp.diagonal(inverse)
        real = mask[:, None] * mask[None, :]
        return (inverse - jnp.outer(pull, pull)) * real, jnp.sum(left * mask)

    rated = jax.tree.map(jnp.asarray, rated)
    parts, left = over_users(one, rated)
    item = rated.item
    return gathered.at[item[:, :, None], item[:, None, :]].add(parts), squares + jnp.sum(left)


@functools.partial(jax.jit, donate_argnums=2)
def _update(kernel: Array, first: Array, gathered: Array, users: Array, strength: Array) -> Array:
    new = (users * kernel - kernel @ gathered @ kernel + strength * first) / (users + strength)
    return (new + new.T) / 2


@functools.partial(jax.jit, static_argnames=("rank", "turns"))
def low_rank(kernel: Float[Array, "items items"], *, rank: int, turns: int = 20) -> tuple[Array, Array]:
    """Approximate a kernel by factors and a diagonal, ``K ~ F F' + diag(rest)``.

    Alternates between the best factors of ``K - diag(rest)``, by subspace iteration, and the rest of the diagonal
    (principal factor analysis; Harman 1976, "Modern factor analysis", chapter 8). The initial directions are fixed.

    Args:
        kernel: positive semidefinite.
        rank: number of factors; at most the number of items.
        turns: number of alternations.

    Returns:
        Factors [items, rank] by decreasing eigenvalue, and the rest [items], at least `LEAST`.
    """
    items = kernel.shape[0]
    wide = min(rank + 8, items)
    basis = jax.random.normal(jax.random.key(0), (items, wide))

    def turn(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        before, rest = carry
        basis = jnp.linalg.qr(kernel @ before - rest[:, None] * before)[0]
        factors = _ritz(kernel, basis, rest, rank)
        return (basis, _left(kernel, factors)), None

    (basis, rest), _ = jax.lax.scan(turn, (basis, jnp.zeros(items)), length=turns)
    factors = _ritz(kernel, basis, rest, rank)
    return factors, _left(kernel, factors)


def _left(kernel: Array, factors: Array) -> Array:
    """Residual variance of each item, [items]."""
    return jnp.maximum(jnp.diagonal(kernel) - jnp.sum(jnp.square(factors), axis=1), LEAST)


def _ritz(kernel: Array, basis: Array, rest: Array, rank: int) -> Array:
    """Best `rank` factors of ``kernel - diag(rest)`` within the span of `basis`, [items, rank] (Rayleigh-Ritz)."""
    small = basis.T @ (kernel @ basis - rest[:, None] * basis)
    values, vectors = jnp.linalg.eigh((small + small.T) / 2)
    order = jnp.argsort(-values)[:rank]
    return basis @ vectors[:, order] * jnp.sqrt(jnp.maximum(values[order], 0.0))[None]
