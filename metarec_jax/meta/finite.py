"""Which parameters no longer hold numbers that one can compute with.

A number must be finite. Below a name that begins with "log_" lie logarithms (of rates, precisions, ...): what is used
is their exponential, which must be finite, too.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from metarec_jax.meta.partition import path_names
from metarec_jax.types import Params


def usable(tree: Params) -> list[Any]:
    """Of each leaf whether all its numbers can be used, bool []; of host arrays, or in a compiled function."""

    def in_range(name: str, leaf: Any) -> Any:
        most = math.log(jnp.finfo(leaf.dtype).max) if _is_logarithm(name) else math.inf
        return ((leaf > -math.inf) & (leaf < most)).all()  # which is false of NaN

    return [in_range(name, leaf) for name, leaf in zip(path_names(tree), jax.tree.leaves(tree))]


def names_as_used(tree: Params) -> list[str]:
    """The path of every leaf, in leaf order; of a logarithm as "exp(path)".

    >>> names_as_used({"log_rate": {"bias": 0.0}, "bias": 1.0})
    ['bias', 'exp(log_rate/bias)']
    """
    return [f"exp({name})" if _is_logarithm(name) else name for name in path_names(tree)]


def unusable_names(tree: Params) -> list[str]:
    """Which leaves of a tree of host arrays cannot be used."""
    return [name for name, ok in zip(names_as_used(tree), usable(tree)) if not ok]


def _is_logarithm(name: str) -> bool:
    return any(part.startswith("log_") for part in name.split("/"))
