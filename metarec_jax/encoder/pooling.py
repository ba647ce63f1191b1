"""The vector of a text: pooling of the vectors of its tokens, dense layers, the first numbers, and unit length."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Array as AnyArray
from metarec_jax.core.types import Params
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.execution import EXECUTION, Execution
from metarec_jax.encoder.model_config import ModelConfig, Pooling
from metarec_jax.encoder.parts import Dense


def text_vectors(
    params: Params,
    config: ModelConfig,
    last: Float[jax.Array, "texts length hidden"],
    mask: Float[jax.Array, "texts length"],
    skip: Int[AnyArray, ...] | None = None,
    lengths: Int[AnyArray, "texts places"] | None = None,
    *,
    pooling: Pooling = "mean",
    normalise: bool = False,
    dims: int = 0,
    run: Execution = EXECUTION,
) -> Float[jax.Array, "vectors width"]:
    """Compute the vector of each text from the output of the last layer.

    Args:
        params: parameters of the encoder, of which those of its dense layers after pooling are read.
        config: the architecture.
        last, mask, skip, pooling: as for `pool`.
        lengths: of rows with several texts, as in `Tokens`; `pool_rows` then pools. None where a row is one text.
        normalise: scale vectors to unit length, after everything else.
        dims: number of first numbers that are kept of each vector (Matryoshka embeddings: Kusupati et al. 2022, arXiv
            2205.13147); 0 keeps all.
        run: how parameters that are sharded over devices are gathered.

    Returns:
        Vectors of width ``config.width(dims)``, in float32 or wider.

    Raises:
        MetarecError: as for `pool`.
    """
    if lengths is None:
        vectors = pool(last, mask, skip, pooling=pooling)
    else:
        vectors = pool_rows(last, lengths, skip, pooling=pooling)
    for number, projection in enumerate(config.projections):
        own = run.whole(params[f"projection_{number}"])
        dense = Dense(projection.features, use_bias=projection.bias, dtype=vectors.dtype)
        vectors = ACTIVATIONS[projection.activation](cast("jax.Array", dense.apply({"params": own}, vectors)))
    vectors = vectors[:, :dims] if dims else vectors
    return to_unit_length(vectors) if normalise else vectors


def pool(
    last: Float[jax.Array, "texts length hidden"],
    mask: Float[jax.Array, "texts length"],
    skip: Int[AnyArray, " texts"] | None = None,
    *,
    pooling: Pooling = "mean",
    normalise: bool = False,
) -> Float[jax.Array, "texts hidden"]:
    """Pool the vectors of each text's tokens into one vector.

    Args:
        last: output of the last layer.
        mask: 1 for a real token, 0 for padding.
        skip: number of first tokens of each text that the mean leaves out; None leaves out none.
        pooling: "mean" of the real tokens, the first token ("cls"), or the last real token ("lasttoken").
        normalise: scale vectors to unit length.

    Returns:
        Vectors in float32 or wider. A text with no real token gets 0 from "mean" and "lasttoken".

    Raises:
        MetarecError: the pooling is none of these, such as an unresolved "auto".
    """
    last = last.astype(jnp.promote_types(last.dtype, jnp.float32))
    if pooling == "cls":
        vectors = last[:, 0]
    elif pooling == "mean":
        mask = mask.astype(last.dtype)
        if skip is not None:
            place = jnp.arange(mask.shape[1], dtype=jnp.int32)[None]
            mask = jnp.where(place >= jnp.asarray(skip)[:, None], mask, 0)
        vectors = jnp.einsum("tlh,tl->th", last, mask) / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    elif pooling == "lasttoken":
        real = mask > 0  # padding may be on either side
        place = jnp.where(real, jnp.arange(mask.shape[1], dtype=jnp.int32)[None], -1).max(axis=1)
        vectors = jnp.take_along_axis(last, jnp.maximum(place, 0)[:, None, None], axis=1)[:, 0]
        vectors = jnp.where(place[:, None] >= 0, vectors, 0)
    else:
        raise MetarecError(_unknown(pooling))
    return to_unit_length(vectors) if normalise else vectors


def pool_rows(
    last: Float[jax.Array, "rows length hidden"],
    lengths: Int[AnyArray, "rows texts"],
    skip: Int[AnyArray, "rows texts"] | None = None,
    *,
    pooling: Pooling = "mean",
) -> Float[jax.Array, "vectors hidden"]:
    """Pool the vectors of each text's tokens into one vector, in rows with several texts.

    Args:
        last: output of the last layer.
        lengths, skip: as in `Tokens`.
        pooling: as for `pool`.

    Returns:
        Vectors of all places for a text, in float32 or wider: [rows * texts, hidden]; 0 for one without tokens.

    Raises:
        MetarecError: as for `pool`.
    """
    last = last.astype(jnp.promote_types(last.dtype, jnp.float32))
    lengths = jnp.asarray(lengths)
    end = jnp.cumsum(lengths, axis=1)
    start = end - lengths
    if pooling == "mean":
        start = start if skip is None else jnp.minimum(start + jnp.asarray(skip), end)
        place = jnp.arange(last.shape[1], dtype=end.dtype)[None, None]
        inside = ((place >= start[:, :, None]) & (place < end[:, :, None])).astype(last.dtype)
        vectors = jnp.einsum("rlh,rtl->rth", last, inside) / jnp.maximum(inside.sum(axis=2, keepdims=True), 1)
    elif pooling in ("cls", "lasttoken"):
        place = start if pooling == "cls" else end - 1
        place = jnp.clip(place, 0, last.shape[1] - 1)
        vectors = jnp.where((lengths > 0)[:, :, None], jnp.take_along_axis(last, place[:, :, None], axis=1), 0)
    else:
        raise MetarecError(_unknown(pooling))
    return vectors.reshape(-1, last.shape[2])


def _unknown(pooling: str) -> str:
    return f"pooling is {pooling!r}; it must be 'mean', 'cls' or 'lasttoken'"


def to_unit_length(vectors: Float[jax.Array, "texts width"]) -> Float[jax.Array, "texts width"]:
    """Scale vectors to unit length; a vector of zeros stays one."""
    # The floor is inside the root, so that the gradient of a zero vector is 0 and not NaN.
    square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
