"""Arrays of up to two axes, as Mosaic computes with them on a TPU.

An array of n numbers is a row [1, n] or a column [n, 1], and becomes the other one where an operation needs it; a
number is [1, 1]. An axis along which an array repeats itself has length 1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

Shape = tuple[int, ...]


class Unsupported(Exception):
    """An operation that is not evaluated here; the message names it."""


@dataclasses.dataclass(frozen=True)
class Flat:
    """An array of up to two axes.

    Attributes:
        shape: shape of the array; a third axis has length 1.
        data: [1 or rows, 1 or columns]; an axis of length 1 repeats.
        upright: whether an array of one axis is a column.
    """

    shape: Shape
    data: Array
    upright: bool = False

    @property
    def full(self) -> Shape:
        """Shape of `data` without repetition."""
        if len(self.shape) > 1:
            return self.shape[:2]
        count = self.shape[0] if self.shape else 1
        return (count, 1) if self.upright else (1, count)

    def whole(self) -> Array:
        """The array, with every number written out."""
        return jnp.broadcast_to(self.data, self.full)

    def as_column(self, upright: bool) -> Flat:
        """An array of one axis as a column, or as a row."""
        return self if upright == self.upright or len(self.shape) != 1 else self.other

    @functools.cached_property
    def other(self) -> Flat:
        """A row as a column, or a column as a row."""
        return Flat(self.shape, turned(self.data), not self.upright)


@dataclasses.dataclass(frozen=True)
class Stack:
    """Results of the iterations of a loop, which another loop reads one by one."""

    parts: Sequence[Any]


def turned(data: Array) -> Array:
    """A row as a column, or a column as a row, by a sum over the diagonal of a square."""
    rows, columns = data.shape
    if rows == columns == 1:
        return data
    size = max(rows, columns)
    square = jnp.broadcast_to(data, (size, size))
    diagonal = places((size, size), 0) == places((size, size), 1)
    if data.dtype == jnp.bool_:
        return turned(jnp.where(data, 1, 0).astype(jnp.int32)) != 0
    return jnp.sum(jnp.where(diagonal, square, jnp.zeros_like(square)), axis=1 if rows == 1 else 0, keepdims=True)


def places(shape: Shape, axis: int) -> Array:
    """The place of each number along an axis.

    Args:
        shape: shape of the array.
        axis: the axis.

    Returns:
        int32.
    """
    return lax.broadcasted_iota(jnp.int32, shape, axis)


def lift(value: Any, upright: bool | None = None) -> Flat:
    """A value as `Flat`; constants are built from the places of their numbers, since a kernel has no arrays of its own.

    Args:
        value: a `Flat`, a `Stack` of numbers or a NumPy array.
        upright: for an array of one axis, whether it is wanted as a column; None for either.

    Returns:
        The array.

    Raises:
        Unsupported: an array of three axes or more.
    """
    if isinstance(value, Stack):
        value = _joined([lift(part) for part in value.parts])
    if isinstance(value, np.ndarray):
        value = _constant(value, bool(upright))
    return value if upright is None else value.as_column(upright)


def _constant(value: np.ndarray, upright: bool) -> Flat:
    if value.ndim > 2:
        raise Unsupported(f"a constant of shape {value.shape}")
    if value.size and (value == value.flat[0]).all():
        return Flat(value.shape, jnp.full((1, 1), value.flat[0], value.dtype), upright)
    if value.ndim == 2 and value.shape[0] > 1:
        rows = [_constant(row, False).whole() for row in value]
        return Flat(value.shape, jnp.concatenate(rows, axis=0))
    line = value.reshape(-1)
    shape = (len(line), 1) if upright and value.ndim == 1 else (1, len(line))
    place = places(shape, 0 if shape[1] == 1 else 1)
    data = jnp.full(shape, line[0], value.dtype)
    for i, number in enumerate(line[1:], 1):
        data = jnp.where(place == i, jnp.asarray(number, value.dtype), data)
    return Flat(value.shape, data, upright)


def _joined(parts: Sequence[Flat]) -> Flat:
    """Numbers as a row."""
    if any(part.shape for part in parts):
        raise Unsupported("results of a loop that are used together")
    place = places((1, len(parts)), 1)
    data = jnp.broadcast_to(parts[0].data, place.shape)
    for i, part in enumerate(parts[1:], 1):
        data = jnp.where(place == i, part.data, data)
    return Flat((len(parts),), data)
