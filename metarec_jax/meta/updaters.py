"""Updaters: the rule of the inner loop, with learned parameters phi of its own.

One contract: `init` makes phi, `start` makes the state that one user's inner loop carries, `step` changes the adapted
parameters of one user. All are pure functions of pytrees; the outer loop trains phi together with the learner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from metarec_jax.config import UpdaterConfig
from metarec_jax.types import Params


class Updater(NamedTuple):
    """An inner-loop rule.

    Attributes:
        init: adapted parameters -> phi.
        start: (phi, adapted) -> inner state.
        step: (phi, state, adapted, gradient, index []) -> (adapted, state); `index` is the number of the inner step.
    """

    init: Callable[[Params], Params]
    start: Callable[[Params, Params], Params]
    step: Callable[[Params, Params, Params, Params, Int[Array, ""]], tuple[Params, Params]]


def make_updater(config: UpdaterConfig) -> Updater:
    """The updater that `config` describes."""
    return gradient_descent(rate=config.rate, learn=config.learn_rate, steps=config.steps)


def gradient_descent(*, rate: float, learn: str, steps: int) -> Updater:
    """Gradient descent: ``w <- w - rate * dL/dw``.

    Finn, Abbeel & Levine 2017 (arXiv 1703.03400, equation 1) with `learn` "no"; with "layer" one rate for each adapted
    array is learned, with "layer-step" one for each array and step (Antoniou, Edwards & Storkey 2019, arXiv 1810.09502,
    section 4, "LSLR"). Rates are learned as logarithms, so that they stay positive.

    Args:
        rate: the rate, or where a learned one starts.
        learn: "no", "layer" or "layer-step".
        steps: inner steps, the length of a rate learned per step.
    """
    shape = {"no": None, "layer": (1,), "layer-step": (max(steps, 1),)}[learn]

    def init(adapted: Params) -> Params:
        if shape is None:
            return {}
        return {"log_rate": jax.tree.map(lambda leaf: jnp.full(shape, jnp.log(rate), leaf.dtype), adapted)}

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        if shape is None:
            return jax.tree.map(lambda w, g: w - rate * g, adapted, gradient), state
        at = index if shape[0] > 1 else 0
        moved = jax.tree.map(lambda w, g, log: w - jnp.exp(log[at]) * g, adapted, gradient, phi["log_rate"])
        return moved, state

    return Updater(init=init, start=lambda phi, adapted: (), step=step)
