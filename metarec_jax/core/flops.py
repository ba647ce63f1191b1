"""Count the FLOPs of the matrix products of a JAX function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np


def products(function: Callable[..., Any], *arguments: Any) -> float:
    """Count the matrix products in a call of a function; the body of a counted loop is multiplied by its length.

    Args:
        function: function that JAX can trace.
        *arguments: arrays, or their shapes.

    Returns:
        GFLOP.
    """
    return products_of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr) / 1e9


def products_of_jaxpr(jaxpr: Any, turns: Callable[[str], int | None] = lambda path: None) -> float:
    """Count the matrix products of a jaxpr; for a conditional, those of its most expensive branch.

    Args:
        jaxpr: jaxpr of the function.
        turns: number of iterations of a loop whose length depends on data, by the loop's name stack; the body counts
            once where it returns None.

    Returns:
        FLOP.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * np.prod([left[i] for i in contracted]) * np.prod(equation.outvars[0].aval.shape)
        times = 1
        if equation.primitive.name == "scan":
            times = equation.params["length"]
        elif equation.primitive.name == "while":
            times = turns(str(equation.source_info.name_stack)) or 1
        elif equation.primitive.name == "shard_map":  # its body is the program of one device
            times = equation.params["mesh"].size
        inside = [products_of_jaxpr(inner, turns) for inner in _called_by(equation)]
        total += max(inside) if equation.primitive.name == "cond" else times * sum(inside)
    return total


def _called_by(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for inner in value if isinstance(value, tuple | list) else [value]:
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield inner
