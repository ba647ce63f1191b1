"""The parts of the benchmark, most valuable first, with the most seconds that each may take.

Importing this module imports neither JAX nor the measurements, so that the process that supervises them does not hold
the device.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from benchmarks.device.measure import Asked, Row


class Part(NamedTuple):
    """A part.

    Attributes:
        seconds: the most that it may take.
        module, function: where it is measured.
        arguments: of the function, ahead of what it is asked for.
    """

    seconds: float
    module: str
    function: str
    arguments: tuple[int, ...] = ()

    def measure(self, asked: Asked) -> Iterator[Row]:
        """Measure the part; it yields each row as soon as there is one."""
        module = importlib.import_module(f"benchmarks.device.{self.module}")
        yield from getattr(module, self.function)(*self.arguments, asked)


MEMORY, PRODUCT = "memory", "product"
"""Cases of the part "limits", whose rows other rows are compared with."""
PARTS: Mapping[str, Part] = {
    "limits": Part(40, "limits", "measure"),
    "inner loop": Part(90, "meta", "inner_loop"),
    "encoder, 32 tokens": Part(90, "encoder", "measure", (32,)),
    "outer step": Part(45, "meta", "outer"),
    "joint step, 32 tokens": Part(90, "meta", "joint_step", (32,)),
    "top-k, 1 million items": Part(45, "retrieval", "measure", (1_000_000,)),
    "encoder, 16 tokens": Part(60, "encoder", "measure", (16,)),
    "encoder, 64 tokens": Part(60, "encoder", "measure", (64,)),
    "top-k, 10 million items": Part(45, "retrieval", "measure", (10_000_000,)),
    "joint step, 16 tokens": Part(90, "meta", "joint_step", (16,)),
    "joint step, 64 tokens": Part(90, "meta", "joint_step", (64,)),
}
