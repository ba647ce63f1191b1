"""An amortised updater: a network reads the support and writes a low-rank change of the adapted matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.types import Params
from metarec_jax.meta.updaters.contract import Inputs, Updater
from metarec_jax.meta.updaters.rates import Rates, rates_of

HEADS, BLOCKS = 4, 2
"""Attention heads, and blocks of attention and MLP."""
OUTSIDE = -1e30
"""Attention score of a padded row."""


def amortised(rates: Rates, *, width: int = 32) -> Updater:
    """Gradient descent, whose first step also adds a change that set attention over the support writes.

    A row of the support is a token: the sum of linear maps of its left operands ``X`` and of the gradients ``d`` by the
    products ``X @ W``, for each adapted matrix ``W``. Tokens attend to each other without positions. Linear maps of the
    results are the rows of ``D``, and the change is ``X^T D``: in Gram space, ``D`` is what is stored. A bias, and a
    matrix that multiplies a single row, change by the mean over tokens.

    With one step this is a hypernetwork; further steps are gradient descent from what it wrote. The maps that write are
    zero at first, so that the rule is initially gradient descent. The loss may use adapted matrices only as right
    operands of products; one that it does not multiply exactly once, by [rows, in] or [in], changes by gradient descent
    alone.

    Args:
        rates: inner learning rates.
        width: width of tokens, a multiple of 4.

    Returns:
        The updater.
    """

    def init(adapted: Params) -> Params:
        # A fixed seed: the initial values do not vary between runs.
        rng = np.random.default_rng(0)
        dtype = jnp.result_type(*jax.tree.leaves(adapted))

        def drawn(rows: int, columns: int) -> Array:
            return jnp.asarray(rng.normal(size=(rows, columns)) / np.sqrt(rows), dtype)

        def maps(leaf: Array) -> dict[str, Array]:
            if leaf.ndim not in (1, 2):
                return {}
            write = {"write": jnp.zeros((width, leaf.shape[-1]), dtype)}
            return write if leaf.ndim == 1 else write | dict(zip(("rows", "slopes"), map(read, leaf.shape)))

        def read(size: int) -> Array:
            return drawn(size, width)

        sizes = dict.fromkeys(("query", "key", "value", "mix"), (width, width))
        sizes |= {"wide": (width, 2 * width), "narrow": (2 * width, width)}
        return rates.init(adapted) | {
            "maps": jax.tree.map(maps, adapted),
            "blocks": [{name: drawn(*size) for name, size in sizes.items()} for _ in range(BLOCKS)],
            "count": jnp.zeros(width, dtype),
        }

    def start(phi: Params, adapted: Params, inputs: Callable[[], Inputs]) -> Params:
        leaves, structure = jax.tree.flatten(adapted)
        seen = inputs()
        left, slope, maps = (structure.flatten_up_to(tree) for tree in (seen.left, seen.slope, phi["maps"]))
        tokens = _tokens(phi, left, slope, maps, seen.weight)

        def written(leaf: Array, left: Array | None, maps: dict[str, Array]) -> Array | None:
            if "write" not in maps or ("rows" in maps and left is None):
                return None
            rows = tokens if left is not None and left.ndim == 2 else jnp.sum(tokens, axis=0)
            return rows @ maps["write"]

        return seen.change(structure.unflatten(map(written, leaves, left, maps)), adapted)

    def step(phi: Params, state: Params, adapted: Params, gradient: Params, index: Array) -> tuple[Params, Params]:
        rate = rates.at(phi, adapted, index)
        moved = jax.tree.map(lambda w, g, a, change: w - a * g + change, adapted, gradient, rate, state)
        return moved, jax.tree.map(jnp.zeros_like, state)

    return Updater(init=init, start=start, step=step)


def _tokens(
    phi: Params,
    left: list[Array | None],
    slope: list[Array | None],
    maps: list[dict[str, Array]],
    weight: Float[Array, " support"],
) -> Float[Array, "support width"]:
    """Read the support; tokens are weighted, so that their sum is a mean, and those of padded rows are zero."""
    real, count = weight > 0, jnp.maximum(jnp.sum(weight), 1.0)
    tokens = jnp.broadcast_to(jnp.log1p(count) * phi["count"][None], (len(weight), len(phi["count"])))
    for x, d, own in zip(left, slope, maps):
        if x is None or d is None or "rows" not in own:
            continue
        if x.ndim == 2:
            # The support loss is a mean over rows: times their number, a row's gradient is that of its own loss.
            x, d = jnp.where(real[:, None], x, 0.0), jnp.where(real[:, None], count * d, 0.0)
        else:
            x, d = x[None], d[None]
        tokens = tokens + x @ own["rows"] + d @ own["slopes"]
    for block in phi["blocks"]:
        tokens = _block(block, tokens, real)
    return _normal(tokens) * (jnp.where(real, weight, 0.0) / count)[:, None]


def _block(
    block: dict[str, Array], tokens: Float[Array, "support width"], real: Bool[Array, " support"]
) -> Float[Array, "support width"]:
    """Attention and MLP, each on normalised tokens and added to them."""
    normal = _normal(tokens)
    query, key, value = ((normal @ block[name]).reshape(len(normal), HEADS, -1) for name in ("query", "key", "value"))
    scores = jnp.einsum("ihc,jhc->hij", query, key) / np.sqrt(query.shape[-1])
    attention = jax.nn.softmax(jnp.where(real[None, None], scores, OUTSIDE), axis=-1)
    tokens = tokens + jnp.einsum("hij,jhc->ihc", attention, value).reshape(normal.shape) @ block["mix"]
    return tokens + jax.nn.gelu(_normal(tokens) @ block["wide"]) @ block["narrow"]


def _normal(tokens: Float[Array, "support width"]) -> Float[Array, "support width"]:
    """Tokens of mean square about 1."""
    return tokens * jax.lax.rsqrt(jnp.mean(jnp.square(tokens), axis=-1, keepdims=True) + 1e-3)


@UPDATERS.register("amortised")
@dataclasses.dataclass(frozen=True)
class AmortisedConfig(UpdaterConfig):
    """Gradient descent from a change that a network writes."""

    learns_directions = True

    kind: str = "amortised"

    def build(self, curvature: float) -> Updater:
        """The rule."""
        return amortised(rates_of(self))
