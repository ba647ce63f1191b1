"""Choices of the inner loop."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from metarec_jax.config.checks import require, require_choices

UpdaterKind = Literal["gradient", "momentum", "meta-sgd", "adam", "rmsprop", "adagrad", "learned", "imaml", "ridge"]
ELEMENTWISE: frozenset[UpdaterKind] = frozenset({"meta-sgd", "adam", "rmsprop", "adagrad", "learned", "imaml", "ridge"})
"""Updaters that do more with a gradient than multiply it, and so need matrices in full."""


@dataclasses.dataclass(frozen=True)
class UpdaterConfig:
    """The inner loop."""

    kind: UpdaterKind = "gradient"
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
    momentum: float = 0.9
    """For kind "momentum": what is left of the velocity after a step (at first, where rates are learned)."""
    precision: float = 1.0
    """For kinds "imaml" and "ridge": how strongly the solution is drawn to its start (at first; it is learned)."""
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
        require(self.steps >= 0, f"updater.steps is {self.steps}; it must be 0 or more")
        require(
            isinstance(self.adapted, tuple) and len(self.adapted) > 0,
            f"updater.adapted is {self.adapted!r}; it must be a tuple of at least one pattern, such as ('output/.*',); "
            "use --updater.steps 0 to adapt nothing",
        )
        for name in ("rate", "precision"):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0, f"updater.{name} is {value}; it must be a finite number above 0"
            )
        require(
            math.isfinite(self.doubt) and self.doubt >= 0,
            f"updater.doubt is {self.doubt}; it must be a finite number of at least 0",
        )
        require(
            not self.doubt or self.kind in ("gradient", "momentum", "meta-sgd"),
            f"updater.doubt is {self.doubt}, but steps of updater.kind {self.kind!r} are not in proportion to a loss: "
            "use --updater.doubt 0",
        )
        require(
            math.isfinite(self.clip) and self.clip >= 0,
            f"updater.clip is {self.clip}; it must be a finite number of at least 0 (0 does not clip)",
        )
        require(0 < self.momentum < 1, f"updater.momentum is {self.momentum}; it must lie between 0 and 1")
        require(
            0 <= self.multi_step <= 1, f"updater.multi_step is {self.multi_step}; it is a share of the training, 0 to 1"
        )
        require(
            self.form != "factored" or not (self.kind in ELEMENTWISE or self.clip),
            f"updater.form is 'factored', but updater.kind {self.kind!r}{' with clipping' if self.clip else ''} needs "
            "matrices in full: use --updater.form auto",
        )
        require(
            self.kind not in ("imaml", "ridge") or self.order == "second",
            f"updater.order is {self.order!r}, but updater.kind {self.kind!r} is differentiated through its solution: "
            "use --updater.order second",
        )
        require(
            not self.clip or self.kind not in ("imaml", "ridge"),
            f"updater.clip is {self.clip}, but updater.kind {self.kind!r} is about a solution, which clipped steps "
            "need not lead to: use --updater.clip 0",
        )
        require(
            self.order != "reptile" or self.kind not in ("meta-sgd", "learned"),
            f"updater.order is 'reptile', which trains the learner alone, but updater.kind {self.kind!r} is what it "
            "learns: use --updater.order second or first",
        )
        require(
            not self.multi_step or (self.kind != "imaml" and self.order != "reptile"),
            f"updater.multi_step is {self.multi_step} and needs an outer gradient of every inner step, which "
            f"updater.kind {self.kind!r} with updater.order {self.order!r} does not have: use --updater.multi-step 0",
        )
