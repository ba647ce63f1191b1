"""Places of texts in rows that hold several, one after another."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int


def text_numbers(lengths: Int[Array, "rows texts"], length: int) -> Int[Array, "rows length"]:
    """Number the text of each token of a row from 1 on; 0 for padding.

    Args:
        lengths: tokens of each text.
        length: tokens of a row.

    Returns:
        The numbers.

    >>> text_numbers(jnp.array([[2, 1, 0]]), 4).tolist()
    [[1, 1, 2, 0]]
    """
    end = jnp.cumsum(lengths, axis=1)
    place = jnp.arange(length, dtype=end.dtype)[None]
    number = 1 + (place[:, None] >= end[:, :, None]).sum(axis=1, dtype=end.dtype)
    return jnp.where(place < end[:, -1:], number, 0)


def first_places(lengths: Int[Array, "rows texts"], length: int) -> Int[Array, "rows length"]:
    """Place of the first token of each token's text; padding has its own place.

    Args:
        lengths, length: as for `text_numbers`.

    Returns:
        The places.

    >>> first_places(jnp.array([[2, 1, 0]]), 4).tolist()
    [[0, 0, 2, 3]]
    """
    start = jnp.cumsum(lengths, axis=1) - lengths
    number, place = text_numbers(lengths, length), jnp.arange(length, dtype=start.dtype)[None]
    first = jnp.take_along_axis(start, jnp.maximum(number - 1, 0), axis=1)
    return jnp.where(number > 0, first, place)
