"""Choices of the learner."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from metarec_jax.config.checks import require, require_choices
from metarec_jax.core.kinds import HEADS, LEARNERS
from metarec_jax.core.registry import name_of

UserSide = Literal["auto", "profile", "description", "none"]


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """The network that scores one user and one item: the choices that learners of every kind have.

    A kind with choices of its own extends this class (see `metarec_jax.core.kinds.LEARNERS`).
    """

    needs_times: ClassVar[bool] = False
    """Whether the learner reads interactions in order of time."""

    kind: name_of(LEARNERS) = "mlp"
    """"mlp" sees the support through the inner loop alone. "transformer" also attends to it, as a set; "recurrent" goes
    through it in order of time (GRU)."""
    hidden: int = 64
    """Width of the hidden layer."""
    context: int = 0
    """Context parameters: inputs of the hidden layer that are the same for all items of a user and start at zero. With
    --updater.adapted 'context/.*' they are all that adapts (CAVIA)."""
    gate: float = 0.0
    """Ratings of a user with which the network is half heard (at first; it is learned): with n of them its outputs
    count for ``n / (n + gate)``, and what the prior path says is left of the rest. 0 hears it always. With the updater
    "ridge", which solves for the outputs as they are and has a prior of its own, there is none."""
    head: name_of(HEADS, "auto") = "auto"
    """What is predicted. "auto" fits the data: "ordinal" for ratings with levels, "rating" for continuous ones.
    "classes" (cross-entropy) and "ordinal" (which minds how far off a level is) predict a distribution over the
    levels, "rating" regresses, "click" predicts a probability."""
    loss: Literal["likelihood", "bpr", "softmax"] = "likelihood"
    """What the outer loop goes down: the head's own loss, or one of the order of a user's query ("bpr" over pairs,
    "softmax" over all rows), which gives up what scores mean as ratings or chances."""
    prior: bool = True
    """Whether predictions start from item statistics of the training users plus the user's own bias."""
    user_side: UserSide = "auto"
    """Text that stands for the user: the data set's profile, a description written from the support, or none. "auto" is
    the profile where there is one."""

    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products. Parameters, sums, losses and all that updaters keep are float32 either way."""

    dropout: float = 0.0
    """Share of the hidden features that a user in training does without."""
    item_dropout: float = 0.0
    """Share of the items of a user in training whose text the network does without."""
    user_dropout: float = 0.5
    """Share of the users in training that do without their text, so that the model also works where there is none."""

    def __post_init__(self) -> None:
        require_choices(self, "learner")
        require(self.hidden >= 1, f"learner.hidden is {self.hidden}; it must be at least 1")
        require(self.context >= 0, f"learner.context is {self.context}; it must be 0 (none) or more")
        require(
            math.isfinite(self.gate) and self.gate >= 0,
            f"learner.gate is {self.gate}; it must be a finite number of at least 0 (0 hears the network always)",
        )
        for name in ("dropout", "item_dropout", "user_dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"learner.{name} is {value}; it must be at least 0 and below 1")
