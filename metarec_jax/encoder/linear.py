"""Matrix products whose rounding stays near PyTorch's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BLOCK = 384
"""Inputs that are summed in one go on a CPU."""


def block_dot(
    x: Float[Array, "*rows inputs"],
    kernel: Float[Array, "inputs outputs"],
) -> Float[Array, "*rows outputs"]:
    """``x @ kernel``, in float32 on a CPU as a sum of products over `BLOCK` inputs each.

    XLA's CPU matmul adds its inputs one after the other, so its rounding grows with their number. For all-MiniLM-L6-v2
    that put hidden states up to 1.1e-5 from PyTorch's; in blocks, with the partial sums added pairwise, it is 7e-6,
    for about a tenth more time. Elsewhere it is one product.

    Args:
        x, kernel: what to multiply.
    """

    def whole(x: Array, kernel: Array) -> Array:
        return jnp.matmul(x, kernel)

    def in_blocks(x: Array, kernel: Array) -> Array:
        starts = range(0, kernel.shape[0], BLOCK)
        parts = [whole(x[..., start : start + BLOCK], kernel[start : start + BLOCK]) for start in starts]
        while len(parts) > 1:
            parts = [sum(parts[i + 1 : i + 2], parts[i]) for i in range(0, len(parts), 2)]
        return parts[0]

    if kernel.shape[0] <= BLOCK or x.dtype != jnp.float32:
        return whole(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=in_blocks, default=whole)
