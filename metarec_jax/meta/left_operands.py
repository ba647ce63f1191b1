"""The left operands of a function's matrix products, for rules that solve for a layer in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from metarec_jax.core.types import Params
from metarec_jax.learner.gathered_rows import Fixed, multiply


class _Watched:
    """A matrix that records its left operand."""

    def __init__(self, base: Array):
        self.base = base
        self.left: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def multiplied_by(self, rows: Fixed) -> Array:
        self.left = rows.array().astype(self.base.dtype)
        return rows.product(self.base)

    def right_of(self, rows: Array) -> Array:
        self.left = rows.astype(self.base.dtype)
        return multiply(rows, self.base)

    __rmatmul__ = right_of


def left_operands(function: Callable[[Params], Any], params: Params) -> Params:
    """Record the left operand of each matrix in a function's matrix products.

    Args:
        function: function of `params`; it may use matrices only as right operands of products.
        params: a tree of arrays.

    Returns:
        A tree like `params` with the left operand of each matrix (the last one, if there are several); None for a leaf
        that is not a matrix, or is not multiplied.
    """
    watched = jax.tree.map(lambda leaf: _Watched(leaf) if leaf.ndim == 2 else leaf, params)
    function(watched)
    return jax.tree.map(
        lambda leaf: leaf.left if isinstance(leaf, _Watched) else None,
        watched,
        is_leaf=lambda leaf: isinstance(leaf, _Watched),
    )
