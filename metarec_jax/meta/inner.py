"""The inner loop: one user's parameters, adapted to one user's support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.meta.updaters import Updater
from metarec_jax.types import Params


def adapt(
    value_and_gradient: Callable[[Params], tuple[Float[Array, ""], Params]],
    updater: Updater,
    phi: Params,
    adapted: Params,
    *,
    steps: int,
    order: Literal["second", "first"] = "second",
) -> tuple[Params, Float[Array, " steps"]]:
    """Takes `steps` inner steps.

    Args:
        value_and_gradient: adapted parameters -> loss on the support and its gradient.
        updater: the rule.
        phi: its learned parameters.
        adapted: where the user starts.
        steps: how many steps.
        order: "second" differentiates through every inner gradient; "first" takes the inner gradients as constants
            (``stop_gradient`` on the same path), which is first-order MAML.

    Returns:
        The adapted parameters, and the support loss before each step.
    """

    def step(carry: tuple[Params, Params], index: Array) -> tuple[tuple[Params, Params], Array]:
        adapted, state = carry
        with jax.named_scope("inner_step"):
            value, gradient = value_and_gradient(adapted)
            if order == "first":
                gradient = jax.lax.stop_gradient(gradient)
            return updater.step(phi, state, adapted, gradient, index), value

    (adapted, _), losses = jax.lax.scan(step, (adapted, updater.start(phi, adapted)), jnp.arange(steps))
    return adapted, losses
