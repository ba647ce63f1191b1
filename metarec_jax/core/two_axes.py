"""Evaluate a function with arrays of two axes, without loops, gathers and constants: what Mosaic compiles for a TPU.

A jaxpr is evaluated operation by operation. An array of n numbers is a row [1, n] or a column [n, 1], and becomes the
other one where an operation needs it; a number is [1, 1]. An axis along which an array repeats itself has length 1.
Loops of known length are written out, and what depends on no argument is computed while the function is traced.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
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
        shape: shape of the array.
        data: [1 or rows, 1 or columns]; an axis of length 1 repeats.
        upright: whether an array of one axis is a column.
    """

    shape: Shape
    data: Array
    upright: bool = False

    @property
    def full(self) -> Shape:
        """Shape of `data` without repetition."""
        if len(self.shape) == 2:
            return self.shape
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
        return Flat(self.shape, _turned(self.data), not self.upright)


@dataclasses.dataclass(frozen=True)
class Stack:
    """Results of the iterations of a loop, which another loop reads one by one."""

    parts: Sequence[Any]


def _turned(data: Array) -> Array:
    """A row as a column, or a column as a row, by a sum over the diagonal of a square."""
    rows, columns = data.shape
    if rows == columns == 1:
        return data
    size = max(rows, columns)
    square = jnp.broadcast_to(data, (size, size))
    diagonal = _iota((size, size), 0) == _iota((size, size), 1)
    if data.dtype == jnp.bool_:
        return _turned(jnp.where(data, 1, 0).astype(jnp.int32)) != 0
    return jnp.sum(jnp.where(diagonal, square, jnp.zeros_like(square)), axis=1 if rows == 1 else 0, keepdims=True)


def _iota(shape: Shape, axis: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, shape, axis)


def evaluate(jaxpr: Any, consts: Sequence[Any], users: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Evaluate a jaxpr for several users, each operation for all of them before the next one.

    The users' operations are independent of each other: a compiler that schedules them in about this order fills the
    waiting times of one with those of the others.

    Args:
        jaxpr: an open jaxpr.
        consts: its constants, NumPy arrays.
        users: its arguments for each user, `Flat` or NumPy arrays; anything for arguments that it does not read.

    Returns:
        Its results for each user: `Flat`, `Stack`, or NumPy arrays where they depend on no argument.

    Raises:
        Unsupported: it has an operation that is not evaluated here.
    """
    known: list[dict[Any, Any]] = [
        dict(zip(jaxpr.constvars, consts)) | dict(zip(jaxpr.invars, given)) for given in users
    ]

    def read(values: dict[Any, Any], atom: Any) -> Any:
        return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        given = [[read(values, atom) for atom in equation.invars] for values in known]
        for values, found in zip(known, _apply(equation, given)):
            values.update(zip(equation.outvars, found))
    return [[read(values, atom) for atom in jaxpr.outvars] for values in known]


def _apply(equation: Any, users: list[list[Any]]) -> list[list[Any]]:
    name = equation.primitive.name
    inner = next((equation.params[key] for key in _INNER if key in equation.params), None)
    if name == "scan":
        return _scan(equation.params, users)
    if inner is not None and name not in ("while", "cond"):
        closed = hasattr(inner, "consts")
        return evaluate(inner.jaxpr if closed else inner, inner.consts if closed else (), users)
    return [[_compute(equation, name, given)] for given in users]


def _compute(equation: Any, name: str, given: list[Any]) -> Any:
    """The result of an operation for one user."""
    result = equation.outvars[0].aval
    if name in _NUMPY and all(isinstance(value, np.ndarray) for value in given):
        return np.asarray(_NUMPY[name](equation.params, *given), result.dtype)
    if name in _RULES:
        return _RULES[name](equation.params, result.shape, *given)
    if name in _ELEMENTWISE:
        return _elementwise(functools.partial(equation.primitive.bind, **equation.params), result.shape, given)
    raise Unsupported(f"the operation {name} of {', '.join(str(v.aval) for v in equation.invars)}")


_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_ELEMENTWISE = frozenset(
    # Names of primitives.
    (
        *("abs", "add", "add_any", "and", "ceil", "convert_element_type", "copy", "cos", "div", "eq", "erf", "exp"),
        *(
            "exp2",
            "floor",
            "ge",
            "gt",
            "integer_pow",
            "is_finite",
            "le",
            "log",
            "log1p",
            "logistic",
            "lt",
            "max",
            "min",
        ),
        *("mul", "ne", "neg", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square"),
        *("stop_gradient", "sub", "tanh"),
    )
)


def _selected(params: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return np.where(which, cases[1], cases[0]) if which.dtype == bool else np.choose(which, cases)


def _spread(params: Any, given: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, length in zip(params["broadcast_dimensions"], given.shape):
        shape[axis] = length
    return np.broadcast_to(given.reshape(shape), params["shape"])


_NUMPY: dict[str, Callable[..., Any]] = {
    "iota": lambda params: np.indices(params["shape"])[params["dimension"]],
    "broadcast_in_dim": _spread,
    "select_n": _selected,
    "add": lambda params, a, b: a + b,
    "sub": lambda params, a, b: a - b,
    "mul": lambda params, a, b: a * b,
    "lt": lambda params, a, b: a < b,
    "ge": lambda params, a, b: a >= b,
    "eq": lambda params, a, b: a == b,
    "convert_element_type": lambda params, a: a,
    "squeeze": lambda params, a: np.squeeze(a, params["dimensions"]),
    "is_finite": lambda params, a: np.isfinite(a),
}
"""What is computed of constants while a function is traced: places of numbers, above all. JAX would compute it on the
devices that the function is compiled for, which need not be there."""


def _scan(params: Any, users: list[list[Any]]) -> list[list[Any]]:
    """The iterations one after another."""
    constants, carried, body = params["num_consts"], params["num_carry"], params["jaxpr"]
    first = constants + carried
    consts, carries, stacked = (
        [given[part] for given in users] for part in (slice(constants), slice(constants, first), slice(first, None))
    )
    order = range(params["length"])
    results: list[list[Any]] = [[None] * params["length"] for _ in users]
    for turn in reversed(order) if params["reverse"] else order:
        own = [[_part(value, turn) for value in values] for values in stacked]
        given = [[*c, *moving, *values] for c, moving, values in zip(consts, carries, own)]
        found = evaluate(body.jaxpr, body.consts, given)
        carries = [values[:carried] for values in found]
        for of_user, values in zip(results, found):
            of_user[turn] = values[carried:]
    if not order:
        empty = [np.zeros((0, *aval.shape), aval.dtype) for aval in body.out_avals[carried:]]
        return [[*carry, *empty] for carry in carries]
    return [[*carry, *map(Stack, map(list, zip(*turns)))] for carry, turns in zip(carries, results)]


def _part(value: Any, turn: int) -> Any:
    if isinstance(value, Stack):
        return value.parts[turn]
    if isinstance(value, np.ndarray):
        return np.asarray(value[turn])
    return _slice_of(value, [turn], [1], drop=True)


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
    place = _iota(shape, 0 if shape[1] == 1 else 1)
    data = jnp.full(shape, line[0], value.dtype)
    for i, number in enumerate(line[1:], 1):
        data = jnp.where(place == i, jnp.asarray(number, value.dtype), data)
    return Flat(value.shape, data, upright)


def _joined(parts: Sequence[Flat]) -> Flat:
    """Numbers as a row."""
    if any(part.shape for part in parts):
        raise Unsupported("results of a loop that are used together")
    place = _iota((1, len(parts)), 1)
    data = jnp.broadcast_to(parts[0].data, place.shape)
    for i, part in enumerate(parts[1:], 1):
        data = jnp.where(place == i, part.data, data)
    return Flat((len(parts),), data)


def _elementwise(function: Callable[..., Array], shape: Shape, given: Sequence[Any]) -> Flat:
    upright = next((value.upright for value in given if isinstance(value, Flat) and len(value.shape) == 1), False)
    lifted = [lift(value, upright) for value in given]
    common = jnp.broadcast_shapes(*(value.data.shape for value in lifted))
    return Flat(shape, function(*(jnp.broadcast_to(value.data, common) for value in lifted)), upright)


def _reduce(function: Callable[..., Array], repeated: Callable[[Array, int], Array]) -> Callable[..., Flat]:
    """Make the rule of a reduction; `repeated` is the result for a number that is repeated so many times."""

    def rule(params: Any, shape: Shape, given: Any) -> Flat:
        value = lift(given)
        axes = tuple(range(2)) if not shape else params["axes"]
        data, full = value.data, value.full
        for axis in axes:
            once = data.shape[axis] == 1
            data = repeated(data, full[axis]) if once else function(data, axis=axis, keepdims=True)
        return Flat(shape, data, upright=len(shape) == 1 and axes == (1,))

    return rule


def _sum_repeated(data: Array, times: int) -> Array:
    return data if times == 1 else data * jnp.asarray(times, data.dtype)


def _numbered(function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of an array, or of several, that computes truth values as integers."""

    def of_numbers(data: Any, **options: Any) -> Array:
        if jax.tree.leaves(data)[0].dtype != jnp.bool_:
            return function(data, **options)
        return function(jax.tree.map(lambda part: jnp.where(part, 1, 0).astype(jnp.int32), data), **options) != 0

    return of_numbers


def _first(function: Callable[..., Array]) -> Callable[..., Flat]:
    """Make the rule of the place of the least or greatest number."""

    def rule(params: Any, shape: Shape, given: Any) -> Flat:
        value = lift(given)
        (axis,) = params["axes"]
        axis = (0 if value.upright else 1) if len(value.shape) == 1 else axis
        data = value.whole()
        if data.dtype == jnp.bool_:
            data = jnp.where(data, 1, 0).astype(jnp.int32)
        best = function(data, axis=axis, keepdims=True)
        place = jnp.where(data == best, _iota(data.shape, axis), data.shape[axis])
        found = jnp.min(place, axis=axis, keepdims=True).astype(params["index_dtype"])
        return Flat(shape, found, upright=len(shape) == 1 and axis == 1)

    return rule


def _broadcast(params: Any, shape: Shape, given: Any) -> Flat:
    dims = params["broadcast_dimensions"]
    if len(shape) > 2:
        raise Unsupported(f"an array of shape {shape}")
    upright = len(shape) == 2 and dims == (0,)
    value = lift(
        given, upright if len(np.shape(given) if isinstance(given, np.ndarray) else given.shape) == 1 else None
    )
    return Flat(shape, value.data, value.upright if len(shape) == 1 else False)


def _reshape(params: Any, shape: Shape, given: Any) -> Flat:
    """Adds or removes axes of length 1."""
    old = given.shape if isinstance(given, Flat) else (len(given.parts),) if isinstance(given, Stack) else given.shape
    if [n for n in old if n != 1] != [n for n in shape if n != 1] or len(shape) > 2:
        raise Unsupported(f"reshape from {old} to {shape}")
    value = lift(given)
    if len(shape) == 2 and len(old) == 1:
        return Flat(shape, value.as_column(shape[1] == 1 and shape[0] != 1).data)
    if len(shape) == 1 and len(old) == 2:
        return Flat(shape, value.data, upright=old[0] != 1)
    if len(shape) == len(old) == 2 and shape != old:
        return Flat(shape, _turned(value.data))
    return Flat(shape, value.data, value.upright and len(shape) == 1)


def _transpose(params: Any, shape: Shape, given: Any) -> Flat:
    value = lift(given)
    if tuple(params["permutation"]) == tuple(range(len(shape))):
        return value
    data = value.data
    return Flat(shape, _turned(data) if 1 in data.shape else data.T)


def _dot(params: Any, shape: Shape, left: Any, right: Any) -> Flat:
    (of_left, of_right), (batch, _) = params["dimension_numbers"]
    left, right = lift(left), lift(right)
    if not shape and tuple(of_left) == tuple(of_right) == tuple(range(len(left.shape))):
        product = _elementwise(jnp.multiply, left.shape, [left, right]).whole()
        return Flat((), jnp.sum(product, keepdims=True).astype(params["preferred_element_type"] or product.dtype))
    if not of_left and len(left.shape) <= 1 and len(right.shape) <= 1:
        left, right = left.as_column(True), right.as_column(False)
        return Flat(shape, left.data * right.data, upright=len(shape) == 1 and bool(left.shape))
    if batch or len(of_left) != 1:
        raise Unsupported(f"a product of {left.shape} and {right.shape} over {len(of_left)} axes")
    # An array of one axis is a row whose second axis is summed over.
    axes = [1 if len(value.shape) == 1 else axis for value, axis in ((left, of_left[0]), (right, of_right[0]))]
    operands = [value.as_column(False).whole() for value in (left, right)]
    found = lax.dot_general(
        *operands,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return Flat(shape, found, upright=len(shape) == 1 and len(right.shape) == 1)


def _slice_of(value: Flat, starts: Sequence[int], sizes: Sequence[int], *, drop: bool = False) -> Flat:
    """A part of an array; with `drop`, without the first axis, which is sliced to one."""
    shape = tuple(sizes) + value.shape[len(sizes) :]
    if len(value.shape) == 1 and sizes[0] == 1:
        axis = 0 if value.upright else 1
        data = value.data
        if data.shape[axis] > 1:
            data = jnp.sum(jnp.where(_iota(data.shape, axis) == starts[0], data, 0), axis=axis, keepdims=True)
        return Flat(() if drop else shape, data.astype(value.data.dtype), value.upright and not drop)
    starts = list(starts) + [0] * (len(value.shape) - len(starts))
    if len(value.shape) == 1:
        starts, shape2 = ([starts[0], 0], (shape[0], 1)) if value.upright else ([0, starts[0]], (1, shape[0]))
    else:
        shape2 = shape
    data = value.whole()
    data = lax.slice(data, starts, [start + size for start, size in zip(starts, shape2)])
    return Flat(shape[1:] if drop else shape, data, value.upright and not drop)


def _slice(params: Any, shape: Shape, given: Any) -> Flat:
    if params["strides"] not in (None, (1,) * len(shape)):
        raise Unsupported(f"a slice with strides {params['strides']}")
    return _slice_of(lift(given), params["start_indices"], shape)


def _dynamic_slice(params: Any, shape: Shape, given: Any, *starts: Any) -> Flat:
    return _slice_of(lift(given), _numbers(starts, "dynamic_slice"), shape)


def _numbers(values: Sequence[Any], name: str) -> list[int]:
    if not all(isinstance(value, np.ndarray) for value in values):
        raise Unsupported(f"{name} at a place that depends on an argument")
    return [int(value) for value in values]


def _update(params: Any, shape: Shape, given: Any, part: Any, *starts: Any) -> Flat:
    """An array of one axis with some of its numbers replaced by one number."""
    (start,) = _numbers(starts, "dynamic_update_slice") if len(starts) == 1 else [None]
    value, part = lift(given), lift(part)
    if start is None or part.shape != (1,):
        raise Unsupported(f"dynamic_update_slice of {part.shape} in {shape}")
    data = value.whole()
    return Flat(shape, jnp.where(_iota(data.shape, 0 if value.upright else 1) == start, part.data, data), value.upright)


def _pad(params: Any, shape: Shape, given: Any, filling: Any) -> Flat:
    """An array of one axis, with numbers before and after it."""
    value, filling = lift(given), lift(filling)
    (low, high, inner) = params["padding_config"][0]
    if len(shape) != 1 or inner or low < 0 or high < 0:
        raise Unsupported(f"pad of {value.shape} to {shape}")
    axis = 0 if value.upright else 1
    around = [jnp.broadcast_to(filling.data, _with(value.full, axis, n)) for n in (low, high)]
    parts = [around[0], value.whole(), around[1]]
    return Flat(shape, jnp.concatenate([p for p in parts if p.size], axis=axis), value.upright)


def _with(shape: Shape, axis: int, length: int) -> Shape:
    return tuple(length if i == axis else n for i, n in enumerate(shape))


def _concatenate(params: Any, shape: Shape, *given: Any) -> Flat:
    given = tuple(value for value in given if not (isinstance(value, np.ndarray) and value.size == 0))
    values = [lift(value, False if len(shape) == 1 else None) for value in given]
    axis = 1 if len(shape) == 1 else params["dimension"]
    return Flat(shape, _numbered(jnp.concatenate)([value.whole() for value in values], axis=axis))


_RULES: dict[str, Callable[..., Flat]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "dot_general": _dot,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _update,
    "pad": _pad,
    "concatenate": _concatenate,
    "reduce_sum": _reduce(jnp.sum, _sum_repeated),
    "reduce_max": _reduce(jnp.max, lambda data, times: data),
    "reduce_min": _reduce(jnp.min, lambda data, times: data),
    "reduce_and": _reduce(_numbered(jnp.min), lambda data, times: data),
    "reduce_or": _reduce(_numbered(jnp.max), lambda data, times: data),
    "argmin": _first(jnp.min),
    "argmax": _first(jnp.max),
}
