"""A learned update rule: a small network over features of the gradient, the same for every element of every array."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Inputs, Updater
from metarec_jax.meta.updaters.rates import Rates, rates_of

DECAYS = (0.5, 0.9)
"""Decays of the exponential means of gradients that are features of the network."""
FEATURES = 2 + len(DECAYS)


def learned_rule(rates: Rates, *, hidden: int = 16) -> Updater:
    """The rule ``w <- w - rate * s * (g/s + f(g/s, m1/s, m2/s, t))`` with a network ``f``, whose outputs start at zero.

    ``s`` is the root mean square of the array's gradient, so that the network's inputs do not depend on the gradient's
    scale; ``m`` are exponential means of the gradients, and ``t`` is the number of the step. The features are those of
    Metz et al. 2020 (arXiv 2009.11243, section 3.2, without second moments). The rule is that of Andrychowicz et al.
    2016 (arXiv 1606.04474, equation 2), with an MLP in place of an LSTM. Initially it is gradient descent.

    Args:
        rates: inner learning rates.
        hidden: width of the network.

    Returns:
        The updater.
    """

    def init(adapted: Params) -> Params:
        dtype = jnp.result_type(*jax.tree.leaves(adapted))
        # A fixed seed: the rule's initial values do not vary between runs.
        kernel = np.random.default_rng(0).normal(size=(FEATURES, hidden)) / np.sqrt(FEATURES)
        network = {
            "hidden": {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.zeros(hidden, dtype)},
            "output": {"kernel": jnp.zeros((hidden, 1), dtype)},
        }
        return rates.init(adapted) | {"network": network}

    def start(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
        return tuple(jax.tree.map(jnp.zeros_like, adapted) for _ in DECAYS)

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        means = tuple(
            jax.tree.map(lambda m, g, d=decay: d * m + (1 - d) * g, mean, gradient)
            for decay, mean in zip(DECAYS, state)
        )
        direction = jax.tree.map(lambda g, *m: _direction(phi["network"], g, m, index), gradient, *means)
        rate = rates.at(phi, adapted, index)
        return jax.tree.map(lambda w, d, a: w - a * d, adapted, direction, rate), means

    return Updater(init=init, start=start, step=step, elementwise=True)


def _direction(network: Params, gradient: Array, means: tuple[Array, ...], index: Array) -> Array:
    """The gradient plus the network's output, which is in units of the gradient's root mean square."""
    size = jnp.sqrt(jnp.mean(jnp.square(gradient)) + 1e-16)
    step = jnp.broadcast_to(jnp.asarray(index, gradient.dtype) / 10, gradient.shape)
    features: Float[Array, "*shape features"] = jnp.stack(
        [gradient / size, *(mean / size for mean in means), step], axis=-1
    )
    bias = jnp.expand_dims(network["hidden"]["bias"], tuple(range(gradient.ndim)))
    hidden = jnp.tanh(features @ network["hidden"]["kernel"] + bias)
    return gradient + size * (hidden @ network["output"]["kernel"])[..., 0]


@UPDATERS.register("learned")
@dataclasses.dataclass(frozen=True)
class LearnedRuleConfig(UpdaterConfig):
    """A learned update rule."""

    elementwise = True
    learns_directions = True

    kind: str = "learned"

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return learned_rule(rates_of(self))
