"""Meta-SGD: a learned rate for each element of the adapted parameters."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Updater, stateless


def meta_sgd(*, rate: float) -> Updater:
    """The rule ``w <- w - a o dL/dw`` with a learned array ``a`` of the shape of ``w``.

    Li, Zhou, Chen & Li 2017 (arXiv 1707.09835, equation 2). Elements of ``a`` may become negative, so they determine
    the direction of a step as well as its length.

    Args:
        rate: initial value of every rate.
    """

    def init(adapted: Params) -> Params:
        return {"rate": jax.tree.map(lambda leaf: jnp.full_like(leaf, rate), adapted)}

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        return jax.tree.map(lambda w, g, a: w - a * g, adapted, gradient, phi["rate"]), state

    return Updater(init=init, start=stateless, step=step, elementwise=True)


@UPDATERS.register("meta-sgd")
@dataclasses.dataclass(frozen=True)
class MetaSgdConfig(UpdaterConfig):
    """Meta-SGD."""

    elementwise = True
    learns_directions = True

    kind: str = "meta-sgd"

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return meta_sgd(rate=self.rate)
