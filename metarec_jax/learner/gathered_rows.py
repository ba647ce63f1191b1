"""Gathered table rows that a learner multiplies with kernels and that no inner step changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array


@runtime_checkable
class Kernel(Protocol):
    """Interface of an object that replaces a matrix in a learner's parameters (see `metarec_jax.meta.gram`)."""

    def multiplied_by(self, rows: Fixed) -> Array:
        """The product ``rows @ kernel``."""
        ...

    def right_of(self, rows: Array) -> Array:
        """The product ``rows @ kernel`` with rows that change between steps."""
        ...


def multiply(rows: Array, kernel: Array | Kernel) -> Array:
    """``rows @ kernel``, multiplied in the precision of the rows (such as bfloat16) and summed in that of the kernel.

    Args:
        rows: [..., n].
        kernel: [n, m].

    Returns:
        [..., m].
    """
    if isinstance(kernel, Kernel):
        return kernel.right_of(rows)
    return jnp.matmul(rows, kernel.astype(rows.dtype), preferred_element_type=kernel.dtype)


def as_array(kernel: Any) -> Array:
    """The array of a parameter, or the array that it represents."""
    return jnp.asarray(kernel) if hasattr(kernel, "__jax_array__") else kernel


class AsArray:
    """Operators and attributes of an array, for an object that ``__jax_array__`` turns into one."""

    def __jax_array__(self) -> Array:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.__jax_array__(), name)


def _operator(name: str) -> Any:
    def apply(self: AsArray, *others: Any) -> Any:
        return getattr(self.__jax_array__(), name)(*others)

    return apply


_BINARY = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow")
for _name in (*_BINARY, "neg", "abs", "getitem", "iter"):
    setattr(AsArray, f"__{_name}__", _operator(f"__{_name}__"))


class Fixed(AsArray):
    """Rows ``table[ids]``, with precomputed products.

    Args:
        table: [items, hidden], distinct rows; or a tree of such arrays, which then has no `product`.
        ids: int32 [n], or [] for a single row; None for the whole table.
        name: identifier of the rows; equal names mean equal rows.
        products: pairs of a kernel and a precomputed ``rows @ kernel`` (computed for many users at once).
        grams: name of other rows -> precomputed ``rows @ others^T``.
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
        """Shape of the array that this object represents."""
        return self.table.shape if self.ids is None else (*self.ids.shape, self.table.shape[-1])

    def __matmul__(self, kernel: Array | Kernel) -> Array:
        return kernel.multiplied_by(self) if isinstance(kernel, Kernel) else self.product(kernel)

    def __jax_array__(self) -> Array:
        return self.array()

    def product(self, kernel: Array) -> Array:
        """``rows @ kernel`` for a matrix."""
        for known, product in self.products:
            if known is kernel:
                return product
        return multiply(self.array(), kernel)

    def constant(self) -> Fixed:
        """The same rows without gradient; precomputed products still pass gradients to the kernels."""
        return Fixed(jax.lax.stop_gradient(self.table), self.ids, self.name, self.products)

    def array(self) -> Any:
        """The rows themselves."""
        return self.table if self.ids is None else jax.tree.map(lambda leaf: leaf[self.ids], self.table)
