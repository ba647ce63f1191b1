"""Published figures of accelerators, for the roofline; the compiler does not use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one device.

    Attributes:
        name: common name.
        flops: dense bfloat16 FLOPs per second.
        memory: bytes of high-bandwidth memory.
        bandwidth: bytes per second from and to that memory.
        link: bytes per second that a chip can send to others (half of the "bidirectional" figure).
        flops_per_cycle: FLOPs per cycle of all matrix units; `flops` divided by it is the clock of the compiler's
            cycles. 0 where the compiler estimates no cycles.
        source: source of the figures.
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
        """Ridge point of the roofline: FLOPs per byte above which matrix units, not memory, are the limit."""
        return self.flops / self.bandwidth

    def seconds(self, cycles: float) -> float:
        """Duration of a number of cycles."""
        return cycles * self.flops_per_cycle / self.flops


CHIPS: Mapping[str, Chip] = {
    # Four matrix units of 128 x 128.
    "v5e": Chip("TPU v5e", 197e12, 16 * 2**30, 819e9, 200e9, 131_072, "https://cloud.google.com/tpu/docs/v5e"),
    # Two cores of four such units each, which XLA uses as one device.
    "v5p": Chip("TPU v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 262_144, "https://cloud.google.com/tpu/docs/v5p"),
    # Units of 256 x 256; flops_per_cycle is derived from the compiler's estimate of large products.
    "v6e": Chip("TPU v6e", 918e12, 32 * 2**30, 1600e9, 400e9, 524_288, "https://cloud.google.com/tpu/docs/v6e"),
    "h100": Chip(
        "NVIDIA H100 SXM", 989.4e12, 80 * 10**9, 3350e9, 450e9, 0, "https://www.nvidia.com/en-us/data-center/h100/"
    ),
}

_KINDS = {
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h100",
}
"""JAX's name of a device -> a chip whose matrix units it has (an H200 has those of an H100)."""


def peak_flops(kind: str) -> float | None:
    """Dense bfloat16 FLOPs per second of a device.

    Args:
        kind: JAX's name of the device, its ``device_kind``.

    Returns:
        The figure; None for a device that is not known.
    """
    return CHIPS[_KINDS[kind]].flops if kind in _KINDS else None
