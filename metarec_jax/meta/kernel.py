"""Many users in a Pallas kernel: the sum of a one-user function and its gradient, computed in scratch memory.

The function is the one that `metarec_jax.meta.batch` maps over users. Its value and gradient are traced inside the
kernel (`metarec_jax.core.two_axes_evaluate`) for a few users in each iteration of the grid. Their operations alternate,
so that they fill each other's waiting times. Gradients by what all users share are summed over the grid in the chip's
scratch memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.two_axes import Flat, Unsupported, lift
from metarec_jax.core.two_axes_evaluate import evaluate
from metarec_jax.meta.batch import merge, scaled_gradient, sum_at_once

Result = TypeVar("Result")
Function = Callable[[Any, Any], tuple[Array, Any]]
TOGETHER = 8
"""Users whose operations alternate. By Mosaic's static schedule for a v5e, an iteration of eight users takes 15,930
cycles, and 23,126 if the users follow one another."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_in_kernel(function: Function, block: int, shared: Any, tasks: Any) -> tuple[Array, Any]:
    """Sum a scalar over users; a kernel computes it together with its gradient, where that is asked for.

    Args:
        function: (shared, task of one user) -> (scalar, auxiliary output without gradient), of arrays with up to two
            axes.
        block: users of an iteration of the grid; it must divide their number.
        shared: a tree that all users share.
        tasks: a tree with a leading axis of users.

    Returns:
        The sum, and the auxiliary output of each user.

    Raises:
        MetarecError: the function has an operation that the kernel does not compute.
    """
    return sum_at_once(function, shared, tasks)


def _forward(function: Function, block: int, shared: Any, tasks: Any) -> tuple[Any, Any]:
    arguments = jax.tree.map(lambda leaf: leaf.value, (shared, tasks))
    wanted = jax.tree.map(lambda leaf: leaf.perturbed, (shared, tasks))

    def one_user(shared: Any, task: Any) -> tuple[Any, Any]:
        def of_moving(*moving: Any) -> Any:
            return function(*merge(wanted, moving, (shared, task)))

        moving = tuple(merge(wanted, (shared, task), None))
        (value, rest), gradient = jax.value_and_grad(of_moving, argnums=(0, 1), has_aux=True)(*moving)
        return (value, rest), gradient

    (values, rest), (of_shared, of_tasks) = _map(one_user, block, *arguments)
    return (jnp.sum(values), rest), (of_shared, of_tasks)


def _backward(function: Function, block: int, gradient: Any, cotangents: Any) -> Any:
    return scaled_gradient(gradient, cotangents)


sum_in_kernel.defvjp(_forward, _backward, symbolic_zeros=True)


class _Traced(NamedTuple):
    """A one-user function as a jaxpr.

    Attributes:
        jaxpr: closed jaxpr of its flattened arguments.
        read: for each argument, whether the jaxpr reads it.
        structure: tree structure of the result.
    """

    jaxpr: Any
    read: tuple[bool, ...]
    structure: Any


def _trace(one_user: Callable[[Any, Any], Any], shared: Any, tasks: Any) -> _Traced:
    task = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tasks)
    jaxpr, result = jax.make_jaxpr(one_user, return_shape=True)(shared, task)
    needed: set[Any] = {atom for atom in jaxpr.jaxpr.outvars if not hasattr(atom, "val")}
    for equation in reversed(jaxpr.jaxpr.eqns):
        if needed & set(equation.outvars):
            needed |= {atom for atom in equation.invars if not hasattr(atom, "val")}
    return _Traced(jaxpr, tuple(v in needed for v in jaxpr.jaxpr.invars), jax.tree.structure(result))


def _map(one_user: Callable[[Any, Any], Any], block: int, shared: Any, tasks: Any) -> Any:
    """Map ((value, rest), (gradient by shared, gradient by task)) over users; the third is summed over them."""
    users = jax.tree.leaves(tasks)[0].shape[0]
    if users % block:
        raise MetarecError(f"a block of {block} users does not divide {users} users: choose a divisor")
    traced = _trace(one_user, shared, tasks)
    leaves = jax.tree.leaves((shared, tasks))
    count = len(jax.tree.leaves(shared))
    by_user = [number >= count for number in range(len(leaves))]
    read = [number for number, needed in enumerate(traced.read) if needed and leaves[number].size]
    outputs = [variable.aval for variable in traced.jaxpr.jaxpr.outvars]
    tree = traced.structure.unflatten(range(len(outputs)))
    summed = set(jax.tree.leaves(tree[1][0]))
    computed = [number for number, v in enumerate(traced.jaxpr.jaxpr.outvars) if _moves(v, traced, outputs[number])]

    def kernel(*refs: Any) -> None:
        inputs, results = refs[: len(read)], refs[len(read) :]
        totals: dict[int, Array] = {}
        consts = [np.asarray(const) for const in traced.jaxpr.consts]
        for start in range(0, block, TOGETHER):
            group = range(start, min(start + TOGETHER, block))
            arguments = [_arguments(leaves, by_user, dict(zip(read, inputs)), user) for user in group]
            for user, found in zip(group, evaluate(traced.jaxpr.jaxpr, consts, arguments)):
                for number, ref in zip(computed, results):
                    value = lift(found[number], False).whole().astype(ref.dtype)
                    if number in summed:
                        totals[number] = totals[number] + value if number in totals else value
                    elif len(outputs[number].shape) == 2:
                        ref[user] = value
                    else:
                        ref[user : user + 1, :] = value
        first = pl.program_id(0) == 0
        for number, ref in zip(computed, results):
            if number in summed:
                ref[...] = jnp.where(first, 0, ref[...]) + totals[number]

    given = [_two_axes(leaves[n], by_user[n]) for n in read]
    shapes = [
        _flat_shape(outputs[n].shape) if n in summed else (users, *_user_shape(outputs[n].shape)) for n in computed
    ]
    try:
        results = _call(
            kernel,
            users // block,
            given,
            [_spec(array.shape, block if by_user[n] else 0) for n, array in zip(read, given)],
            [jax.ShapeDtypeStruct(shape, outputs[n].dtype) for n, shape in zip(computed, shapes)],
            [_spec(shape, 0 if n in summed else block) for n, shape in zip(computed, shapes)],
        )
    except Unsupported as error:
        raise MetarecError(f"the kernel of the inner loop does not compute {error}: use kernel = 0") from error
    found = dict(zip(computed, results))
    whole = [
        (found[n].reshape(shape) if n in found else jnp.zeros(shape, aval.dtype))
        for n, aval in enumerate(outputs)
        for shape in [aval.shape if n in summed else (users, *aval.shape)]
    ]
    return traced.structure.unflatten(whole)


def _moves(variable: Any, traced: _Traced, aval: Any) -> bool:
    """Whether a result depends on an argument; results that do not are zeros (gradients by what is not read)."""
    if not aval.size or hasattr(variable, "val"):
        return False
    jaxpr = traced.jaxpr.jaxpr
    moving = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(not hasattr(atom, "val") and atom in moving for atom in equation.invars):
            moving |= set(equation.outvars)
    return variable in moving


def _call(
    kernel: Callable[..., None],
    blocks: int,
    given: Sequence[Array],
    in_specs: Sequence[Any],
    out_shape: Sequence[Any],
    out_specs: Sequence[Any],
) -> Sequence[Array]:
    """Run the kernel; on a CPU operation by operation."""

    def run(*arrays: Array, interpret: bool) -> Sequence[Array]:
        return pl.pallas_call(
            kernel,
            grid=(blocks,),
            in_specs=list(in_specs),
            out_shape=list(out_shape),
            out_specs=list(out_specs),
            interpret=interpret,
            name="inner_loop",
        )(*arrays)

    return jax.lax.platform_dependent(
        *given, cpu=functools.partial(run, interpret=True), default=functools.partial(run, interpret=False)
    )


def _spec(shape: Sequence[int], block: int) -> Any:
    """The part of an array that an iteration reads or writes: `block` users, or all of what they share (0)."""
    own = (block or shape[0], *shape[1:])
    return pl.BlockSpec(own, lambda i: ((i if block else 0), *([0] * (len(shape) - 1))))


def _flat_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Shape of an array of up to two axes as a matrix, an array of one axis as a row."""
    return (shape[0], shape[1]) if len(shape) == 2 else (1, shape[0] if shape else 1)


def _user_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes of a user's array: those of a matrix, or of a row."""
    return tuple(shape) if len(shape) == 2 else _flat_shape(shape)[1:]


def _two_axes(leaf: Array, by_user: bool) -> Array:
    leaf = jnp.asarray(leaf)
    if by_user:
        return leaf.reshape(leaf.shape[0], *_user_shape(leaf.shape[1:]))
    return leaf.reshape(_flat_shape(leaf.shape))


def _arguments(leaves: Sequence[Any], by_user: Sequence[bool], refs: Mapping[int, Any], user: int) -> list[Any]:
    """The arguments of one user; None for those that the function does not read."""
    found: list[Any] = []
    for n, leaf in enumerate(leaves):
        shape = leaf.shape[by_user[n] :]
        if n in refs:
            found.append(_load(refs[n], shape, user if by_user[n] else None))
        else:
            found.append(None if leaf.size else np.zeros(shape, leaf.dtype))
    return found


def _load(ref: Any, shape: Sequence[int], user: int | None) -> Flat:
    """Read an argument of one user."""
    if user is None:
        return Flat(tuple(shape), ref[...])
    return Flat(tuple(shape), ref[user] if len(shape) == 2 else ref[user : user + 1, :])
