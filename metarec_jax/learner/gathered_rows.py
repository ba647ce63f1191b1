"""Rows that a learner multiplies with its kernels, and that no inner step changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array


@runtime_checkable
class Kernel(Protocol):
    """What can stand in a learner's parameters in place of a matrix (see `metarec_jax.meta.gram`)."""

    def multiplied_by(self, rows: Fixed) -> Array:
        """The product ``rows @ kernel``."""
        ...

    def right_of(self, rows: Array) -> Array:
        """The product ``rows @ kernel`` with rows that change from step to step."""
        ...


def multiply(rows: Array, kernel: Array | Kernel) -> Array:
    """``rows @ kernel``, multiplied in the precision of the rows (bfloat16, say) and summed in that of the kernel."""
    if isinstance(kernel, Kernel):
        return kernel.right_of(rows)
    return jnp.matmul(rows, kernel.astype(rows.dtype), preferred_element_type=kernel.dtype)


def as_array(kernel: Any) -> Array:
    """The array that a parameter is, or stands for."""
    return jnp.asarray(kernel) if hasattr(kernel, "__jax_array__") else kernel


class Fixed:
    """Rows ``table[ids]``, with the products that are known of them.

    Args:
        table: [items, hidden], of distinct rows; or a tree of such arrays, which then has no `product`.
        ids: int32 [n], or [] for a single row; None for the whole table.
        name: which rows these are: rows of one name are the same rows.
        products: pairs of a kernel and ``rows @ kernel``, where it was taken before (for many users at once).
        grams: name of other rows -> ``rows @ others^T``, where it was taken before.
    """

    def __init__(
        self,
        table: Any,
        ids: Array | None,
        name: str,
        products: Sequence[tuple[Array, Array]] = (),
        grams: Mapping[str, Array] = MappingProxyType({}),
    ) -> None:
        self.table, self.ids, self.name, self.products, self.grams = table, ids, name, products, grams

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array that this stands for."""
        return self.table.shape if self.ids is None else (*self.ids.shape, self.table.shape[-1])

    def __matmul__(self, kernel: Array | Kernel) -> Array:
        return kernel.multiplied_by(self) if isinstance(kernel, Kernel) else self.product(kernel)

    def product(self, kernel: Array) -> Array:
        """``rows @ kernel`` for a matrix."""
        for known, product in self.products:
            if known is kernel:
                return product
        return multiply(self.array(), kernel)

    def constant(self) -> Fixed:
        """The same rows, to which no gradient flows; what is known of their products still leads to the kernels."""
        return Fixed(jax.lax.stop_gradient(self.table), self.ids, self.name, self.products)

    def array(self) -> Any:
        """The rows themselves."""
        return self.table if self.ids is None else jax.tree.map(lambda leaf: leaf[self.ids], self.table)
