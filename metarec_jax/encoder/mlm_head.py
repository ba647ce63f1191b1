"""The head for masked words: from what the last layer says of a token to a score for every word of the vocabulary.

A dense layer, its activation and a layer norm, then a product with the word embeddings and a bias a word
(Devlin et al. 2019, arXiv 1810.04805, section 3.1; the names differ between architectures, the arithmetic does not).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.bert import BertConfig
from metarec_jax.encoder.linear import block_dot


def identity_head(config: BertConfig) -> Params:
    """The head of a checkpoint that has none: the dense layer passes on what it gets, no word is more likely before."""
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
    """Scores of every word at every token.

    Args:
        head: as `identity_head` or `pretrained.load` gives it.
        word: the encoder's word embeddings, which the scores are products with.
        config: the architecture.
        states: what the last layer gives, of the tokens that are asked about: this is a product with the whole
            vocabulary, so leave out the others.
        dtype: of the products; None takes that of the parameters.

    Returns:
        Scores in float32 or wider.
    """
    wide = jnp.promote_types(head["bias"].dtype, jnp.float32)
    dtype = head["bias"].dtype if dtype is None else dtype

    def product(x: Array, kernel: Array) -> Array:
        return block_dot(x.astype(dtype), kernel.astype(dtype)).astype(wide)

    activation = ACTIVATIONS[config.architecture.masked.activation or config.activation]
    x = activation(product(states, head["dense"]["kernel"]) + head["dense"]["bias"])
    norm = nn.LayerNorm(config.layer_norm_eps, use_fast_variance=False)
    x: Any = norm.apply({"params": head["norm"]}, x)
    return product(x, word.T) + head["bias"]
