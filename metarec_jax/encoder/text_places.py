"""Places of texts in rows that hold several, one after another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num


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


def positions(numbers: Num[Array, "rows length"]) -> Int[Array, "rows length"]:
    """Count the tokens of each text of a row from 0 on; padding has position 0.

    Args:
        numbers: from `text_numbers`.

    Returns:
        The positions.

    >>> positions(jnp.array([[1, 1, 2, 0, 0]])).tolist()
    [[0, 1, 0, 0, 0]]
    """
    place = jnp.arange(numbers.shape[1], dtype=jnp.int32)[None]
    begins = jnp.pad(numbers[:, 1:] != numbers[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(numbers > 0, place - jax.lax.cummax(jnp.where(begins, place, 0), axis=1), 0)
