"""The head of masked language modelling: from the last layer's output at a token to a score for every word.

It is a dense layer with activation and layer norm, followed by a product with the word embeddings and a bias per word
(Devlin et al. 2019, arXiv 1810.04805, section 3.1). Tensor names differ between architectures.
"""

from __future__ import annotations

from typing import cast

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.model_config import ModelConfig
from metarec_jax.encoder.parts import along_last, layer_norm


def require_masked_head(config: ModelConfig) -> None:
    """Refuse an architecture that has no head of masked language modelling."""
    if config.architecture.masked is None:
        raise MetarecError(
            f"the encoder is a {config.model_type}, which has no head for masked words: use --objective contrastive, "
            "or another encoder"
        )


def identity_head(config: ModelConfig) -> Params:
    """Make a head for a checkpoint without one: its dense layer is the identity, its biases are zero.

    Raises:
        MetarecError: the architecture has no such head.
    """
    require_masked_head(config)
    hidden, biases = config.hidden_size, config.head_biases
    head: Params = {"dense": {"kernel": jnp.eye(hidden)}, "norm": {"scale": jnp.ones(hidden)}}
    for part, present in (("dense", biases.dense), ("norm", biases.norm)):
        if present:
            head[part]["bias"] = jnp.zeros(hidden)
    return head | {"bias": jnp.zeros(config.vocab_size)} if biases.decoder else head


def logits(
    head: Params,
    word: Float[Array, "vocabulary hidden"],
    config: ModelConfig,
    states: Float[Array, "*tokens hidden"],
    *,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*tokens vocabulary"]:
    """Compute scores of every word of the vocabulary at every token.

    Args:
        head: from `identity_head` or `pretrained.load`.
        word: the encoder's word embeddings, to which the decoder is tied.
        config: the architecture.
        states: output of the last layer at the masked tokens; leave out the others, since this is a product with the
            whole vocabulary.
        dtype: data type of the products; None takes that of the parameters.

    Returns:
        Scores in float32 or wider.
    """
    kernel = head["dense"]["kernel"]
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    dtype = kernel.dtype if dtype is None else dtype

    def product(x: Array, kernel: Array) -> Array:
        return jnp.matmul(x.astype(dtype), kernel.astype(dtype)).astype(wide)

    def biased(x: Array, part: Params) -> Array:
        return x + along_last(part["bias"], x) if "bias" in part else x

    x = ACTIVATIONS[config.head_activation](biased(product(states, kernel), head["dense"]))
    x = cast("Array", layer_norm(config, bias="bias" in head["norm"]).apply({"params": head["norm"]}, x))
    return biased(product(x, word.T), head)
