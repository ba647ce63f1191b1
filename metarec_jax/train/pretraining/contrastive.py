"""Contrastive loss that pulls together the text embeddings of items that one user likes.

For a user u, two items i and j that u likes, and the items k that other users of the batch like,

    loss(u, i, j) = -log( exp(s_ij) / (exp(s_ij) + sum_k n_k exp(s_ik)) ),   s = cosine / temperature

(InfoNCE: van den Oord et al. 2018, arXiv 1807.03748, equation 4). n_k is the number of those users: an item is a
negative as often as it is a positive. The optimal s is then log p(j | i) / p(j) (equation 5 there), which measures how
much more j is liked by users who like i, independent of the popularity of j. With equally weighted negatives, s would
also encode popularity, which item statistics describe better. Items that u likes are not negatives; items that u
interacted with and did not like may be.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.types import Array as AnyArray
from metarec_jax.train.pretraining.mlm import Sum

FAR = -1e9
"""Score of slots that are not negatives."""


class Liked(NamedTuple):
    """Liked items of the users of a batch, as slots of a table of embeddings.

    Attributes:
        slot: int32 [users, liked], slot of each liked item.
        anchor: float32 [users, liked], 1 where the item is the anchor i of pairs.
        target: float32 [users, liked], 1 where the item is the positive j of pairs.
        negative: float32 [users, slots], weight of each slot as a negative of each user.
    """

    slot: AnyArray
    anchor: AnyArray
    target: AnyArray
    negative: AnyArray


def contrastive_loss(embeddings: Float[Array, "slots hidden"], liked: Liked, temperature: float) -> Sum:
    """Compute the loss of all pairs; every anchor has weight 1 for any number of targets.

    Args:
        embeddings: embeddings, which are scaled to unit length; unused slots are 0.
        liked: liked items of each user.
        temperature: divisor of the cosines.

    Returns:
        Sum of the losses, and sum of the weights.
    """
    square = jnp.sum(embeddings * embeddings, axis=-1, keepdims=True)
    unit = embeddings * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
    slot = jnp.asarray(liked.slot)
    near = unit[slot] @ unit.T / temperature
    times = jnp.asarray(liked.negative)[:, None, :]
    # A finite score for users without negatives, since the gradient of -inf would be NaN.
    away = jax.nn.logsumexp(jnp.where(times > 0, near + jnp.log(jnp.maximum(times, 1e-30)), FAR), axis=2, keepdims=True)
    users, likes = slot.shape
    pair = jnp.take_along_axis(near, jnp.broadcast_to(slot[:, None, :], (users, likes, likes)), axis=2)
    # Two items with the same text share a slot, and are not a pair.
    counts = liked.anchor[:, :, None] * liked.target[:, None, :] * (slot[:, :, None] != slot[:, None, :])
    weight = counts / jnp.maximum(counts.sum(axis=2, keepdims=True), 1)
    loss = jnp.logaddexp(pair, away) - pair
    return Sum((loss * weight).sum(), weight.sum())
