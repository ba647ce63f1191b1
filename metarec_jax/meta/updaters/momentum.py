"""Gradient descent with momentum, which is linear in the gradients, so that it runs in Gram space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Inputs, Updater
from metarec_jax.meta.updaters.rates import Rates, rates_of

DECAY = 0.9
"""Factor of the velocity in each step; the initial value where rates are learned."""


def momentum(rates: Rates, *, decay: float = DECAY) -> Updater:
    """The rule ``v <- decay * v + dL/dw``, ``w <- w - rate * v``.

    Polyak 1964; equation 1 of Sutskever et al. 2013, with their velocity divided by minus the rate.

    Args:
        rates: inner learning rates.
        decay: decay of the velocity. Where rates are learned, this is the initial value of one learned decay for each
            array.

    Returns:
        The updater.
    """
    learned = rates.learn != "no"

    def init(adapted: Params) -> Params:
        if not learned:
            return {}
        logit = jnp.log(decay) - jnp.log1p(-decay)
        logits = jax.tree.map(lambda leaf: jnp.asarray(logit, leaf.dtype), adapted)
        return rates.init(adapted) | {"logit_decay": logits}

    def start(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
        return jax.tree.map(jnp.zeros_like, adapted)

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        if learned:
            decays = jax.tree.map(jax.nn.sigmoid, phi["logit_decay"])
        else:
            decays = jax.tree.map(lambda leaf: jnp.asarray(decay, leaf.dtype), adapted)
        velocity = jax.tree.map(lambda v, g, d: d * v + g, state, gradient, decays)
        rate = rates.at(phi, adapted, index)
        return jax.tree.map(lambda w, v, a: w - a * v, adapted, velocity, rate), velocity

    return Updater(init=init, start=start, step=step)


@UPDATERS.register("momentum")
@dataclasses.dataclass(frozen=True)
class MomentumConfig(UpdaterConfig):
    """Gradient descent with momentum."""

    kind: str = "momentum"

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return momentum(rates_of(self))
