"""LoRA: a fixed matrix plus a product of two low-rank factors that are trained or adapted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params

LORA_LAYERS = (r"layer_\d+/(query|value)",)
"""Dense layers that get factors in training: the queries and values of every layer, as in the paper's section 7.1."""


def add_lora(params: Params, layers: Sequence[str], *, rank: int, key: jax.Array) -> Params:
    """Add factors ``lora_a`` [in, rank] and ``lora_b`` [rank, out] to chosen kernels of an encoder.

    Such a layer computes ``x W + b + (x A) B``: Hu et al. 2021 (arXiv 2106.09685, equation 3) with their scale
    ``alpha / r`` in A. A is random with the scale of W's columns and B is zero, so that results are unchanged at first.

    Args:
        params: parameters of an encoder (`metarec_jax.encoder.forward`).
        layers: regular expressions, each matched against whole paths of dense layers ("layer_5/query").
        rank: rank of the product.
        key: typed PRNG key.

    Returns:
        The parameters with factors.

    Raises:
        MetarecError: the rank is below 1, or a pattern matches no dense layer; the message lists the layers.
    """
    if rank < 1:
        raise MetarecError(f"the rank of LoRA is {rank}; it must be at least 1")
    chosen = lora_layers(params, layers)

    def changed(tree: Params, path: tuple[str, ...]) -> Params:
        if path in chosen:
            inputs, outputs = tree["kernel"].shape
            at = jax.random.fold_in(key, sorted(chosen).index(path))
            left = jax.random.normal(at, (inputs, rank), tree["kernel"].dtype) / np.sqrt(inputs)
            return tree | {"lora_a": left, "lora_b": jnp.zeros((rank, outputs), tree["kernel"].dtype)}
        return {name: changed(leaf, (*path, name)) if isinstance(leaf, dict) else leaf for name, leaf in tree.items()}

    return changed(params, ())


def lora_layers(params: Params, layers: Sequence[str]) -> set[tuple[str, ...]]:
    """Find the dense layers that match patterns.

    Args:
        params, layers: as for `add_lora`.

    Returns:
        Paths of the layers.

    Raises:
        MetarecError: a pattern is not a regular expression, or matches no dense layer; the message lists the layers.
    """
    dense = _dense_layers(params)
    chosen: set[tuple[str, ...]] = set()
    for pattern in layers:
        try:
            matched = [path for path in dense if re.fullmatch(pattern, "/".join(path))]
        except re.error as error:
            raise MetarecError(f"LoRA: {pattern!r} is not a regular expression: {error}") from error
        if not matched:
            names = ", ".join("/".join(path) for path in dense)
            raise MetarecError(f"LoRA: {pattern!r} matches no dense layer of the encoder; there are {names}")
        chosen.update(matched)
    return chosen


def merge_lora(params: Params) -> Params:
    """Add each product of factors to its kernel, and drop the factors."""
    if not isinstance(params, dict):
        return params
    if "lora_a" in params:
        rest = {name: leaf for name, leaf in params.items() if not name.startswith("lora_")}
        return rest | {"kernel": params["kernel"] + params["lora_a"] @ params["lora_b"]}
    return {name: merge_lora(leaf) for name, leaf in params.items()}


def _dense_layers(tree: Params, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return []
    found = [path] if getattr(tree.get("kernel"), "ndim", 0) == 2 else []
    return found + [p for name, leaf in tree.items() for p in _dense_layers(leaf, (*path, name))]
