"""The interface of an updater."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from metarec_jax.core.types import Params


class Inputs(NamedTuple):
    """Inputs of an updater about the support, at the start of the inner loop.

    Attributes:
        left: a tree like the adapted parameters: for each matrix that the learner multiplies from the left, the left
            operand [support, in]; None for every other leaf.
        weight: [support], weight of each row; 0 for padding.
        slope: a tree like `left`: the gradient of the support loss by the product of each left operand with its matrix
            [support, out].
        forms: form of each adapted leaf (see `metarec_jax.meta.gram.Plan`); () if all are dense.

    A left operand that is the same for all rows is [in], and its gradient [out].
    """

    left: Params
    weight: Array
    slope: Params = None
    forms: tuple[str, ...] = ()

    def change(self, factors: Params, adapted: Params) -> Params:
        """Make the change ``X^T D`` of each adapted matrix, with its left operand X.

        Args:
            factors: a tree like `adapted`: D [support, out], or [out] for a left operand [in]; the change itself where
                there is no left operand; None for no change.
            adapted: the adapted parameters in their forms.

        Returns:
            A tree of the structure and shapes of `adapted`: D where a matrix is factored.
        """
        leaves, structure = jax.tree.flatten(adapted)
        parts = []
        for leaf, form, left, factor in zip(
            leaves,
            self.forms or ["dense"] * len(leaves),
            structure.flatten_up_to(self.left),
            structure.flatten_up_to(factors),
        ):
            if factor is None:
                factor = jnp.zeros_like(leaf)
            elif left is not None and form in ("dense", "transposed"):
                left = jnp.where(self.weight[:, None] > 0, left, 0.0) if left.ndim == 2 else left[None]
                factor = left.T @ jnp.atleast_2d(factor)
                factor = factor.T if form == "transposed" else factor
            parts.append(factor)
        return structure.unflatten(parts)


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
