"""A learner with attention over the support: a Transformer over the user's rated items, as a set.

Each support row is a token (item and rating), and the user's text is one more. Support tokens attend to all tokens,
and the item to be scored attends to them: the result is a further input of the hidden layer of
`metarec_jax.learner.mlp`. There are no positions, so outputs do not depend on the order of the support.
"""

from __future__ import annotations

import dataclasses
import functools
import math
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

HEADS = 4
"""Attention heads; with a width that it does not divide, their greatest common divisor is used."""


class Summary(NamedTuple):
    """Summary of the support, which rows to score attend to.

    Attributes:
        keys, values: float32 [tokens, width]; the user's token first, then the support's.
        weight: float32 [tokens], weight of each token; 0 for padding.
        own: float32 [support, width], attention output of each support row over all tokens but its own.
    """

    keys: Array
    values: Array
    weight: Array
    own: Array


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
        layers: number of self-attention layers over the support.
        width: width of a token.

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
    keys = iter(jax.random.split(jax.random.fold_in(key, 4), 5 + 6 * layers))

    def kernel(rows: int, columns: int, scale: float) -> Params:
        return {"kernel": jax.random.normal(next(keys), (rows, columns)) * scale}

    def square() -> Params:
        return kernel(width, width, 1 / np.sqrt(width))

    def layer() -> Params:
        return {
            "attention_norm": _norm(width),
            **{name: square() for name in ("query", "key", "value", "out")},
            "feed_forward_norm": _norm(width),
            "up": kernel(width, 2 * width, 1 / np.sqrt(width)),
            "down": kernel(2 * width, width, 1 / np.sqrt(2 * width)),
        }

    params["support"] = {
        "item": kernel(item_embeddings.shape[1], width, 1.0),  # inputs have norm 1
        "rating": kernel(1, width, 1.0),
        "user": {"kernel": jnp.zeros((user_embeddings.shape[1], width)), "bias": jnp.zeros(width)},
        **{f"layer_{number}": layer() for number in range(layers)},
        "norm": _norm(width),
        "read": {name: square() for name in ("query", "key", "value")},
    }
    return params


def summarise(
    params: Params,
    head: Head,
    context: Context,
    *,
    heads: int,
    user_dropout: float = 0.0,
    compute: DTypeLike | None = None,
) -> Summary | None:
    """Encode the support of one user.

    A support row does not attend to its own token. Other support tokens have attended to it in the layers before, so
    its own rating still has an indirect effect on its prediction, as it has through the user's bias.

    Args:
        params: from `init`, or the shared ones among them.
        head: interpretation of the outputs.
        context: the user, with embeddings from prepared tables.
        heads: number of attention heads; it divides the width.
        user_dropout, compute: as for `apply`.

    Returns:
        The summary; None where a parameter that it depends on is adapted (None in `params`).
    """
    if not whole(params["support"], params["prior"]):
        return None
    support = params["support"]

    def product(rows: Array, kernel: Any) -> Array:
        return multiply(rows.astype(compute or rows.dtype), kernel)

    # Replace padded rows instead of multiplying by 0, since they may hold infinite or NaN values.
    of_items = context.support.embedding @ support["item"]["kernel"]
    item = jnp.where(context.mask[:, None] > 0, of_items, 0.0)
    rated = product(rating_features(params["prior"], head, context), support["rating"]["kernel"])
    user = of_user_text(context, support["user"]["kernel"], user_dropout) + support["user"]["bias"]
    states = jnp.concatenate([user[None], item + rated])
    weight = jnp.concatenate([jnp.ones_like(context.mask, shape=1), context.mask])
    # The user's token attends to itself alone, so that one token does not depend on any rating.
    place = jnp.arange(len(weight))
    attended = weight[None] * ((place[:, None] > 0) | (place == 0)[None]).astype(weight.dtype)
    for number in range(sum(name.startswith("layer_") for name in support)):
        layer = support[f"layer_{number}"]
        normed = _normalise(layer["attention_norm"], states)
        query, key, value = (product(normed, layer[name]["kernel"]) for name in ("query", "key", "value"))
        states += product(_attend(query, key, value, attended, heads, compute), layer["out"]["kernel"])
        normed = _normalise(layer["feed_forward_norm"], states)
        states += product(jax.nn.gelu(product(normed, layer["up"]["kernel"])), layer["down"]["kernel"])
    normed = _normalise(support["norm"], states)
    keys, values = (product(normed, support["read"][name]["kernel"]) for name in ("key", "value"))
    query = product(item, support["read"]["query"]["kernel"])
    others = weight[None] * (~jnp.eye(len(item), len(states), k=1, dtype=bool)).astype(weight.dtype)
    return Summary(keys, values, weight, _attend(query, keys, values, others, heads, compute))


def apply(
    params: Params,
    head: Head,
    context: Context,
    rows: Features,
    *,
    heads: int,
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
        heads: number of attention heads; it divides the width.
        user_dropout, compute, **options: as for `metarec_jax.learner.mlp.apply`.

    Returns:
        [n, outputs].
    """
    common: dict[str, Any] = {"user_dropout": user_dropout, "compute": compute}
    summary = context.summary
    if summary is None:
        summary = summarise(params, head, context, heads=heads, **common)
    if rows is context.support:
        read = summary.own
    else:
        support = params["support"]
        item = rows.embedding @ support["item"]["kernel"]
        query = multiply(item.astype(compute or item.dtype), support["read"]["query"]["kernel"])
        read = _attend(query, summary.keys, summary.values, summary.weight, heads, compute)
    return mlp.apply(params, head, context, rows, read=read, **common, **options)


def _attend(
    query: Float[Array, "n width"],
    key: Float[Array, "tokens width"],
    value: Float[Array, "tokens width"],
    weight: Float[Array, "*n tokens"],
    heads: int,
    compute: DTypeLike | None,
) -> Float[Array, "n width"]:
    """Multi-head attention with weighted tokens (Vaswani et al. 2017, arXiv 1706.03762, section 3.2).

    Weights multiply the exponentials of the softmax, which is not in `compute`. A token of weight 0 gets a gradient of
    exactly 0; the user's token has weight 1, so no row is empty.
    """

    def split(rows: Array) -> Array:
        return rows.astype(compute or rows.dtype).reshape(len(rows), heads, -1)

    def einsum(pattern: str, *operands: Array) -> Array:
        return jnp.einsum(pattern, *operands, preferred_element_type=query.dtype)

    scores = einsum("nhd,thd->hnt", split(query), split(key)) / np.sqrt(query.shape[-1] / heads)
    weight = jnp.atleast_2d(weight)[None]
    scores += jnp.log(jnp.where(weight > 0, weight, 1.0))
    weights = jax.nn.softmax(jnp.where(weight > 0, scores, jnp.finfo(scores.dtype).min))
    return einsum("hnt,thd->nhd", weights.astype(compute or weights.dtype), split(value)).reshape(query.shape)


def _norm(width: int) -> Params:
    return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}


def _normalise(params: Params, states: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
    """Layer norm."""
    return jax.nn.standardize(states, epsilon=1e-6) * params["scale"][None] + params["bias"][None]


@LEARNERS.register("transformer")
@dataclasses.dataclass(frozen=True)
class TransformerConfig(ReaderConfig):
    """A learner with attention over the support, as a set."""

    kind: str = "transformer"

    def build(self, head: Head) -> Learner:
        """The learner."""
        heads = math.gcd(self.width, HEADS)
        return text_learner(
            self,
            head,
            functools.partial(init, layers=self.layers, width=self.width),
            functools.partial(apply, heads=heads),
            functools.partial(summarise, heads=heads),
            attention=lambda support: heads * (support + 1),
        )
