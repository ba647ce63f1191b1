"""Limits of a machine: the speed of a large matrix product, and memory bandwidth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


class Limit(NamedTuple):
    """A workload to time: `run` executes it once, and `work` is its amount, in the unit of its constructor."""

    run: Callable[[], object]
    work: float


def product(
    size: int = 2048, dtype: DTypeLike = np.float32, *, precision: jax.lax.PrecisionLike = None, times: int = 1
) -> Limit:
    """Products of matrices [size, size], one after another; `work` in GFLOP.

    Args:
        size: rows of each matrix.
        dtype: data type of the matrices.
        precision: precision of a float32 product; None takes the default, which is lower on accelerators.
        times: number of products in one run, so that the start of a run is a small part of it.

    Returns:
        The limit.
    """
    a = (jax.random.normal(jax.random.key(0), (size, size)) / size**0.5).astype(dtype)

    @jax.jit
    def multiplied(x: jax.Array, a: jax.Array) -> jax.Array:
        for _ in range(times):
            x = jnp.matmul(x, a, precision=precision)
        return x

    return Limit(lambda: jax.block_until_ready(multiplied(a, a)), 2e-9 * times * size**3)


def memory(megabytes: int = 256) -> dict[str, Limit]:
    """Passes through arrays of this size, which must exceed all caches; `work` in GB read and written.

    The fastest of them estimates the memory bandwidth, since a single program may be slower than memory: a sum in JAX
    is, because on CPUs a flag of `metarec_jax.core.xla_flags` disables the fast kernels. The programs are a copy (which
    reads and writes) and a matrix-vector product (which reads); on CPUs also NumPy's copy and sum.
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
