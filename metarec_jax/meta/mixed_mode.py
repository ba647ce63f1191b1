"""The gradient of a loss whose own derivative is computed by forward over reverse mode.

Differentiating an inner step needs products of a vector with the Hessian of the support loss. Reverse over reverse mode
stores the intermediate values of the loss's backward pass as well as those of its forward pass. Since second
derivatives are symmetric, the same products are directional derivatives of the gradient, which forward mode computes
along with it: memory is that of one gradient and its tangents (Kemaev et al. 2025, "Scalable Meta-Learning via
Mixed-Mode Differentiation", arXiv 2505.00793, equation 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.core.types import Params


def value_and_grad(loss: Callable[[Params], Array]) -> Callable[[Params], tuple[Array, Params]]:
    """`jax.value_and_grad` with a derivative of the gradient by forward over reverse mode.

    Derivatives flow to the point and to everything that `loss` depends on; the value has none.

    Args:
        loss: function of a tree of arrays of floats -> scalar.

    Returns:
        Function of the tree -> (value, gradient).
    """

    def at_point(point: Params) -> tuple[Array, Params]:
        traced = jax.make_jaxpr(loss)(point)
        leaves, structure = jax.tree.flatten(point)
        moves = [jnp.issubdtype(jnp.result_type(const), jnp.inexact) for const in traced.consts]
        moving = [const for const, moved in zip(traced.consts, moves) if moved]
        others = [const for const, moved in zip(traced.consts, moves) if not moved]

        def evaluate(leaves: list[Array], moving: list[Array], others: list[Array]) -> Array:
            floats, rest = iter(moving), iter(others)
            consts = [next(floats) if moved else next(rest) for moved in moves]
            (value,) = jax.core.eval_jaxpr(traced.jaxpr, consts, *leaves)
            return value

        value, gradient = _differentiable(evaluate)(leaves, moving, others)
        return jax.lax.stop_gradient(value), structure.unflatten(gradient)

    return at_point


def _differentiable(evaluate: Callable[..., Array]) -> Callable[..., tuple[Array, list[Array]]]:
    """(leaves, floats that the loss depends on, all else) -> the value and the gradient by the leaves."""

    @jax.custom_vjp
    def primal(leaves: list[Array], moving: list[Array], others: list[Array]) -> tuple[Array, list[Array]]:
        return jax.value_and_grad(evaluate)(leaves, moving, others)

    def forward(leaves: list[Array], moving: list[Array], others: list[Array]) -> tuple[Any, Any]:
        return primal(leaves, moving, others), (leaves, moving, others)

    def backward(residuals: Any, cotangents: tuple[Array, list[Array]]) -> tuple[Any, Any, None]:
        leaves, moving, others = residuals

        def gradients(leaves: list[Array]) -> tuple[list[Array], list[Array]]:
            return jax.grad(evaluate, argnums=(0, 1))(leaves, moving, others)

        _, (of_leaves, of_moving) = jax.jvp(gradients, (leaves,), (cotangents[1],))
        return of_leaves, of_moving, None

    primal.defvjp(forward, backward)
    return primal
