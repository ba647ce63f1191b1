"""Updaters from optax transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import optax
from jaxtyping import Array

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Inputs, Updater
from metarec_jax.meta.updaters.rates import Rates, rates_of


def optax_rule(transform: optax.GradientTransformation, rates: Rates) -> Updater:
    """The rule ``w <- w - rate * transform(dL/dw)``.

    Args:
        transform: a differentiable optax transform of gradients without learning rate and sign: one of
            ``optax.scale_by_...``, or a chain of them, but not a complete optimizer. Its derivative must be finite
            where a gradient is zero.
        rates: inner learning rates.

    Returns:
        The updater.
    """

    def start(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
        return transform.init(adapted)

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        direction, state = transform.update(gradient, state, adapted)
        rate = rates.at(phi, adapted, index)
        return jax.tree.map(lambda w, d, a: w - a * d, adapted, direction, rate), state

    return Updater(init=rates.init, start=start, step=step, elementwise=True)


# Each rule below divides by the root of a moment, which is zero where gradients are zero (for example of a dead ReLU).
# The outer gradient needs the derivative of that root, which is infinite at zero; a constant is added under the root.


@dataclasses.dataclass(frozen=True)
class AdaptiveConfig(UpdaterConfig):
    """A rule of optax whose step sizes adapt to past gradients."""

    elementwise = True

    def transform(self) -> optax.GradientTransformation:
        """The transform without its learning rate."""
        raise NotImplementedError

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return optax_rule(self.transform(), rates_of(self))


@UPDATERS.register("adam")
@dataclasses.dataclass(frozen=True)
class AdamConfig(AdaptiveConfig):
    """Adam."""

    kind: str = "adam"

    def transform(self) -> optax.GradientTransformation:
        """The transform without its learning rate."""
        return optax.scale_by_adam(eps_root=1e-8)


@UPDATERS.register("rmsprop")
@dataclasses.dataclass(frozen=True)
class RmspropConfig(AdaptiveConfig):
    """RMSProp."""

    kind: str = "rmsprop"

    def transform(self) -> optax.GradientTransformation:
        """The transform without its learning rate."""
        return optax.scale_by_rms(eps_in_sqrt=True)


@UPDATERS.register("adagrad")
@dataclasses.dataclass(frozen=True)
class AdagradConfig(AdaptiveConfig):
    """Adagrad."""

    kind: str = "adagrad"

    def transform(self) -> optax.GradientTransformation:
        """The transform without its learning rate."""
        return optax.scale_by_rss(initial_accumulator_value=0.1)
