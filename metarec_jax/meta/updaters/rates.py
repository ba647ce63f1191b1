"""Inner learning rates: fixed, or learned for each layer, or for each layer and step."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.types import Params

Learn = Literal["no", "layer", "layer-step"]


class Rates(NamedTuple):
    """Learning rates of the inner steps.

    With `learn` "layer", one rate is learned for each adapted array; with "layer-step", one for each array and step
    (Antoniou, Edwards & Storkey 2019, arXiv 1810.09502, section 4, "LSLR"). Logarithms of rates are learned, so that
    rates are positive.

    Attributes:
        rate: the rate, or the initial value of learned rates.
        learn: "no", "layer" or "layer-step".
        steps: number of inner steps, for "layer-step".
    """

    rate: float
    learn: Learn = "no"
    steps: int = 1

    def init(self, adapted: Params) -> Params:
        """Initial values of the rates in phi: {} or {"log_rate": a tree like `adapted` of arrays [1] or [steps]}."""
        if self.learn == "no":
            return {}
        length = 1 if self.learn == "layer" else max(self.steps, 1)
        return {"log_rate": jax.tree.map(lambda leaf: jnp.full(length, jnp.log(self.rate), leaf.dtype), adapted)}

    def at(self, phi: Params, adapted: Params, index: Array) -> Params:
        """Compute the rates of a step.

        Args:
            phi: learned parameters of the updater.
            adapted: the adapted parameters.
            index: number of the step, from 0.

        Returns:
            A tree like `adapted`, each leaf [].
        """
        if self.learn == "no":
            return jax.tree.map(lambda leaf: jnp.asarray(self.rate, leaf.dtype), adapted)
        at = index if self.learn == "layer-step" else 0
        return jax.tree.map(lambda log: jnp.exp(log[at]), phi["log_rate"])


def rates_of(config: UpdaterConfig) -> Rates:
    """Rates that a config describes."""
    return Rates(config.rate, config.learn_rate, config.steps)
