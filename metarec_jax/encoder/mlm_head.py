"""The head of masked language modelling: from the last layer's output at a token to a score for every word.

It is a dense layer with activation and layer norm, followed by a product with the word embeddings and a bias per word
(Devlin et al. 2019, arXiv 1810.04805, section 3.1). Tensor names differ between architectures.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.bert_config import BertConfig
from metarec_jax.encoder.linear import along_last, block_dot


def identity_head(config: BertConfig) -> Params:
    """Make a head for a checkpoint without one: its dense layer is the identity, its biases are zero."""
    hidden = config.hidden_size
    return {
        "dense": {"kernel": jnp.eye(hidden), "bias": jnp.zeros(hidden)},
        "norm": {"scale": jnp.ones(hidden), "bias": jnp.zeros(hidden)},
        "bias": jnp.zeros(config.vocab_size),
    }


def logits(
    head: Params,
    word: Float[Array, "vocabulary hidden"],
    config: BertConfig,
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
    wide = jnp.promote_types(head["bias"].dtype, jnp.float32)
    dtype = head["bias"].dtype if dtype is None else dtype

    def product(x: Array, kernel: Array) -> Array:
        return block_dot(x.astype(dtype), kernel.astype(dtype)).astype(wide)

    activation = ACTIVATIONS[config.architecture.masked.activation or config.activation]
    x = activation(product(states, head["dense"]["kernel"]) + along_last(head["dense"]["bias"], states))
    norm = nn.LayerNorm(config.layer_norm_eps, use_fast_variance=False)
    x: Any = norm.apply({"params": head["norm"]}, x)
    return product(x, word.T) + along_last(head["bias"], states)
