"""Part "limits": the speed of large matrix products, and memory bandwidth."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks.device.measure import Asked, Row, Work, measured
from benchmarks.device.parts import MEMORY, PRODUCT
from metarec_jax.cli import hardware_limits

PRODUCTS = {
    "bfloat16": (jnp.bfloat16, None),
    "float32": (jnp.float32, None),
    "float32, highest precision": (jnp.float32, "highest"),
}
"""Data type and precision of each product."""


def measure(asked: Asked) -> Iterator[Row]:
    """The limits of the device; those of memory by the fastest of several passes.

    Args:
        asked: size and time.

    Yields:
        A row for each.
    """
    on_cpu = jax.default_backend() == "cpu"
    megabytes, size, times = (1, 64, 2) if asked.smoke else (256, 2048, 1) if on_cpu else (4096, 8192, 8)

    def product(name: str) -> Work:
        dtype, precision = PRODUCTS[name]
        limit = hardware_limits.product(size, dtype, precision=precision, times=times)
        return Work(limit.run, limit.work, "GFLOP", {"compute": name, "gflop": limit.work, "size": size})

    def passing(name: str) -> Work:
        limit = hardware_limits.memory(megabytes)[name]
        return Work(limit.run, limit.work, "GB", {"gbytes": limit.work, "megabytes": megabytes})

    passes = ("copy", "read", "numpy's copy", "numpy's sum") if on_cpu else ("copy", "read")
    yield from measured(MEMORY, {name: lambda name=name: passing(name) for name in passes}, asked, most=1.0)
    yield from measured(PRODUCT, {name: lambda name=name: product(name) for name in PRODUCTS}, asked, most=1.0)
