"""Options of differential privacy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from metarec_jax.config.checks import require, require_types
from metarec_jax.config.training import Training
from metarec_jax.core.kinds import TRAININGS


@TRAININGS.register("privacy")
@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of training users: the unit is a user with all ratings (docs/privacy.md)."""

    epsilon: float = 0.0
    """Epsilon that training spends in all; 0 trains without privacy. If an encoder is trained, each user's gradient is
    computed on its own, whatever train.users_per_device is."""
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

    @property
    def training(self) -> Training:
        """Traits of the training; without an epsilon, those of the ordinary one."""
        if not self.epsilon:
            return Training()
        return Training(
            package="metarec_jax.privacy",
            only_steps=self.covers == "run",
            remedy="or exclude it from the guarantee with --privacy.covers updates",
            no_warm_start="the parameters of an earlier run are not private: leave it out, or train without "
            "--privacy.epsilon",
            no_early_compilation=f"privacy.epsilon is {self.epsilon:g}, but only ordinary outer steps are compiled "
            "ahead of time: leave out the privacy options",
            guarantee="metarec_jax.privacy.accounting",
        )

    def check(self, config: Any) -> None:
        """Refuse options that use training users without noise, or that do not compute users one by one.

        Raises:
            MetarecError: the config has such an option.
        """
        if not self.epsilon:
            return
        require(
            config.train.shards == 1,
            f"train.shards is {config.train.shards} with privacy.epsilon {self.epsilon:g}: each user's gradient "
            "of the encoder is clipped as a whole, on one device; use --train.shards 1",
        )
        require(
            not (config.data.negatives and config.data.negatives_popularity),
            f"data.negatives_popularity is {config.data.negatives_popularity:g} with privacy.epsilon "
            f"{self.epsilon:g}: what everybody saw would choose every user's negatives; use "
            "--data.negatives-popularity 0",
        )
        side = config.learner.user_side
        if self.covers == "updates":
            require(
                side != "description",
                "learner.user_side is 'description' with privacy.epsilon: descriptions are written from supports that "
                "the seed draws, and a private run draws others in secret, so that they would tell of query rows; use "
                "--learner.user-side profile, or none",
            )
            require(
                not config.trains_factors,
                f"factors.train is True with privacy.epsilon {self.epsilon:g}: a step trains only the rows of items "
                "that its users rated, so that which rows change tells of them, whatever noise is added; use "
                "--factors.no-train",
            )
            return
        require(
            not config.has_factors,
            f"factors.rank is {config.factors.rank}: factors are learned from training users without noise; use "
            f"--factors.rank 0, {self.training.remedy}",
        )
        require(
            side in ("auto", "none"),
            f"learner.user_side is {side!r}: how inputs are centred is learned from the texts of "
            f"training users without noise; use --learner.user-side none, {self.training.remedy}",
        )
