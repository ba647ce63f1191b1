"""Choices of the inner loop."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from metarec_jax.config.checks import require, require_choices
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.registry import name_of


@dataclasses.dataclass(frozen=True)
class UpdaterConfig:
    """The inner loop: the choices that rules of every kind have.

    A kind with choices or properties of its own extends this class (see `metarec_jax.core.kinds.UPDATERS`).
    """

    elementwise: ClassVar[bool] = False
    """Whether the rule does more with a gradient than multiply it, so that it needs matrices in full."""
    solves: ClassVar[bool] = False
    """Whether the outer gradient is that of a solution, not of the steps that led to it."""
    implicit: ClassVar[bool] = False
    """Whether the outer gradient is found at the last step alone."""
    learns_directions: ClassVar[bool] = False
    """Whether the rule has learned parameters that only an outer gradient through its steps can train."""
    whole_outputs: ClassVar[bool] = False
    """Whether the rule solves for the outputs as they are, so that no gate may lie behind them."""
    scales: ClassVar[bool] = True
    """Whether a step is in proportion to the loss."""

    kind: name_of(UPDATERS) = "gradient"
    """The rule. "gradient" is MAML's, "momentum" adds a velocity, "meta-sgd" learns a rate for every parameter, "adam",
    "rmsprop" and "adagrad" are optax's, "learned" is a small network, "imaml" differentiates at the solution of
    a regularised problem, "ridge" solves the output layer in closed form."""
    steps: int = 5
    rate: float = 1.0
    """Inner learning rate (its first value, where it is learned)."""
    learn_rate: Literal["no", "layer", "layer-step"] = "layer-step"
    """Whether the outer loop learns one rate a layer, or one a layer and step (MAML++)."""
    order: Literal["second", "first", "reptile"] = "second"
    """Whether the outer gradient flows through the inner gradient. "first" is first-order MAML; "reptile" moves adapted
    parameters towards where the users' inner loops led."""
    adapted: tuple[str, ...] = ("hidden/.*", "output/.*")
    """Patterns of the parameters that the inner loop changes for each user. ("output/.*",) alone is ANIL,
    ("hidden/.*",) alone BOIL, ("context/.*",) with learner.context CAVIA."""
    form: Literal["auto", "dense", "factored"] = "auto"
    """How a user's matrices are kept: "factored" as factors of what the support adds, "dense" in full; "auto" takes
    what has fewer numbers."""
    doubt: float = 0.0
    """Ratings that weigh as much as the doubt in a support: its mean loss counts for ``n / (n + doubt)``, so that a
    single rating moves little. 0 takes the mean of one as seriously as the mean of ninety."""
    clip: float = 0.0
    """Greatest norm of an inner gradient; 0 does not clip."""
    multi_step: float = 0.0
    """Share of the training, from its start, in which the query loss after every inner step counts (MAML++): all alike
    at first, the last alone in the end."""
    remat: bool = False
    """Whether the outer gradient computes every inner step anew instead of keeping what the step computed: less memory
    for a long inner loop, and more time."""

    def __post_init__(self) -> None:
        require_choices(self, "updater")
        rule = rule_of(self)
        require(self.steps >= 0, f"updater.steps is {self.steps}; it must be 0 or more")
        require(
            isinstance(self.adapted, tuple) and len(self.adapted) > 0,
            f"updater.adapted is {self.adapted!r}; it must be a tuple of at least one pattern, such as ('output/.*',); "
            "use --updater.steps 0 to adapt nothing",
        )
        require(
            math.isfinite(self.rate) and self.rate > 0,
            f"updater.rate is {self.rate}; it must be a finite number above 0",
        )
        require(
            math.isfinite(self.doubt) and self.doubt >= 0,
            f"updater.doubt is {self.doubt}; it must be a finite number of at least 0",
        )
        require(
            not self.doubt or rule.scales,
            f"updater.doubt is {self.doubt}, but steps of updater.kind {self.kind!r} are not in proportion to a loss: "
            "use --updater.doubt 0",
        )
        require(
            math.isfinite(self.clip) and self.clip >= 0,
            f"updater.clip is {self.clip}; it must be a finite number of at least 0 (0 does not clip)",
        )
        require(
            0 <= self.multi_step <= 1, f"updater.multi_step is {self.multi_step}; it is a share of the training, 0 to 1"
        )
        require(
            self.form != "factored" or not (rule.elementwise or self.clip),
            f"updater.form is 'factored', but updater.kind {self.kind!r}{' with clipping' if self.clip else ''} needs "
            "matrices in full: use --updater.form auto",
        )
        require(
            not rule.solves or self.order == "second",
            f"updater.order is {self.order!r}, but updater.kind {self.kind!r} is differentiated through its solution: "
            "use --updater.order second",
        )
        require(
            not self.clip or not rule.solves,
            f"updater.clip is {self.clip}, but updater.kind {self.kind!r} is about a solution, which clipped steps "
            "need not lead to: use --updater.clip 0",
        )
        require(
            self.order != "reptile" or not rule.learns_directions,
            f"updater.order is 'reptile', which trains the learner alone, but updater.kind {self.kind!r} is what it "
            "learns: use --updater.order second or first",
        )
        require(
            not self.multi_step or not (rule.implicit or self.order == "reptile"),
            f"updater.multi_step is {self.multi_step} and needs an outer gradient of every inner step, which "
            f"updater.kind {self.kind!r} with updater.order {self.order!r} does not have: use --updater.multi-step 0",
        )


def rule_of(config: UpdaterConfig) -> type[UpdaterConfig]:
    """The class of a kind, which says what its rule does; the module of the default kind is not imported."""
    return UpdaterConfig if config.kind == "gradient" else UPDATERS.get(config.kind)
