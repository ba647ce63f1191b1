"""iMAML: the outer gradient of a regularised solution, independent of the steps that led to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Inputs, Updater
from metarec_jax.meta.updaters.solved import SolvedConfig


def imaml(*, rate: float, precision: float) -> Updater:
    """Gradient descent on ``L(w) + precision / 2 |w - theta|^2``, differentiated at the point that it converges to.

    Rajeswaran, Finn, Kakade & Levine 2019 (arXiv 1909.04630): the inner problem is equation 3, the outer gradient
    equation 6, ``(I + H / precision)^-1 dL_query/dw``, which conjugate gradients solve for without computing the
    Hessian ``H``. Steps are not stored, so that memory does not grow with their number. The gradient is that of the
    exact solution, and thus approximate where the steps have not converged.

    Args:
        rate: step size; not learned, since the solution does not depend on it.
        precision: initial weight of the distance to theta; learned, one for all arrays.

    Returns:
        The updater.
    """

    def init(adapted: Params) -> Params:
        return {"log_precision": jnp.log(jnp.asarray(precision, jnp.result_type(*jax.tree.leaves(adapted))))}

    def start(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
        return adapted

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        residual = root(phi, state, adapted, gradient)
        return jax.tree.map(lambda w, r: w - rate * r, adapted, residual), state

    def root(phi: Params, start: Params, adapted: Params, gradient: Params) -> Params:
        pull = jnp.exp(phi["log_precision"])
        return jax.tree.map(lambda w, w0, g: g + pull * (w - w0), adapted, start, gradient)

    # Elementwise, since conjugate gradients need a symmetric matrix, and that of the problem in Gram space is not.
    return Updater(init=init, start=start, step=step, elementwise=True, root=root)


@UPDATERS.register("imaml")
@dataclasses.dataclass(frozen=True)
class ImplicitConfig(SolvedConfig):
    """iMAML."""

    kind: str = "imaml"

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return imaml(rate=self.rate, precision=self.precision)
