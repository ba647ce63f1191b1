"""A recurrent learner: a GRU reads the support in order of time, and its state is an input of the scores.

The initial state depends on the user's text. The state is a further input of the hidden layer of
`metarec_jax.learner.mlp`: the final state for the query, and for each support row the state before it, which does not
depend on the row's rating.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core.kinds import LEARNERS
from metarec_jax.core.types import Params
from metarec_jax.learner import mlp
from metarec_jax.learner.contract import Learner, ReaderConfig, text_learner
from metarec_jax.learner.gathered_rows import multiply
from metarec_jax.learner.heads import Head
from metarec_jax.learner.inputs import Context, Features, of_user_text, whole
from metarec_jax.learner.prior import rating_features


class Summary(NamedTuple):
    """States of the last layer.

    Attributes:
        last: float32 [width], state after the whole support.
        before: float32 [support, width], state before each row.
    """

    last: Array
    before: Array


def init(
    key: Array,
    head: Head,
    *,
    layers: int,
    width: int,
    item_embeddings: Float[np.ndarray, "items hidden_in"],
    user_embeddings: Float[np.ndarray, "users hidden_user"],
    **of_mlp: Any,
) -> Params:
    """Draw the parameters of `metarec_jax.learner.mlp.init`, and ``support/...``. Outputs start at the prior path's.

    Args:
        key, head, item_embeddings, user_embeddings, **of_mlp: as for the MLP.
        layers: number of GRU layers; each reads the states of the one below.
        width: width of a state.

    Returns:
        A nested dict.
    """
    params = mlp.init(
        key,
        head,
        read=width,
        item_embeddings=item_embeddings,
        user_embeddings=user_embeddings,
        **of_mlp,
    )
    keys = iter(jax.random.split(jax.random.fold_in(key, 4), 1 + 2 * layers))

    def kernel(rows: int, scale: float) -> Params:
        return {"kernel": jax.random.normal(next(keys), (rows, 3 * width)) * scale}

    def layer(number: int) -> Params:
        inputs = kernel(width, 1 / np.sqrt(width)) if number else kernel(item_embeddings.shape[1], 1.0)
        return {
            "input": inputs,
            "state": kernel(width, 1 / np.sqrt(width)),
            "gates": {"bias": jnp.zeros(3 * width)},
            "start": {"kernel": jnp.zeros((user_embeddings.shape[1], width)), "bias": jnp.zeros(width)},
        }

    params["support"] = {"rating": kernel(1, 1.0), **{f"layer_{number}": layer(number) for number in range(layers)}}
    return params


def summarise(
    params: Params,
    head: Head,
    context: Context,
    *,
    user_dropout: float = 0.0,
    compute: DTypeLike | None = None,
) -> Summary | None:
    """Run the GRU over the support of one user.

    The cell is that of Cho et al. 2014 (arXiv 1406.1078, equations 5 to 8), with the reset gate applied after the
    product, so that a step has one product: ``h <- (1 - z) h + z tanh(x_c + r * (U_c h))``.

    Args:
        params: from `init`, or the shared ones among them.
        head: interpretation of the outputs.
        context: the user, with embeddings from prepared tables; the support's latest row first.
        user_dropout, compute: as for `apply`.

    Returns:
        The states; None where a parameter that they depend on is adapted (None in `params`).
    """
    if not whole(params["support"], params["prior"]):
        return None
    support, real = params["support"], context.mask > 0

    def product(rows: Array, kernel: Any) -> Array:
        return multiply(rows.astype(compute or rows.dtype), kernel)

    rated = product(rating_features(params["prior"], head, context), support["rating"]["kernel"])
    # Replace padded rows instead of multiplying by 0, since they may hold infinite or NaN values.
    of_items = context.support.embedding @ support["layer_0"]["input"]["kernel"]
    item = jnp.where(real[:, None], of_items, 0.0)
    inputs, states = item + rated, (jnp.zeros((0, 0)), jnp.zeros((0, 0)))
    for number in range(sum(name.startswith("layer_") for name in support)):
        layer = support[f"layer_{number}"]
        if number:
            inputs = product(states[1], layer["input"]["kernel"])
        start = jnp.tanh(of_user_text(context, layer["start"]["kernel"], user_dropout) + layer["start"]["bias"])
        states = _states(layer, start, inputs + layer["gates"]["bias"][None], context.mask, product)
    before, after = states
    return Summary(after[0], before)


def _states(
    layer: Params,
    start: Float[Array, " width"],
    inputs: Float[Array, "support gates"],
    weight: Float[Array, " support"],
    product: Callable[[Array, Any], Array],
) -> tuple[Float[Array, "support width"], Float[Array, "support width"]]:
    """States before and after each slot; padded slots leave the state unchanged."""

    def step(state: Array, slot: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        of_input, weighs = slot
        of_state = product(state, layer["state"]["kernel"])
        (update, reset, new), (by_update, by_reset, by_new) = (jnp.split(part, 3) for part in (of_input, of_state))
        candidate = jnp.tanh(new + jax.nn.sigmoid(reset + by_reset) * by_new)
        moved = state + weighs * jax.nn.sigmoid(update + by_update) * (candidate - state)
        moved = jnp.where(weighs > 0, moved, state)
        return moved, (state, moved)

    # In reverse: padding is in the last slots, and the latest row in the first.
    return jax.lax.scan(step, start, (inputs, weight), reverse=True)[1]


def apply(
    params: Params,
    head: Head,
    context: Context,
    rows: Features,
    *,
    user_dropout: float = 0.0,
    compute: DTypeLike | None = None,
    **options: Any,
) -> Float[Array, "n outputs"]:
    """Compute outputs for some rows of one user.

    Args:
        params: from `init`.
        head: interpretation of the outputs.
        context: the user, with embeddings from prepared tables.
        rows: n rows to score, with embeddings from prepared tables; the support is recognised as ``context.support``.
        user_dropout, compute, **options: as for `metarec_jax.learner.mlp.apply`.

    Returns:
        [n, outputs].
    """
    common: dict[str, Any] = {"user_dropout": user_dropout, "compute": compute}
    summary = context.summary
    if summary is None:
        summary = summarise(params, head, context, **common)
    read = summary.before if rows is context.support else summary.last
    return mlp.apply(params, head, context, rows, read=read, **common, **options)


@LEARNERS.register("recurrent")
@dataclasses.dataclass(frozen=True)
class RecurrentConfig(ReaderConfig):
    """A learner with a GRU over the support, in order of time."""

    needs_times = True

    kind: str = "recurrent"

    def build(self, head: Head) -> Learner:
        """The learner."""
        return text_learner(self, head, functools.partial(init, layers=self.layers, width=self.width), apply, summarise)
