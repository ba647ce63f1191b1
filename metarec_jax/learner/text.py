"""A learner that reads: the encoder is among its parameters, so that an inner loop can adapt parts of it.

The parameters are those of `metarec_jax.learner.mlp` with ``encoder/...`` beside them, and patterns choose what adapts:
``encoder/.*bias``, ``encoder/.*norm/.*``, ``encoder/layer_(4|5)/.*`` (the last two of six), ``encoder/.*lora_.*``.
Layers below the lowest that adapts are run once for each distinct text, in `prepare`; the others once for each user's
rows and inner step. Where the inner loop adapts the encoder, attention is plain XLA operations, which have derivatives
of every order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Params, Prepared, Tables
from metarec_jax.encoder import Attention, BertConfig, Execution, Pooling, Tokens, embed, pool, run_layers
from metarec_jax.encoder.linear import along_last
from metarec_jax.learner import mlp
from metarec_jax.learner.gathered_rows import Fixed, as_array
from metarec_jax.learner.heads import Head


class Half(NamedTuple):
    """Texts on their way through the encoder.

    Attributes:
        states: float32 [texts, length, hidden], what the first layer that is left reads; or `Tokens`, where all are.
        mask: float32 [texts, length], 1 for a real token.
    """

    states: Array | Tokens
    mask: Array


class Reader(NamedTuple):
    """How texts become vectors.

    Attributes:
        config: the encoder's architecture.
        below: layers that are run once for each distinct text; -1 leaves the word embeddings to `apply`, too.
        pooling, normalise, run: as for `metarec_jax.encoder.encode`.
    """

    config: BertConfig
    below: int
    pooling: Pooling = "mean"
    normalise: bool = True
    run: Execution = Execution()


def make_reader(
    config: BertConfig,
    params: Params,
    adapted: Sequence[str],
    *,
    pooling: Pooling = "mean",
    normalise: bool = True,
    attention: Attention = "xla",
) -> Reader:
    """The reader of a model in which parameters of `adapted` patterns adapt.

    Args:
        config: the encoder's architecture.
        params: of the learner, with ``encoder``.
        adapted: patterns, as `metarec_jax.core.params.partition` takes them.
        pooling, normalise: as for `metarec_jax.encoder.encode`.
        attention: as for `metarec_jax.encoder.Execution`.

    Raises:
        MetarecError: fused attention, which has no second derivative, where the inner loop adapts the encoder. To
            first order the outer gradient is not that derivative either, but JAX takes it and then leaves it out.
    """
    names = [name for name in path_names(params) if any(re.fullmatch(pattern, name) for pattern in adapted)]
    of_encoder = [name for name in names if name.startswith("encoder/")]
    if attention == "fused" and of_encoder:
        raise MetarecError(
            f"encoder.attention is 'fused', but the inner loop adapts {of_encoder[0]}: its outer gradient goes through "
            "attention twice, to first order too, and fused kernels have no second derivative: use attention 'xla' or "
            "'packed'"
        )
    layers = [int(m.group(1)) for name in of_encoder if (m := re.match(r"encoder/layer_(\d+)/", name))]
    if any(name.startswith("encoder/relative_bias/") for name in of_encoder):
        layers.append(0)  # MPNet's bias by distance, which every layer reads
    below = min(layers, default=config.num_layers)
    if any(name.startswith("encoder/embeddings/") for name in of_encoder):
        below = -1
    return Reader(config, below, pooling, normalise, Execution(attention))


def prepare(params: Params, tables: Tables, *, reader: Reader) -> Prepared:
    """Runs the layers that no user changes, once for each distinct text.

    Args:
        params: of the learner.
        tables: `Tokens` of items and of users; an array [users, hidden] where users have no text.
        reader: from `make_reader`.
    """
    return Prepared(*(_half(params["encoder"], table, reader) for table in tables))


def _half(params: Params, tokens: Any, reader: Reader) -> Any:
    if not isinstance(tokens, Tokens):
        return tokens
    if reader.below < 0:
        return Half(tokens, tokens.mask)
    states = embed(params, reader.config, tokens)
    last = run_layers(params, reader.config, states, tokens.mask, first=0, last=reader.below, run=reader.run)
    return Half(last, tokens.mask)


def apply(
    params: Params, head: Head, context: mlp.Context, rows: mlp.Features, *, reader: Reader, **options: Any
) -> Array:
    """Outputs for some rows of one user.

    Args:
        params: of `metarec_jax.learner.mlp`, and ``encoder``.
        head: what the outputs mean.
        context: the user, with rows of tables that were prepared.
        rows: n rows to score, likewise.
        reader: from `make_reader`.
        **options: as for `metarec_jax.learner.mlp.apply`.
    """
    encoder = jax.tree.map(as_array, params["encoder"], is_leaf=lambda leaf: not isinstance(leaf, dict))
    fixed = jax.lax.stop_gradient(params["input"])

    def vectors(embedding: Any, side: str) -> Array:
        half = embedding.array() if isinstance(embedding, Fixed) else embedding
        if isinstance(half, Half):
            one = half.mask.ndim == 1
            half = jax.tree.map(lambda leaf: leaf[None], half) if one else half
            states, first = half.states, reader.below
            if isinstance(states, Tokens):
                states, first = embed(encoder, reader.config, states), 0
            layers = {"first": first, "last": reader.config.num_layers}
            last = run_layers(encoder, reader.config, states, half.mask, **layers, run=reader.run)
            half = pool(last, half.mask, pooling=reader.pooling, normalise=reader.normalise)
            half = half[0] if one else half
        return (half - along_last(fixed[side]["shift"], half)) * fixed[side]["scale"]

    context = context._replace(embedding=vectors(context.embedding, "user"))
    rows = rows._replace(embedding=vectors(rows.embedding, "item"))
    return mlp.apply(params, head, context, rows, **options)
