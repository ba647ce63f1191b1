"""The operations of a jaxpr on arrays of up to two axes (`metarec_jax.core.two_axes`).

A rule takes the operation's parameters, the shape of its result and its arguments. Gathers and scatters have one where
they take one number of each row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from metarec_jax.core.two_axes import Flat, Shape, Stack, Unsupported, lift, places, turned


def compute(equation: Any, given: Sequence[Any]) -> Any:
    """Compute an operation for one user.

    Args:
        equation: an equation of a jaxpr.
        given: values of its arguments.

    Returns:
        The result: `Flat`, or a NumPy array where it depends on no argument.

    Raises:
        Unsupported: there is no rule for it.
    """
    name, result = equation.primitive.name, equation.outvars[0].aval
    if name in _NUMPY and all(isinstance(value, np.ndarray) for value in given):
        return np.asarray(_NUMPY[name](equation.params, *given), result.dtype)
    if name in _RULES:
        return _RULES[name](equation.params, result.shape, *given)
    if name in _ELEMENTWISE:
        return _elementwise(functools.partial(equation.primitive.bind, **equation.params), result.shape, given)
    raise Unsupported(f"the operation {name} of {', '.join(str(v.aval) for v in equation.invars[:3])}")


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
        place = jnp.where(data == best, places(data.shape, axis), data.shape[axis])
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
    old = (len(given.parts),) if isinstance(given, Stack) else given.shape
    if [n for n in old if n != 1] != [n for n in shape if n != 1] or shape[2:] not in ((), (1,)):
        raise Unsupported(f"reshape from {old} to {shape}")
    if len(shape) == 3 or len(old) == 3:
        value = given if len(old) < 3 else Flat(old[:2], given.data)
        return (
            Flat(shape, _reshape(params, shape[:2], value).data) if len(shape) == 3 else _reshape(params, shape, value)
        )
    value = lift(given)
    if len(shape) == 2 and len(old) == 1:
        return Flat(shape, value.as_column(shape[1] == 1 and shape[0] != 1).data)
    if len(shape) == 1 and len(old) == 2:
        return Flat(shape, value.data, upright=old[0] != 1)
    if len(shape) == len(old) == 2 and shape != old:
        return Flat(shape, turned(value.data))
    return Flat(shape, value.data, value.upright and len(shape) == 1)


def _transpose(params: Any, shape: Shape, given: Any) -> Flat:
    value = lift(given)
    if tuple(params["permutation"]) == tuple(range(len(shape))):
        return value
    data = value.data
    return Flat(shape, turned(data) if 1 in data.shape else data.T)


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
    found = lax.dot_general(
        left.as_column(False).whole(),
        right.as_column(False).whole(),
        (((axes[0],), (axes[1],)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return Flat(shape, found, upright=len(shape) == 1 and len(right.shape) == 1)


def part_of(value: Any, turn: int) -> Any:
    """What an iteration of a loop reads of an array or of the results of another loop.

    Args:
        value: a `Flat`, a `Stack` or a NumPy array.
        turn: number of the iteration.

    Returns:
        The part, with one axis less.
    """
    if isinstance(value, Stack):
        return value.parts[turn]
    if isinstance(value, np.ndarray):
        return np.asarray(value[turn])
    return _slice_of(value, [turn], [1], drop=True)


def _slice_of(value: Flat, starts: Sequence[int], sizes: Sequence[int], *, drop: bool = False) -> Flat:
    """A part of an array; with `drop`, without the first axis, which is sliced to one."""
    shape = tuple(sizes) + value.shape[len(sizes) :]
    if len(value.shape) == 1 and sizes[0] == 1:
        axis = 0 if value.upright else 1
        data = value.data
        if data.shape[axis] > 1:
            data = jnp.sum(jnp.where(places(data.shape, axis) == starts[0], data, 0), axis=axis, keepdims=True)
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


def _gather(params: Any, shape: Shape, given: Any, places_: Any) -> Flat:
    """The number of each row at a place, as of `jax.numpy.take_along_axis`."""
    _by_row(params, shape)
    value, chosen = lift(given), lift(places_)
    data = value.whole()
    return Flat(shape, jnp.sum(jnp.where(places(data.shape, 1) == chosen.data, data, 0), axis=1, keepdims=True))


def _scatter_add(params: Any, shape: Shape, given: Any, places_: Any, added: Any) -> Flat:
    """Adds a number to each row at a place, the derivative of `_gather`."""
    value, chosen, added = lift(given), lift(places_), lift(added)
    _by_row(params, added.shape)
    data = value.whole()
    return Flat(shape, data + jnp.where(places(data.shape, 1) == chosen.data, added.data, 0).astype(data.dtype))


def _by_row(params: Any, shape: Shape) -> None:
    numbers = params["dimension_numbers"]
    batching = getattr(numbers, "operand_batching_dims", ())
    if tuple(batching) != (0,) or shape[1:] != (1,):
        raise Unsupported("a gather or scatter that is not one number of each row")


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
    return Flat(
        shape, jnp.where(places(data.shape, 0 if value.upright else 1) == start, part.data, data), value.upright
    )


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
    "gather": _gather,
    "scatter-add": _scatter_add,
    "concatenate": _concatenate,
    "reduce_sum": _reduce(jnp.sum, _sum_repeated),
    "reduce_max": _reduce(jnp.max, lambda data, times: data),
    "reduce_min": _reduce(jnp.min, lambda data, times: data),
    "reduce_and": _reduce(_numbered(jnp.min), lambda data, times: data),
    "reduce_or": _reduce(_numbered(jnp.max), lambda data, times: data),
    "argmin": _first(jnp.min),
    "argmax": _first(jnp.max),
}


_ELEMENTWISE = frozenset(
    # Names of primitives.
    (
        *("abs", "add", "add_any", "and", "ceil", "convert_element_type", "copy", "cos", "div", "eq", "erf"),
        *("exp", "exp2", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "log2"),
        *("logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "one_minus_square", "or", "pow", "rem"),
        *("round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tanh"),
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
