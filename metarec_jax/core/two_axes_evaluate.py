"""Evaluate a function with arrays of two axes, without loops, gathers and constants: what Mosaic compiles for a TPU.

A jaxpr is evaluated operation by operation. Loops of known length are written out, and what depends on no argument is
computed while the function is traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metarec_jax.core.two_axes import Stack
from metarec_jax.core.two_axes_rules import compute, part_of


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
    return [[compute(equation, given)] for given in users]


_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def _numbers(params: Any) -> tuple[int, int]:
    """Number of constants of a scan, and of values that it carries."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()  # since JAX 0.12
    return len(constants), len(carried)


def _scan(params: Any, users: list[list[Any]]) -> list[list[Any]]:
    """The iterations one after another."""
    constants, carried = _numbers(params)
    body, first = params["jaxpr"], constants + carried
    consts, carries, stacked = (
        [given[part] for given in users] for part in (slice(constants), slice(constants, first), slice(first, None))
    )
    order = range(params["length"])
    results: list[list[Any]] = [[None] * params["length"] for _ in users]
    for turn in reversed(order) if params["reverse"] else order:
        own = [[part_of(value, turn) for value in values] for values in stacked]
        given = [[*c, *moving, *values] for c, moving, values in zip(consts, carries, own)]
        found = evaluate(body.jaxpr, body.consts, given)
        carries = [values[:carried] for values in found]
        for of_user, values in zip(results, found):
            of_user[turn] = values[carried:]
    if not order:
        empty = [np.zeros((0, *aval.shape), aval.dtype) for aval in body.out_avals[carried:]]
        return [[*carry, *empty] for carry in carries]
    return [[*carry, *map(Stack, map(list, zip(*turns)))] for carry, turns in zip(carries, results)]
