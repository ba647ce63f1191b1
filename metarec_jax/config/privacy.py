"""Options of differential privacy."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from metarec_jax.config.checks import require, require_types


@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of training users: the unit is a user with all ratings (docs/privacy.md)."""

    epsilon: float = 0.0
    """Epsilon that training spends in all; 0 trains without privacy."""
    delta: float = 0.0
    """Delta of the guarantee; 0 is 0.1 divided by the number of training users."""
    clip: float = 1.0
    """Largest norm of a user's gradient, over all trained parameters."""
    covers: Literal["run", "updates"] = "run"
    """What the guarantee covers. "run": everything that a recommender reads of the run, so that there are no item
    statistics, factors or user texts of training users, and no early stopping. "updates": the outer steps only."""

    def __post_init__(self) -> None:
        require_types(self, "privacy")
        require(
            math.isfinite(self.epsilon) and self.epsilon >= 0,
            f"privacy.epsilon is {self.epsilon}; it must be a finite number above 0, or 0 for no privacy",
        )
        require(0 <= self.delta < 1, f"privacy.delta is {self.delta}; it must be at least 0 (auto) and below 1")
        require(
            math.isfinite(self.clip) and self.clip > 0,
            f"privacy.clip is {self.clip}; it must be a finite number above 0",
        )
