"""Options of the learner."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from metarec_jax.config.checks import require_types
from metarec_jax.core.kinds import HEADS, LEARNERS
from metarec_jax.core.registry import name_of

UserSide = Literal["auto", "profile", "description", "none"]


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """The network that scores a user and an item: the options of every kind of learner.

    A kind with options of its own extends this class (see `metarec_jax.core.kinds.LEARNERS`).
    """

    needs_times: ClassVar[bool] = False
    """Whether the learner reads interactions in order of time."""

    kind: name_of(LEARNERS) = "mlp"
    """"mlp" uses the support in the inner loop only. "transformer" also attends to it, as a set; "recurrent" also reads
    it in order of time (GRU)."""
    hidden: int = 64
    """Width of the hidden layer."""
    context: int = 0
    """Number of context parameters: inputs of the hidden layer that are equal for all items of a user and start at 0.
    With --updater.adapted 'context/.*' only they adapt (CAVIA)."""
    gate: float = 0.0
    """Weight of the network for users with few ratings: with n ratings its outputs count for ``n / (n + gate)``, and
    the prior path for the rest. This is the first value; the outer loop learns it. 0 has no gate; the updater "ridge",
    which has a prior of its own, has none either."""
    head: name_of(HEADS, "auto") = "auto"
    """Prediction and loss. "ordinal" and "classes" (cross-entropy) predict a distribution over rating levels, "rating"
    regresses, "click" predicts a probability. "auto" is "ordinal" for rating levels, "rating" for continuous ratings,
    "click" for clicks."""
    loss: Literal["auto", "likelihood", "bpr", "softmax"] = "auto"
    """Outer loss: the head's likelihood, BPR over pairs of a user's query, or a listwise softmax over it; for clicks
    alone, the softmax is over the catalogue. With the last two, scores rank items and are no longer ratings or
    probabilities. "auto" is "softmax" for clicks alone, and "likelihood" otherwise."""
    prior: bool = True
    """Whether predictions start from item statistics of training users and the user's bias (the prior path)."""
    user_side: UserSide = "auto"
    """Text of the user: the profile of the data set, a description written from the support, or none. "auto" is the
    profile if there is one."""

    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products; parameters, sums, losses and states of updaters are float32."""

    dropout: float = 0.0
    """Share of the hidden features that are dropped in training, drawn for each user."""

    def __post_init__(self) -> None:
        require_types(self, "learner")
