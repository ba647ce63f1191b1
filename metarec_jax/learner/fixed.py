"""Rows that a learner multiplies with its kernels, and that no inner step changes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array


@runtime_checkable
class Kernel(Protocol):
    """What can stand in a learner's parameters in place of a matrix (see `metarec_jax.meta.factored`)."""

    def multiplied_by(self, rows: Fixed) -> Array:
        """The product ``rows @ kernel``."""
        ...


class Fixed:
    """Rows ``table[ids]``, multiplied before they are gathered.

    Under a ``vmap`` over users the table has no users axis: whatever is done to it is done once for all of them.

    Args:
        table: [items, hidden].
        ids: int32 [n], or [] for a single row.
        name: which rows these are; rows of one name are the same rows, whatever arithmetic was done to them.
    """

    def __init__(self, table: Array, ids: Array, name: str):
        self.table, self.ids, self.name = table, ids, name

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array that this stands for."""
        return (*self.ids.shape, self.table.shape[-1])

    def __sub__(self, other: Array) -> Fixed:
        return Fixed(self.table - other, self.ids, self.name)

    def __mul__(self, other: Array) -> Fixed:
        return Fixed(self.table * other, self.ids, self.name)

    def __matmul__(self, kernel: Array | Kernel) -> Array:
        return kernel.multiplied_by(self) if isinstance(kernel, Kernel) else (self.table @ kernel)[self.ids]

    def constant(self) -> Fixed:
        """The same rows, to which no gradient flows."""
        return Fixed(jax.lax.stop_gradient(self.table), self.ids, self.name)

    def array(self) -> Array:
        """The rows themselves."""
        return self.table[self.ids]
