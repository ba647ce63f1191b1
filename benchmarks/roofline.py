"""Limits of the machine (matrix products and memory bandwidth), measured in turns with the timed programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import Contender
from metarec_jax.cli import hardware_limits

SMALL, LARGE = (64, 1), (2048, 256)
"""Size of the matrix product and megabytes of the arrays, for tests and for measurements."""


class Best(NamedTuple):
    """GFLOP/s of a large matrix product, and GB/s of the fastest pass through memory, in each round."""

    peak: np.ndarray
    bandwidth: np.ndarray

    def reached(self, facts: Mapping[str, float], seconds: np.ndarray) -> dict[str, float]:
        """Speeds of a program and their shares of both limits, as medians over rounds.

        Args:
            facts: facts of the program, as `benchmarks.phases.phases` gives them.
            seconds: seconds of its turns.
        """
        gflop, gigabytes = facts["gflop_of_products"], facts["gbytes_moved"]
        values = {
            "seconds": seconds,
            "gflop_per_s": gflop / seconds,
            "gb_per_s": gigabytes / seconds,
            "gemm_gflop_per_s": self.peak,
            "bandwidth_gb_per_s": self.bandwidth,
            "of_gemm_peak": gflop / seconds / self.peak,
            "of_bandwidth": gigabytes / seconds / self.bandwidth,
        }
        medians = {name: float(np.median(value)) for name, value in values.items()}
        return {"gflop_of_products": gflop, "gbytes_moved": gigabytes, **medians}


class Machine:
    """The limits as contenders."""

    def __init__(self, small: bool = False):
        size, megabytes = SMALL if small else LARGE
        ways = {f"limit, {name}": limit for name, limit in hardware_limits.memory(megabytes).items()}
        self._limits = {"limit, product": hardware_limits.product(size), **ways}

    def contenders(self) -> list[Contender]:
        return [Contender(name, limit.run) for name, limit in self._limits.items()]

    def best(self, seconds: dict[str, np.ndarray]) -> Best:
        """The limits, from the turns of all contenders; the turns of the limits are removed from `seconds`."""
        speeds = {name: limit.work / seconds.pop(name) for name, limit in self._limits.items()}
        peak = speeds.pop("limit, product")
        return Best(peak, max(speeds.values(), key=np.median))


def reached(
    best: Best, facts: Mapping[str, Mapping[str, float]], seconds: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """`Best.reached` of every program that was timed, for the entry "roofline" of a row's facts.

    Args:
        best: from `Machine.best`.
        facts: facts of programs, by name.
        seconds: seconds of contenders, by name.
    """
    return {name: best.reached(own, seconds[name]) for name, own in facts.items() if name in seconds}
