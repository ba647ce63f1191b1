"""Options of the inner loop."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from metarec_jax.config.checks import require, require_types
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.patterns import check_pattern
from metarec_jax.core.registry import name_of


@dataclasses.dataclass(frozen=True)
class UpdaterConfig:
    """The inner loop: the options of every kind of updater.

    A kind with options or properties of its own extends this class (see `metarec_jax.core.kinds.UPDATERS`).
    """

    elementwise: ClassVar[bool] = False
    """Whether a step is not linear in the gradient, so that matrices are kept in full."""
    solves: ClassVar[bool] = False
    """Whether the outer gradient is that of the solution of a problem, and not of the steps."""
    learns_directions: ClassVar[bool] = False
    """Whether the updater has parameters that need an outer gradient through the steps."""
    whole_outputs: ClassVar[bool] = False
    """Whether the updater solves for the outputs, so that the learner has no gate."""

    kind: name_of(UPDATERS) = "gradient"
    """The rule of a step. "gradient" is MAML's, "momentum" adds a velocity, "meta-sgd" learns a rate for each
    parameter, "adam", "rmsprop" and "adagrad" are those of optax, "learned" is a small network, "imaml" differentiates
    the solution of a regularised problem, "ridge" solves the output layer in closed form, "amortised" begins with a
    change that a network reads off the support."""
    steps: int = 5
    """Inner steps."""
    rate: float = 1.0
    """Inner learning rate; the first value if it is learned."""
    learn_rate: Literal["no", "layer", "layer-step"] = "layer-step"
    """Whether the outer loop learns a rate for each layer, or for each layer and step (MAML++)."""
    order: Literal["second", "first", "reptile"] = "second"
    """Outer gradient: "second" differentiates the inner gradients, "first" does not (first-order MAML), "reptile" moves
    parameters towards the adapted ones."""
    adapted: tuple[str, ...] = ("hidden/.*", "output/.*")
    """Patterns of the parameters that the inner loop adapts. ("output/.*",) is ANIL, ("hidden/.*",) BOIL,
    ("context/.*",) with learner.context CAVIA."""

    def __post_init__(self) -> None:
        require_types(self, "updater")
        rule = rule_of(self)
        require(
            len(self.adapted) > 0,
            f"updater.adapted is {self.adapted!r}; it must be a tuple of at least one pattern, such as ('output/.*',); "
            "use --updater.steps 0 to adapt nothing",
        )
        for pattern in self.adapted:
            check_pattern("updater.adapted", pattern)
        require(
            not rule.solves or self.order == "second",
            f"updater.order is {self.order!r}, but updater.kind {self.kind!r} is differentiated through its solution: "
            "use --updater.order second",
        )
        require(
            self.order != "reptile" or not rule.learns_directions,
            f"updater.order is 'reptile', which trains the learner alone, but updater.kind {self.kind!r} is what it "
            "learns: use --updater.order second or first",
        )


def rule_of(config: UpdaterConfig) -> type[UpdaterConfig]:
    """The class of options of a kind; the module of the default kind is not imported."""
    return UpdaterConfig if config.kind == "gradient" else UPDATERS.get(config.kind)
