"""What a learner multiplies its matrices with, found by watching it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from metarec_jax.learner.fixed import Fixed, multiply
from metarec_jax.types import Params


class _Watched:
    """A matrix that remembers what it was multiplied with from the left."""

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
    """A tree like `params`: of each matrix what `function` multiplied it with (last, if it did so more than once).

    None where a leaf is no matrix, or was not multiplied. A function that does anything else with a matrix fails.
    """
    watched = jax.tree.map(lambda leaf: _Watched(leaf) if leaf.ndim == 2 else leaf, params)
    function(watched)
    return jax.tree.map(
        lambda leaf: leaf.left if isinstance(leaf, _Watched) else None,
        watched,
        is_leaf=lambda leaf: isinstance(leaf, _Watched),
    )
