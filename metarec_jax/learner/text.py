"""A learner whose parameters include the encoder, so that the inner loop can adapt parts of it.

The parameters are those of `metarec_jax.learner.mlp` and ``encoder/...``. Patterns choose what is adapted, such as
``encoder/.*bias``, ``encoder/.*norm/.*``, ``encoder/layer_(4|5)/.*`` (the last two of six) or ``encoder/.*lora_.*``.
Layers below the lowest adapted one are computed once for each distinct text, in `prepare`; the others once for each
user's rows and inner step. Where the inner loop adapts the encoder, attention uses XLA operations, which have
derivatives of every order.
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
from metarec_jax.encoder import Attention, Execution, ModelConfig, Pooling, Tokens, embed, run_layers, text_vectors
from metarec_jax.encoder.parts import along_last
from metarec_jax.learner import mlp
from metarec_jax.learner.gathered_rows import Fixed, as_array
from metarec_jax.learner.heads import Head


class Half(NamedTuple):
    """Partly encoded texts.

    Attributes:
        states: float32 [texts, length, hidden], inputs of the first layer that is not computed yet; `Tokens` where the
            embeddings are not computed yet either.
        mask: float32 [texts, length], 1 for a real token.
        skip: int32 [texts], number of first tokens that mean pooling leaves out; None for none.
    """

    states: Array | Tokens
    mask: Array
    skip: Array | None = None


class Reader(NamedTuple):
    """Options of encoding texts.

    Attributes:
        config: the encoder's architecture.
        below: number of layers that are computed once for each distinct text; with -1 the embeddings are not either.
        pooling, normalise, dims, run: as for `metarec_jax.encoder.encode`.
    """

    config: ModelConfig
    below: int
    pooling: Pooling = "mean"
    normalise: bool = True
    dims: int = 0
    run: Execution = Execution()


def make_reader(
    config: ModelConfig,
    params: Params,
    adapted: Sequence[str],
    *,
    pooling: Pooling = "mean",
    normalise: bool = True,
    dims: int = 0,
    attention: Attention = "xla",
) -> Reader:
    """Make the options of encoding texts for a model that adapts the parameters of some patterns.

    Args:
        config: the encoder's architecture.
        params: parameters of the learner, with ``encoder``.
        adapted: patterns of adapted parameters, as for `metarec_jax.core.params.partition`.
        pooling, normalise, dims: as for `metarec_jax.encoder.encode`.
        attention: as for `metarec_jax.encoder.Execution`.

    Returns:
        The options.

    Raises:
        MetarecError: attention is fused, which has no second derivative, and the inner loop adapts the encoder. This
            includes first-order outer gradients, where JAX computes the second derivative before it is discarded.
    """
    names = [name for name in path_names(params) if any(re.fullmatch(pattern, name) for pattern in adapted)]
    of_encoder = [name for name in names if name.startswith("encoder/")]
    if attention == "fused" and of_encoder:
        raise MetarecError(
            f"encoder.attention is 'fused', but the inner loop adapts {of_encoder[0]}: its outer gradient goes through "
            "attention twice, to first order too, and fused kernels have no second derivative: use attention 'xla' or "
            "'tiled'"
        )
    layers = [int(m.group(1)) for name in of_encoder if (m := re.match(r"encoder/layer_(\d+)/", name))]
    if any(name.startswith("encoder/relative_bias/") for name in of_encoder):
        layers.append(0)  # every layer reads MPNet's relative position bias
    if any(name.startswith("encoder/final_norm/") for name in of_encoder):
        layers.append(config.num_layers - 1)  # the norm is computed with the last layer
    below = min(layers, default=config.num_layers)
    if any(name.startswith("encoder/embeddings/") for name in of_encoder):
        below = -1
    return Reader(config, below, pooling, normalise, dims, Execution(attention))


def prepare(params: Params, tables: Tables, *, reader: Reader) -> Prepared:
    """Compute the layers that are not adapted, once for each distinct text.

    Args:
        params: parameters of the learner.
        tables: `Tokens` of items and of users; an array [users, hidden] where users have no text.
        reader: from `make_reader`.

    Returns:
        Partly encoded texts of items and users; an array of users is unchanged.
    """
    return Prepared(*(_half(params["encoder"], table, reader) for table in tables))


def _half(params: Params, tokens: Any, reader: Reader) -> Any:
    if not isinstance(tokens, Tokens):
        return tokens
    if reader.below < 0:
        return Half(tokens, tokens.mask, tokens.skip)
    states = embed(params, reader.config, tokens)
    last = run_layers(params, reader.config, states, tokens.mask, first=0, last=reader.below, run=reader.run)
    return Half(last, tokens.mask, tokens.skip)


def apply(
    params: Params, head: Head, context: mlp.Context, rows: mlp.Features, *, reader: Reader, **options: Any
) -> Array:
    """Compute outputs for some rows of one user.

    Args:
        params: parameters of `metarec_jax.learner.mlp`, and ``encoder``.
        head: interpretation of the outputs.
        context: the user, with rows of prepared tables.
        rows: n rows to score, with rows of prepared tables.
        reader: from `make_reader`.
        **options: as for `metarec_jax.learner.mlp.apply`.

    Returns:
        [n, outputs].
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
            how = {"pooling": reader.pooling, "normalise": reader.normalise, "dims": reader.dims, "run": reader.run}
            half = text_vectors(encoder, reader.config, last, half.mask, half.skip, **how)
            half = half[0] if one else half
        return (half - along_last(fixed[side]["shift"], half)) * fixed[side]["scale"]

    context = context._replace(embedding=vectors(context.embedding, "user"))
    rows = rows._replace(embedding=vectors(rows.embedding, "item"))
    return mlp.apply(params, head, context, rows, **options)
