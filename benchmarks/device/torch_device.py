"""PyTorch on the device that JAX uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from benchmarks.rivals import Unavailable


class Torch(NamedTuple):
    """PyTorch, and its name of the device.

    Attributes:
        name: "cuda" or "cpu".
        wait: waits until the device has done everything; its argument is not read.
    """

    name: str
    wait: Callable[[Any], Any]


def find() -> Torch:
    """PyTorch on the kind of device that JAX uses.

    float32 products are in the precision that JAX has by default there (TF32 on a GPU).

    Raises:
        Unavailable: PyTorch is not installed, or does not know the device.
    """
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"PyTorch does not import: {error}") from error
    platform = jax.default_backend()
    if platform == "cpu":
        return Torch("cpu", lambda _: None)
    if platform == "gpu" and torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        return Torch("cuda", lambda _: torch.cuda.synchronize())
    raise Unavailable(f"PyTorch {torch.__version__} does not know this {platform.upper()}")
