"""Published figures of accelerators. A roofline is drawn with them; the compiler does not see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as its maker describes it.

    Attributes:
        name: as people say it.
        flops: bfloat16 products and sums a second, dense.
        memory: bytes of high-bandwidth memory.
        bandwidth: bytes a second from and to that memory.
        link: bytes a second that a chip can send to others (half of the "bidirectional" figure).
        flops_per_cycle: of all matrix units; `flops` over it is the clock that the compiler's cycles are of. 0 where
            the compiler estimates none.
        source: where the figures are from.
    """

    name: str
    flops: float
    memory: int
    bandwidth: float
    link: float
    flops_per_cycle: int
    source: str

    @property
    def ridge(self) -> float:
        """FLOPs a byte from which on the matrix units, and no longer the memory, are what limits."""
        return self.flops / self.bandwidth

    def seconds(self, cycles: float) -> float:
        """How long so many cycles take."""
        return cycles * self.flops_per_cycle / self.flops


CHIPS: Mapping[str, Chip] = {
    # Four matrix units of 128 x 128.
    "v5e": Chip("TPU v5e", 197e12, 16 * 2**30, 819e9, 200e9, 131_072, "https://cloud.google.com/tpu/docs/v5e"),
    # Two cores, which XLA drives as one device, of four such units each.
    "v5p": Chip("TPU v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 262_144, "https://cloud.google.com/tpu/docs/v5p"),
    # Units of 256 x 256; flops_per_cycle is what the compiler's estimate of large products comes to.
    "v6e": Chip("TPU v6e", 918e12, 32 * 2**30, 1600e9, 400e9, 524_288, "https://cloud.google.com/tpu/docs/v6e"),
    "h100": Chip(
        "NVIDIA H100 SXM", 989.4e12, 80 * 10**9, 3350e9, 450e9, 0, "https://www.nvidia.com/en-us/data-center/h100/"
    ),
}
