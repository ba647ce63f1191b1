"""What the machine can do at best, measured in the same run: a large matrix product, and a large copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Limit(NamedTuple):
    """Something to time, and how much work one call is."""

    run: Callable[[], object]
    work: float


def gemm(size: int = 2048) -> Limit:
    """A float32 matrix product; `work` in GFLOP."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    return Limit(lambda: jax.block_until_ready(product(a, a)), 2 * size**3 / 1e9)


def copy(megabytes: int = 256) -> Limit:
    """``x + 1`` of an array that no cache holds; `work` in GB read and written."""
    x = jnp.zeros(megabytes * 250_000, jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [x]

    def run() -> object:
        held[0] = jax.block_until_ready(add(held[0]))
        return held[0]

    return Limit(run, 2 * megabytes / 1e3)


def read(megabytes: int = 512) -> Limit:
    """The sum of an array that no cache holds; `work` in GB read."""
    x = jnp.zeros(megabytes * 250_000, jnp.float32)
    total = jax.jit(jnp.sum)
    return Limit(lambda: jax.block_until_ready(total(x)), megabytes / 1e3)
