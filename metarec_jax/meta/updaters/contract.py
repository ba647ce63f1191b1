"""What an updater is: the one contract that every rule of the inner loop keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Int

from metarec_jax.core.types import Params


class Inputs(NamedTuple):
    """What the support shows to the adapted parameters, where the inner loop starts.

    Attributes:
        left: a tree like the adapted parameters: of each matrix that the learner multiplies from the left, what it
            multiplies it with, [support, in]; None for every other leaf.
        weight: [support], what each row counts: 1, and 0 where it is padding.
    """

    left: Params
    weight: Array


class Updater(NamedTuple):
    """An inner-loop rule: pure functions of pytrees. The outer loop trains phi together with the learner.

    Attributes:
        init: adapted parameters -> phi, the rule's own learned parameters.
        start: (phi, adapted, inputs) -> the state that one user's inner loop carries. ``inputs()`` gives `Inputs`.
        step: (phi, state, adapted, gradient, index []) -> (adapted, state). The arguments `adapted` and `gradient` have
            the structure of the adapted parameters; `index` is the number of the inner step, from 0.
        elementwise: whether a step does anything with a gradient that is not a multiple of it, the same for all
            elements of an array. Such a rule does not commute with ``X^T``, and needs matrices in full
            (see `metarec_jax.meta.gram`).
        root: (phi, start, adapted, gradient) -> a tree that is zero at the point that the steps converge to. Where it
            is given, the outer gradient is that of this point (by the implicit function theorem), not of the steps.
        variance: (phi, inputs, left operands of other rows) -> the variance of their outputs [n]; None for a rule that
            knows of none.
    """

    init: Callable[[Params], Params]
    start: Callable[[Params, Params, Callable[[], Inputs]], Params]
    step: Callable[[Params, Params, Params, Params, Int[Array, ""]], tuple[Params, Params]]
    elementwise: bool = False
    root: Callable[[Params, Params, Params, Params], Params] | None = None
    variance: Callable[[Params, Inputs, Params], Array] | None = None


def stateless(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
    """The `start` of a rule that carries nothing from step to step."""
    return ()
