"""The inner loop: adapts the parameters of one user to the user's support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.meta.updaters import Inputs, Updater

Order = Literal["second", "first", "reptile"]
Backward = Literal["stored", "remat", "mixed"]
GRADIENT = "inner_gradient"
"""Name of the values that a recomputed step keeps in mixed mode."""
CONJUGATE_STEPS = 50
"""Greatest number of conjugate gradient steps for an implicit gradient."""


class Path(NamedTuple):
    """Result of the inner loop: final parameters, parameters after each step, support losses.

    Attributes:
        end: the adapted parameters.
        points: the parameters after each step, each leaf [steps, ...]; None for a rule that is differentiated at its
            solution. The compiler drops them where they are not used.
        losses: float32 [steps], the support loss before each step.
    """

    end: Params
    points: Params | None
    losses: Float[Array, " steps"]


def _no_inputs() -> Inputs:
    raise NotImplementedError("this inner loop was started without inputs, which its updater asks for")


def adapt(
    value_and_gradient: Callable[[Params], tuple[Float[Array, ""], Params]],
    updater: Updater,
    phi: Params,
    adapted: Params,
    *,
    steps: int,
    order: Order = "second",
    unroll: int = 1,
    backward: Backward = "stored",
    inputs: Callable[[], Inputs] = _no_inputs,
) -> Path:
    """Take `steps` inner steps.

    Args:
        value_and_gradient: adapted parameters -> loss on the support and its gradient.
        updater: the rule.
        phi: learned parameters of the updater.
        adapted: initial values of the adapted parameters.
        steps: number of steps.
        order: "second" differentiates through every inner gradient. With "first" (first-order MAML) and "reptile" the
            inner gradients are constants (``stop_gradient``); the outer loop computes the rest of Reptile's gradient.
        unroll: number of steps in one iteration of the compiled loop.
        backward: what the outer gradient needs of each step. "stored" keeps its intermediate values. "remat" computes
            them again from the point that the step starts at, which is all that it keeps; the loop is not unrolled.
            "mixed" also keeps the inner gradient, so that only the rule is computed again; `value_and_gradient` is then
            one of `metarec_jax.meta.mixed_mode`.
        inputs: function that computes further inputs for the updater's start.

    Returns:
        The result of the inner loop.
    """

    root = updater.root if steps > 0 else None

    def walk(phi: Params, start: Params) -> Path:
        def step(carry: tuple[Params, Params], index: Array) -> tuple[tuple[Params, Params], tuple[Params, Array]]:
            adapted, state = carry
            with jax.named_scope("inner_step"):
                value, gradient = value_and_gradient(adapted)
                if order != "second" or root is not None:
                    gradient = jax.lax.stop_gradient(gradient)
                if backward == "mixed":
                    gradient = checkpoint_name(gradient, GRADIENT)
                adapted, state = updater.step(phi, state, adapted, gradient, index)
                return (adapted, state), (adapted, value)

        if backward != "stored":
            kept = jax.checkpoint_policies.save_only_these_names(GRADIENT)
            step = jax.checkpoint(step, policy=kept if backward == "mixed" else None)
        # In an unrolled loop the compiler may merge the recomputation with the first computation, and store its result.
        turn = unroll if backward == "stored" else 1
        carry = (start, updater.start(phi, start, inputs))
        (end, _), (points, losses) = jax.lax.scan(step, carry, jnp.arange(steps), unroll=turn)
        return Path(end, points, losses)

    if root is None:
        return walk(phi, adapted)

    def residual(solution: Params) -> Params:
        return root(phi, adapted, solution, value_and_gradient(solution)[1])

    path = walk(*jax.lax.stop_gradient((phi, adapted)))
    return Path(_solution(residual, path.end), None, path.losses)


def _solution(residual: Callable[[Params], Params], end: Params) -> Params:
    """Return `end` with the derivative of the root of `residual` by all that `residual` depends on: ``-A^-1 dr``.

    By the implicit function theorem, with ``A`` the (symmetric) derivative of the residual ``r`` at `end`. The value
    needs no solve, since its right-hand side is zero; conjugate gradients solve for a cotangent.
    """
    end = jax.lax.stop_gradient(end)
    at_end = residual(end)
    moved = jax.tree.map(lambda r: r - jax.lax.stop_gradient(r), at_end)

    def matvec(vector: Params) -> Params:
        return jax.lax.stop_gradient(jax.jvp(residual, (end,), (vector,))[1])

    tolerance = 10 * float(jnp.finfo(jnp.result_type(*jax.tree.leaves(end))).eps)

    def solve(matvec: Callable[[Params], Params], right: Params) -> Params:
        return cg(matvec, right, tol=tolerance, maxiter=CONJUGATE_STEPS)[0]

    change = jax.lax.custom_linear_solve(matvec, moved, solve, solve, symmetric=True)
    return jax.tree.map(jnp.subtract, end, change)
