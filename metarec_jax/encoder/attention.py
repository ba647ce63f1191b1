"""Scaled dot-product attention over padded texts."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attend(
    query: Float[Array, "texts length hidden"],
    key: Float[Array, "texts length hidden"],
    value: Float[Array, "texts length hidden"],
    mask: Float[Array, "texts length"],
    *,
    num_heads: int,
    dropout: Callable[[Array], Array] | None = None,
) -> Float[Array, "texts length hidden"]:
    """Every token's mixture of the values of its text's real tokens.

    Formula: Vaswani et al. 2017 (arXiv 1706.03762), equation 1, on each of ``num_heads`` slices of the hidden axis.
    The softmax is in float32 or wider. Plain XLA operations, so derivatives of any order exist.

    Args:
        query, key, value: projections of the tokens.
        mask: 1 for a real token, 0 for padding. Padding gets a weight of exactly 0; a text with no real token gets
            the mean of its values, which is finite, and which pooling leaves out.
        num_heads: number of heads; it divides ``hidden``.
        dropout: applied to the weights, or None.
    """
    texts, length, hidden = query.shape
    width = hidden // num_heads
    # [texts * heads, length, width] with one batch axis: the layout that was fastest on a CPU.
    query, key, value = (
        x.reshape(texts, length, num_heads, width).swapaxes(1, 2).reshape(texts * num_heads, length, width)
        for x in (query, key, value)
    )
    scores = jnp.einsum("bqw,bkw->bqk", query * width**-0.5, key)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    real = jnp.repeat(mask > 0, num_heads, axis=0)[:, None, :]
    weights = jax.nn.softmax(jnp.where(real, scores, jnp.finfo(scores.dtype).min), axis=-1)
    if dropout is not None:
        weights = dropout(weights)
    mixed = jnp.einsum("bqk,bkw->bqw", weights.astype(value.dtype), value)
    return mixed.reshape(texts, num_heads, length, width).swapaxes(1, 2).reshape(texts, length, hidden)
