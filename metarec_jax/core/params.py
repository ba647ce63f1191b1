"""Partition of parameters into those that the inner loop adapts and those that all users share.

A tree is split by ordered patterns over the paths of its leaves ("hidden/item/kernel"). Both parts keep the tree's
structure, with None where the other part has the leaf; JAX treats None as an empty subtree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.patterns import check_pattern
from metarec_jax.core.types import Params

_ENCODER = (
    "Parameters of the encoder adapt through Python only, by patterns such as 'encoder/.*bias' or "
    "'encoder/layer_5/.*': see docs/adapting-the-encoder.md"
)


def path_names(tree: Params) -> list[str]:
    """The path of every leaf, in leaf order, as "a/b/c"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]


def partition(
    tree: Params, adapted: Sequence[str], *, option: str = "updater.adapted", of: str = "parameter"
) -> tuple[Params, Params]:
    """Split `tree` into (adapted, shared).

    Args:
        tree: parameters of a learner.
        adapted: regular expressions, each matched against whole paths.
        option: the option that holds the patterns, for messages.
        of: what a leaf of the tree is, for messages.

    Returns:
        Both parts, each with None for the leaves of the other.

    Raises:
        MetarecError: a pattern is not a regular expression, or matches no path; the message lists the paths.

    >>> partition({"hidden": 1, "output": 2}, ["output"])
    ({'hidden': None, 'output': 2}, {'hidden': 1, 'output': None})
    """
    names = path_names(tree)
    chosen: set[str] = set()
    for pattern in adapted:
        check_pattern(option, pattern)
        matched = [name for name in names if re.fullmatch(pattern, name)]
        if not matched:
            message = f"{option}: {shown(pattern)} matches no {of}; there are {', '.join(names)}"
            if "encoder" in pattern and not any(name.startswith("encoder/") for name in names):
                message += f". {_ENCODER}"
            raise MetarecError(message)
        chosen.update(matched)
    return split(tree, [name in chosen for name in names])


def split(tree: Params, first: Sequence[bool]) -> tuple[Params, Params]:
    """Split `tree` into two parts, each with None for the leaves of the other; `combine` is the inverse.

    Args:
        tree: parameters.
        first: for each leaf, in leaf order, whether it belongs to the first part.

    Returns:
        The first and the second part.

    >>> split({"hidden": 1, "output": 2}, [False, True])
    ({'hidden': None, 'output': 2}, {'hidden': 1, 'output': None})
    """
    leaves, structure = jax.tree_util.tree_flatten(tree)
    return (
        structure.unflatten([leaf if kept else None for leaf, kept in zip(leaves, first)]),
        structure.unflatten([None if kept else leaf for leaf, kept in zip(leaves, first)]),
    )


def combine(adapted: Params, shared: Params) -> Params:
    """Merge two parts of a tree: the inverse of `partition`.

    Args:
        adapted: one part.
        shared: the other part.

    Returns:
        The whole tree.

    >>> combine({"hidden": None, "output": 2}, {"hidden": 1, "output": None})
    {'hidden': 1, 'output': 2}
    """
    return jax.tree.map(lambda a, s: s if a is None else a, adapted, shared, is_leaf=lambda leaf: leaf is None)


def usable(tree: Params) -> list[Any]:
    """For each leaf, whether all its numbers are valid, bool []; for host arrays, or in a compiled function."""

    def in_range(name: str, leaf: Any) -> Any:
        most = math.log(jnp.finfo(leaf.dtype).max) if _is_logarithm(name) else math.inf
        return ((leaf > -math.inf) & (leaf < most)).all()  # False for NaN

    return [in_range(name, leaf) for name, leaf in zip(path_names(tree), jax.tree.leaves(tree))]


def names_as_used(tree: Params) -> list[str]:
    """The path of every leaf, in leaf order; "exp(path)" for a logarithm.

    >>> names_as_used({"log_rate": {"bias": 0.0}, "bias": 1.0})
    ['bias', 'exp(log_rate/bias)']
    """
    return [f"exp({name})" if _is_logarithm(name) else name for name in path_names(tree)]


def unusable_names(tree: Params) -> list[str]:
    """Names of the leaves of a tree of host arrays that hold invalid numbers."""
    return [name for name, ok in zip(names_as_used(tree), usable(tree)) if not ok]


def _is_logarithm(name: str) -> bool:
    return any(part.startswith("log_") for part in name.split("/"))
