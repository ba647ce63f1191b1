"""The interface of an updater."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Int

from metarec_jax.core.types import Params


class Inputs(NamedTuple):
    """Inputs of an updater about the support, at the start of the inner loop.

    Attributes:
        left: a tree like the adapted parameters: for each matrix that the learner multiplies from the left, the left
            operand [support, in]; None for every other leaf.
        weight: [support], weight of each row; 0 for padding.
    """

    left: Params
    weight: Array


class Updater(NamedTuple):
    """An inner-loop rule: pure functions of pytrees. The outer loop trains phi together with the learner.

    Attributes:
        init: adapted parameters -> phi, the rule's learned parameters.
        start: (phi, adapted, inputs) -> initial state of one user's inner loop. ``inputs()`` computes `Inputs`.
        step: (phi, state, adapted, gradient, index []) -> (adapted, state). `adapted` and `gradient` have the structure
            of the adapted parameters; `index` is the number of the inner step, from 0.
        elementwise: whether a step is not linear in the gradients with one factor for each array. Such a rule does not
            commute with ``X^T``, and needs dense matrices (see `metarec_jax.meta.gram`).
        root: (phi, start, adapted, gradient) -> a tree that is zero at the point that the steps converge to. With it,
            the outer gradient is that of this point (by the implicit function theorem), not of the steps.
        variance: (phi, inputs, left operands of other rows) -> predictive variance of their outputs [n]; None for a
            rule without one.
    """

    init: Callable[[Params], Params]
    start: Callable[[Params, Params, Callable[[], Inputs]], Params]
    step: Callable[[Params, Params, Params, Params, Int[Array, ""]], tuple[Params, Params]]
    elementwise: bool = False
    root: Callable[[Params, Params, Params, Params], Params] | None = None
    variance: Callable[[Params, Inputs, Params], Array] | None = None


def stateless(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
    """The `start` of a rule without state.

    Args:
        phi, adapted, inputs: not used.

    Returns:
        An empty tree.
    """
    return ()
