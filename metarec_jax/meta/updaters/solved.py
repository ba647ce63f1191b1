"""The choices of rules whose outer gradient is that of a solution, which a prior draws to its start."""

from __future__ import annotations

import dataclasses
import math

from metarec_jax.config.checks import require
from metarec_jax.config.updater import UpdaterConfig


@dataclasses.dataclass(frozen=True)
class SolvedConfig(UpdaterConfig):
    """A rule that is differentiated at a solution, not through the steps that led to it."""

    elementwise = True
    solves = True

    precision: float = 1.0
    """How strongly the solution is drawn to its start (at first; it is learned)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            math.isfinite(self.precision) and self.precision > 0,
            f"updater.precision is {self.precision}; it must be a finite number above 0",
        )
