"""The left operands of a loss's matrix products, for rules that read the rows of the support."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.core.types import Params
from metarec_jax.learner.gathered_rows import Fixed, multiply


class _Watched:
    """A matrix that records its left operands, and adds a probe to its products."""

    def __init__(self, base: Array, probe: Array | None = None):
        self.base, self.probe = base, probe
        self.lefts: list[Array] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def left(self) -> Array | None:
        """The left operand, if there is one, and it has at most two axes."""
        return self.lefts[0] if len(self.lefts) == 1 and self.lefts[0].ndim <= 2 else None

    def multiplied_by(self, rows: Fixed) -> Array:
        return self._noted(rows.array(), rows.product(self.base))

    def right_of(self, rows: Array) -> Array:
        return self._noted(rows, multiply(rows, self.base))

    __rmatmul__ = right_of

    def _noted(self, left: Array, product: Array) -> Array:
        self.lefts.append(left.astype(self.base.dtype))
        return product if self.probe is None else product + self.probe


def left_operands(function: Callable[[Params], Any], params: Params) -> Params:
    """Record the left operand of each matrix in a function's matrix products.

    Args:
        function: function of `params`; it may use matrices only as right operands of products.
        params: a tree of arrays.

    Returns:
        A tree like `params` with the left operand of each matrix, [rows, in] or [in]; None for a leaf that is not a
        matrix, or is not multiplied exactly once with such an operand.
    """
    return _recorded(function, params)[1]


def with_slopes(loss: Callable[[Params], Array], params: Params) -> tuple[Params, Params]:
    """Record left operands, and compute the gradient of a loss by the products with them.

    Args:
        loss: function of `params`, as for `left_operands`.
        params: a tree of arrays.

    Returns:
        The tree of `left_operands`, and one of gradients, [rows, out] or [out].
    """
    leaves, structure = jax.tree.flatten(params)
    shapes = structure.flatten_up_to(jax.eval_shape(lambda: left_operands(loss, params)))
    probes = [
        None if left is None else jnp.zeros((*left.shape[:-1], leaf.shape[-1]), leaf.dtype)
        for leaf, left in zip(leaves, shapes)
    ]
    probed = functools.partial(_recorded, loss, params)
    slope, left = jax.grad(probed, has_aux=True)(structure.unflatten(probes))
    return left, slope


def _recorded(function: Callable[[Params], Any], params: Params, probes: Params | None = None) -> tuple[Any, Params]:
    """The function's result, and the left operands."""
    leaves, structure = jax.tree.flatten(params)
    each = [None] * len(leaves) if probes is None else structure.flatten_up_to(probes)
    watched = [_Watched(leaf, probe) if leaf.ndim == 2 else leaf for leaf, probe in zip(leaves, each)]
    result = function(structure.unflatten(watched))
    lefts = [leaf.left if isinstance(leaf, _Watched) else None for leaf in watched]
    return result, structure.unflatten(lefts)
