"""A loop over chunks with a derivative that is computed later, from residuals that are stored with the value.

`jax.lax.scan` stores residuals of every possible iteration. Here only executed iterations compute anything, and
residuals that do not depend on the chunk, such as parameters, are stored once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float, Int

from metarec_jax.core.types import Params

Keep = Literal["nothing", "products", "everything"]
"""Residuals of a chunk that are stored for the backward pass: nothing (the chunk is recomputed), the results of matrix
products (everything else is recomputed from them), or everything that the derivative needs."""


def keeping(
    vectors: Callable[[Params, Array], Array],
    moving: Params,
    turns: Int[Array, ""],
    slots: int,
    rows: int,
    *,
    keep: Keep,
) -> tuple[Float[Array, "slots hidden"], Callable[[Float[Array, "slots hidden"], Params], Params]]:
    """Compute the rows of all chunks and their derivative.

    Args:
        vectors: (parameters, number of the chunk) -> [rows, hidden].
        moving: parameters by which `vectors` is differentiated.
        turns: number of chunks that are computed; rows of the others are 0.
        slots: rows of all chunks, a multiple of `rows`.
        rows: rows of a chunk.
        keep: residuals of a chunk that are stored.

    Returns:
        The rows, and (cotangent, total) -> total and the gradient by `moving` of the sum of rows times cotangent.
    """
    if keep == "products":
        # Barriers against merging recomputed operations are not needed, since these are in a separate loop.
        policy = jax.checkpoint_policies.dots_saveable
        vectors = jax.checkpoint(vectors, policy=policy, prevent_cse=False)
    structures = []

    def value_and_residuals(moving: Params, turn: Array) -> tuple[Array, list[Array]]:
        value, back = jax.vjp(lambda moving: vectors(moving, turn), moving)
        residuals, structure = jax.tree.flatten(back)
        structures.append(structure)
        return value, residuals

    closed, shapes = jax.make_jaxpr(value_and_residuals, return_shape=True)(moving, jnp.int32(0))
    run, apart, varies = core.jaxpr_as_fun(closed), *_without_last(closed)
    at = jax.tree.leaves(moving)
    common = apart(*at, jnp.int32(0))
    varies = varies[1:]  # the rows themselves do

    def put(turn: Array, held: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        table, kept = held
        value, *residuals = run(*at, turn)
        table = jax.lax.dynamic_update_slice_in_dim(table, value, turn * rows, axis=0)
        own = [leaf for leaf, varying in zip(residuals, varies) if varying]
        return table, [jax.lax.dynamic_update_index_in_dim(all_, one, turn, axis=0) for all_, one in zip(kept, own)]

    value, residuals = shapes
    empty = [jnp.zeros((slots // rows, *leaf.shape), leaf.dtype) for leaf, own in zip(residuals, varies) if own]
    table = jnp.zeros((slots, *value.shape[1:]), value.dtype)
    table, kept = jax.lax.fori_loop(0, turns, put, (table, empty))

    def pull(cotangent: Array, total: Params) -> Params:
        def add(turn: Array, total: Params) -> Params:
            own = iter([jax.lax.dynamic_index_in_dim(leaf, turn, keepdims=False) for leaf in kept])
            shared = iter(common)
            back: Any = jax.tree.unflatten(structures[0], [next(own if each else shared) for each in varies])
            part = jax.lax.dynamic_slice_in_dim(cotangent, turn * rows, rows)
            return jax.tree.map(jnp.add, total, back(part)[0])

        return jax.lax.fori_loop(0, turns, add, total)

    return table, pull


def _without_last(closed: core.ClosedJaxpr) -> tuple[Callable[..., list[Array]], list[bool]]:
    """Split a program by dependence on its last input.

    Returns:
        The program of the results that do not depend on it, as a function of the other inputs; and for each result
        whether it depends on it.
    """
    jaxpr = closed.jaxpr
    reached, rest = {jaxpr.invars[-1]}, []

    def is_reached(atom: Any) -> bool:
        return not isinstance(atom, core.Literal) and atom in reached

    for equation in jaxpr.eqns:
        if any(map(is_reached, equation.invars)):
            reached.update(equation.outvars)
        else:
            rest.append(equation)
    results = [atom for atom in jaxpr.outvars if not is_reached(atom)]
    unnamed = jaxpr.debug_info._replace(result_paths=None)
    apart = core.ClosedJaxpr(jaxpr.replace(eqns=rest, outvars=results, debug_info=unnamed), closed.consts)
    return core.jaxpr_as_fun(apart), [is_reached(atom) for atom in jaxpr.outvars]
