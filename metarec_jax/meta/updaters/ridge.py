"""A linear layer solved in closed form: Bayesian ridge regression for each user, differentiated through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Inputs, Updater
from metarec_jax.meta.updaters.solved import SolvedConfig


def ridge(*, curvature: float, precision: float, noise: float = 1.0) -> Updater:
    """Newton steps on the negative log-posterior of one linear layer, with a fixed bound of the curvature.

    With features ``h`` (a 1 appended for the bias), outputs ``W^T h``, losses ``l_i`` over ``noise`` as negative
    log-likelihoods and the prior ``W ~ N(W0, P^-1)``, ``P`` diagonal, a step is

        ``W <- W - A^-1 (sum_i dl_i/dW / noise + P (W - W0))``,   ``A = curvature / noise * H^T H + P``.

    Under squared error (curvature 1) the first step is the posterior mean: R2-D2 (Bertinetto et al. 2019, arXiv
    1805.08136, equation 4) with a learned prior mean W0, as in ALPaCA (Harrison et al. 2018, arXiv 1807.08912, equation
    8). Under other losses `curvature` bounds their second derivative, and every step lowers the objective (Böhning
    1992, "Multinomial logistic regression algorithm", theorem 2.1). ``A`` [in + 1, in + 1] is factorised directly, or
    by Woodbury's identity as a matrix [support, support] if that is smaller.

    The prior mean is the initial value of the layer (theta). The learned phi are the noise and two prior precisions,
    one of the kernel and one of the bias.

    Args:
        curvature: an upper bound of the second derivative of a row's loss by its outputs.
        precision, noise: initial values of the learned ones.

    Returns:
        The updater.
    """

    def init(adapted: Params) -> Params:
        kernel, _ = _layer(adapted)
        like = jnp.zeros((), kernel.dtype)
        return {
            "log_precision": {"kernel": like + jnp.log(precision), "bias": like + jnp.log(precision)},
            "log_noise": like + jnp.log(noise),
        }

    def start(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
        seen = inputs()
        left = _left(seen.left)
        return {
            "prior": _stacked(adapted),
            "solver": _Solver.of(phi, left, seen.weight, curvature)._asdict(),
            "rows": jnp.maximum(jnp.sum(seen.weight), 1.0),
        }

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        solver = _Solver(**state["solver"])
        now, of_mean = _stacked(adapted), _stacked(gradient)
        slope = state["rows"] / jnp.exp(phi["log_noise"]) * of_mean + (now - state["prior"]) / solver.variance[:, None]
        now = now - solver.solve(slope)
        return _unstacked(now, adapted), state

    def variance(phi: Params, inputs: Inputs, rows: Params) -> Float[Array, " n"]:
        rows = _left(rows)
        solver = _Solver.of(phi, _left(inputs.left), inputs.weight, curvature)
        with_one = _with_one(rows)
        return jnp.exp(phi["log_noise"]) + jnp.sum(with_one * solver.solve(with_one.T).T, axis=-1)

    return Updater(init=init, start=start, step=step, elementwise=True, variance=variance)


class _Solver:
    """``A^-1`` as a Cholesky factor of ``A``, or of the smaller matrix of Woodbury's identity.

    Attributes:
        variance: [in + 1], the diagonal of ``P^-1``.
        left: [support, in + 1], features times the square root of their weight in ``A``.
        factor: lower triangular.
    """

    def __init__(self, variance: Array, left: Array, factor: Array):
        self.variance, self.left, self.factor = variance, left, factor

    def _asdict(self) -> dict[str, Array]:
        return {"variance": self.variance, "left": self.left, "factor": self.factor}

    @classmethod
    def of(cls, phi: Params, left: Array, weight: Array, curvature: float) -> _Solver:
        """Factorise for features [support, in] and the rows' weights."""
        of_kernel, of_bias = (jnp.exp(-phi["log_precision"][name]) for name in ("kernel", "bias"))
        variance = jnp.append(jnp.full(left.shape[-1], of_kernel), of_bias)
        scale = jnp.sqrt(jnp.where(weight > 0, weight, 1.0) * curvature / jnp.exp(phi["log_noise"]))
        scale = scale * (weight > 0).astype(scale.dtype)
        scaled = _with_one(left) * scale[:, None]
        support, width = scaled.shape
        if support < width:
            inverted = jnp.eye(support, dtype=left.dtype) + (scaled * variance[None]) @ scaled.T
        else:
            inverted = jnp.diag(1 / variance) + scaled.T @ scaled
        return cls(variance, scaled, jnp.linalg.cholesky(inverted))

    def solve(self, right: Float[Array, "width k"]) -> Float[Array, "width k"]:
        """``A^-1 right``."""
        support, width = self.left.shape
        if support >= width:
            return jax.scipy.linalg.cho_solve((self.factor, True), right)
        spread = self.variance[:, None] * right
        inner = jax.scipy.linalg.cho_solve((self.factor, True), self.left @ spread)
        return spread - self.variance[:, None] * (self.left.T @ inner)


def _left(operands: Params) -> Float[Array, "n width"]:
    """The features of the layer, its only left operand."""
    found = jax.tree.leaves(operands)
    if not found:
        raise MetarecError(
            "updater.kind 'ridge' solves for a layer that the loss reads exactly once, as `features @ kernel`"
        )
    return found[0]


def _with_one(rows: Float[Array, "n width"]) -> Float[Array, "n width_and_one"]:
    return jnp.concatenate([rows, jnp.ones((*rows.shape[:-1], 1), rows.dtype)], axis=-1)


def _layer(adapted: Params) -> list[Array]:
    """Kernel and bias of the adapted layer."""
    by_name = {path.split("/")[-1]: leaf for path, leaf in zip(path_names(adapted), jax.tree.leaves(adapted))}
    layers = {path.rpartition("/")[0] for path in path_names(adapted)}
    if set(by_name) != {"kernel", "bias"} or len(layers) != 1:
        raise MetarecError(
            "updater.kind 'ridge' solves for one linear layer, its kernel and its bias, but updater.adapted matches "
            f"{', '.join(path_names(adapted))}: use --updater.adapted 'output/.*'"
        )
    return [by_name["kernel"], by_name["bias"]]


def _stacked(layer: Params) -> Float[Array, "width_and_one out"]:
    kernel, bias = _layer(layer)
    return jnp.concatenate([kernel, bias[None]])


def _unstacked(stacked: Array, like: Params) -> Params:
    structure = jax.tree.structure(like)
    parts = [stacked[:-1] if leaf.ndim == 2 else stacked[-1] for leaf in jax.tree.leaves(like)]
    return structure.unflatten(parts)


@UPDATERS.register("ridge")
@dataclasses.dataclass(frozen=True)
class RidgeConfig(SolvedConfig):
    """A linear output layer solved in closed form."""

    whole_outputs = True

    kind: str = "ridge"

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return ridge(curvature=curvature, precision=self.precision)
