"""Choices of differential privacy."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from metarec_jax.config.checks import require, require_choices


@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of training users, one user with all ratings being the unit (docs/privacy.md)."""

    epsilon: float = 0.0
    """What may be spent of it by the end of training; 0 trains without privacy."""
    delta: float = 0.0
    """Chance that the promise fails; 0 is a tenth of one over the number of training users."""
    clip: float = 1.0
    """Greatest norm of one user's gradient, over all that is trained (of the encoder, too, where it is)."""
    covers: Literal["run", "updates"] = "run"
    """What the promise is about. "run": all that a recommender reads of the run, so that nothing else is learned of
    training users (no item statistics, no factors, no user texts), and validation users choose nothing. "updates": what
    outer steps do to parameters, and not the rest."""

    def __post_init__(self) -> None:
        require_choices(self, "privacy")
        require(
            math.isfinite(self.epsilon) and self.epsilon >= 0,
            f"privacy.epsilon is {self.epsilon}; it must be a finite number above 0, or 0 for no privacy",
        )
        require(0 <= self.delta < 1, f"privacy.delta is {self.delta}; it must be at least 0 (auto) and below 1")
        require(
            math.isfinite(self.clip) and self.clip > 0,
            f"privacy.clip is {self.clip}; it must be a finite number above 0",
        )
