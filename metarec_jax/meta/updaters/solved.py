"""Options of updaters whose outer gradient is that of the solution of a regularised problem."""

from __future__ import annotations

import dataclasses
import math

from metarec_jax.config.checks import require
from metarec_jax.config.updater import UpdaterConfig


@dataclasses.dataclass(frozen=True)
class SolvedConfig(UpdaterConfig):
    """An updater that is differentiated at a solution, not through the steps that led to it."""

    elementwise = True
    solves = True

    precision: float = 1.0
    """Precision of the prior around the initial parameters (the first value; the outer loop learns it)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            math.isfinite(self.precision) and self.precision > 0,
            f"updater.precision is {self.precision}; it must be a finite number above 0",
        )
