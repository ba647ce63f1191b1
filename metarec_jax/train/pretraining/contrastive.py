"""Items that one user likes are drawn together: likes of many users, read from the words of items alone.

For a user u, two items i and j that u likes, and the items k that other users of the batch like,

    loss(u, i, j) = -log( exp(s_ij) / (exp(s_ij) + sum_k n_k exp(s_ik)) ),   s = cosine / temperature

(InfoNCE: van den Oord et al. 2018, arXiv 1807.03748, equation 4). n_k is the number of those users: a negative counts
as often as it is liked, exactly as often as a positive. Then what s tends to is log p(j | i) / p(j) (equation 5 there):
how much more j is liked by those who like i, and not how popular j is. Negatives that all count alike would teach
popularity, which item statistics know better. What u likes is no negative; what u saw and did not like may be one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.types import Array as AnyArray
from metarec_jax.train.pretraining.mlm import Sum

FAR = -1e9
"""Score of what is no negative."""


class Liked(NamedTuple):
    """What the users of a batch like, by slots of a table of embeddings.

    Attributes:
        slot: int32 [users, liked].
        anchor: float32 [users, liked], 1 where others are drawn to this item.
        target: float32 [users, liked], 1 where this item is drawn to others.
        negative: float32 [users, slots], how much a slot counts as a negative of a user.
    """

    slot: AnyArray
    anchor: AnyArray
    target: AnyArray
    negative: AnyArray


def contrastive_loss(embeddings: Float[Array, "slots hidden"], liked: Liked, temperature: float) -> Sum:
    """The loss of all pairs, and their weight; every anchor weighs 1, however many targets it has.

    Args:
        embeddings: of any length; those that nothing was encoded for are 0, and are no slots of `liked`.
        liked: which of them belong together.
        temperature: what cosines are divided by.
    """
    square = jnp.sum(embeddings * embeddings, axis=-1, keepdims=True)
    unit = embeddings * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
    slot = jnp.asarray(liked.slot)
    near = unit[slot] @ unit.T / temperature
    times = jnp.asarray(liked.negative)[:, None, :]
    # A user without any negative has no -inf, whose gradient would be NaN.
    away = jax.nn.logsumexp(jnp.where(times > 0, near + jnp.log(jnp.maximum(times, 1e-30)), FAR), axis=2, keepdims=True)
    users, likes = slot.shape
    pair = jnp.take_along_axis(near, jnp.broadcast_to(slot[:, None, :], (users, likes, likes)), axis=2)
    # Two items with one text are one slot: there is nothing to draw together.
    counts = liked.anchor[:, :, None] * liked.target[:, None, :] * (slot[:, :, None] != slot[:, None, :])
    weight = counts / jnp.maximum(counts.sum(axis=2, keepdims=True), 1)
    loss = jnp.logaddexp(pair, away) - pair
    return Sum((loss * weight).sum(), weight.sum())
