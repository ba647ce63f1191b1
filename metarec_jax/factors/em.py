"""How the tastes of users covary over items, learned from their ratings: a Gaussian process whose kernel is learned.

The ratings of a user are ``mean + f + noise``, with ``f ~ N(0, K)`` over all items, drawn anew for each user. ``K`` is
the mode under an inverse Wishart prior around a kernel ``K0`` that only items' own features make, found by expectation
maximisation (Yu, Tresp & Schwaighofer 2005, "Learning Gaussian processes from multiple tasks", section 4; the prior on
the mean is a Gaussian process of its own here):

    K <- (sum_u E[f_u f_u'] + strength K0) / (users + strength)

Nothing of items x items is made for a user: with ``A_u`` the inverse covariance of a user's ratings and ``a_u`` its
product with what they differ from the mean by, ``sum_u E[f_u f_u'] = U K - K B K`` where B adds up ``A_u - a_u a_u'``
at the user's items.
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
"""Numbers that the covariances of one batch of users may have."""
_USERS_AT_ONCE = 64
LEAST = 1e-4
"""Of the variance of an item that factors leave."""


class Rated(NamedTuple):
    """What some users rated, padded to one length.

    Attributes:
        item: int32 [users, rated], 0 where padded.
        rating: float32 [users, rated].
        mask: float32 [users, rated].
    """

    item: np.ndarray
    rating: np.ndarray
    mask: np.ndarray


class Learned(NamedTuple):
    """A kernel.

    Attributes:
        kernel: float32 [items, items].
        noise: variance of a rating around what the user feels.
    """

    kernel: Array
    noise: Array


def batches(user: np.ndarray, item: np.ndarray, rating: np.ndarray) -> list[Rated]:
    """The rows of a data set in batches of users of about the same number of ratings, padded to powers of 2, and with
    users who rated nothing.

    Args:
        user, item: int [rows].
        rating: float [rows].
    """
    order = np.argsort(user, kind="stable")
    _, start, count = np.unique(user[order], return_index=True, return_counts=True)
    length = 1 << np.ceil(np.log2(np.maximum(count, 8))).astype(int)
    found = []
    for size in map(int, np.unique(length)):
        # All batches of a length have one shape, whatever the data: one compilation does for every fold.
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
    """The kernel and the noise after some iterations.

    Args:
        rated: what users rated, from `batches`.
        mean: what is expected of each item.
        start: ``K0``.
        noise: variance that the noise starts from.
        strength: users that ``K0`` counts as much as.
        iterations: 0 leaves everything as it is.
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
    """Of the ratings of one user; of padded ones, the identity."""
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
    """The kernel as factors of few columns, and a variance of its own for each item: ``K ~ F F' + diag(rest)``.

    Alternately the best factors of ``K - diag(rest)``, by subspace iteration, and the rest of the diagonal (principal
    factor analysis; Harman 1976, "Modern factor analysis", chapter 8). It starts from the same directions always.

    Returns:
        Factors [items, rank], ordered from the strongest on, and the rest [items].
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
    return jnp.maximum(jnp.diagonal(kernel) - jnp.sum(jnp.square(factors), axis=1), LEAST)


def _ritz(kernel: Array, basis: Array, rest: Array, rank: int) -> Array:
    small = basis.T @ (kernel @ basis - rest[:, None] * basis)
    values, vectors = jnp.linalg.eigh((small + small.T) / 2)
    order = jnp.argsort(-values)[:rank]
    return basis @ vectors[:, order] * jnp.sqrt(jnp.maximum(values[order], 0.0))[None]
