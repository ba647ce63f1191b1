"""Gradient descent, the rule of MAML and of MAML++."""

from __future__ import annotations

import dataclasses

import jax
from jaxtyping import Array

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Updater, stateless
from metarec_jax.meta.updaters.rates import Rates, rates_of


def gradient_descent(rates: Rates) -> Updater:
    """Gradient descent, ``w <- w - rate * dL/dw``.

    With fixed rates it is the rule of MAML (Finn, Abbeel & Levine 2017, arXiv 1703.03400, equation 1), with learned
    rates that of MAML++ (Antoniou, Edwards & Storkey 2019, arXiv 1810.09502). If the adapted parameters are the output
    layer alone, it is ANIL (Raghu et al. 2020, arXiv 1909.09157); all but the output layer, BOIL (Oh et al. 2021, arXiv
    2008.08882); context parameters alone, CAVIA (Zintgraf et al. 2019, arXiv 1810.03642).
    """

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        rate = rates.at(phi, adapted, index)
        return jax.tree.map(lambda w, g, a: w - a * g, adapted, gradient, rate), state

    return Updater(init=rates.init, start=stateless, step=step)


@UPDATERS.register("gradient")
@dataclasses.dataclass(frozen=True)
class GradientConfig(UpdaterConfig):
    """Gradient descent."""

    kind: str = "gradient"

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return gradient_descent(rates_of(self))
