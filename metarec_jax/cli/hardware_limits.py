"""What a machine can do at best: a large matrix product, and the quickest of several ways through its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Limit(NamedTuple):
    """Something to time, and how much work one call is."""

    run: Callable[[], object]
    work: float


def product(size: int = 2048) -> Limit:
    """A float32 matrix product; `work` in GFLOP."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    program = jax.jit(jnp.matmul)
    return Limit(lambda: jax.block_until_ready(program(a, a)), 2e-9 * size**3)


def memory(megabytes: int = 256) -> dict[str, Limit]:
    """Ways through arrays that no cache holds; `work` in GB read and written. The quickest is the memory's bandwidth.

    One way alone says how fast that program is. A sum, say, does not reach the memory's speed: on CPUs the flag of
    `metarec_jax.core.xla_flags` keeps it from the quick kernels, and numpy's runs on one thread. So there are a copy
    (which reads and writes) and a product with a vector (which reads), and where the memory is the host's, numpy's
    copy and sum, too.
    """
    count = megabytes * 250_000
    rows = jnp.zeros((count // 1000, 1000), jnp.float32)
    held, vector = [rows + 0], jnp.ones(1000, jnp.float32)
    add, multiply = jax.jit(lambda x: x + 1, donate_argnums=0), jax.jit(jnp.matmul)

    def copy() -> object:
        held[0] = jax.block_until_ready(add(held[0]))
        return held[0]

    gigabytes = 4e-9 * count
    found = {
        "copy": Limit(copy, 2 * gigabytes),
        "read": Limit(lambda: jax.block_until_ready(multiply(rows, vector)), gigabytes),
    }
    if jax.default_backend() == "cpu":
        source, target = np.ones(count, np.float32), np.ones(count, np.float32)
        found["numpy's copy"] = Limit(lambda: np.copyto(target, source), 2 * gigabytes)
        found["numpy's sum"] = Limit(source.sum, gigabytes)
    return found
