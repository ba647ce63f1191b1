"""Linen modules of BERT (Devlin et al. 2019, arXiv 1810.04805) and of its kin.

Architectures (`encoder.architectures`) differ in token types, numbering of positions, and relative position bias.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.attention import DISTANCE_BUCKETS, distance_buckets
from metarec_jax.encoder.bert_config import BertConfig
from metarec_jax.encoder.execution import Attention
from metarec_jax.encoder.model_config import Tokens
from metarec_jax.encoder.parts import ATTEND, Part
from metarec_jax.encoder.text_places import positions, text_numbers


class Embeddings(Part):
    """Sum of word, position and, if the architecture has them, segment embeddings, normalised."""

    config: BertConfig

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        """Compute the input of the first layer."""
        config = self.config
        x = self.table(config.vocab_size, "word")(tokens.ids)
        if config.type_vocab_size:
            x = x + self.table(config.type_vocab_size, "type")(tokens.types)
        table = self.table(config.first_position + config.max_positions, "position")
        x = x + table(_positions(config, tokens))
        return self.layer_norm("norm")(x)


def _positions(config: BertConfig, tokens: Tokens) -> Array:
    """Rows of the position table, [1, length] or [texts, length].

    Padding is recognised by id, not by mask, as in transformers: a text may contain the padding token.
    """
    ids, place = tokens.ids, jnp.arange(tokens.ids.shape[1], dtype=jnp.int32)[None]
    own = place if tokens.lengths is None else positions(text_numbers(tokens.lengths, ids.shape[1]))
    if not config.architecture.counts_padding:
        return own
    real = (ids != config.pad_token_id).astype(ids.dtype)
    count = jnp.cumsum(real, axis=1)
    if tokens.lengths is not None:  # those of a row's earlier texts do not count
        count = count - jnp.take_along_axis(count - real, place - own, axis=1)
    return config.pad_token_id + count * real


class RelativeBias(Part):
    """Relative position bias of attention scores, shared by all layers: [heads, length, length]."""

    @nn.compact
    def __call__(self, length: int) -> Array:
        """Look the bias of each pair of positions up."""
        table = self.param("embedding", nn.initializers.zeros, (DISTANCE_BUCKETS, self.config.num_heads))
        return jnp.asarray(table)[distance_buckets(length)].transpose(2, 0, 1)


class Layer(Part):
    """Attention and feed-forward sublayers, each with a residual connection and layer norm after it."""

    config: BertConfig
    attention: Attention = "xla"
    number: int = 0

    @nn.compact
    def __call__(self, x: Array, mask: Array, bias: Array | None) -> Array:
        """Compute the layer.

        Args:
            x: [texts, length, hidden].
            mask: [texts, length], 1 for a real token.
            bias: [heads, length, length], from `RelativeBias`; None for none.

        Returns:
            As `x`.
        """
        config, shape = self.config, x.shape
        # Flatten texts and tokens into one axis: the gradient of a bias sums over them, and XLA's CPU backend takes
        # six times as long for a sum over two axes as over one.
        x = x.reshape(-1, shape[-1])
        query, key, value = (
            self.dense(config.hidden_size, name)(x).reshape(shape) for name in ("query", "key", "value")
        )
        mixed = ATTEND[self.attention](query, key, value, mask, num_heads=config.num_heads, bias=bias)
        mixed = self.dense(config.hidden_size, "attention_output")(mixed.reshape(x.shape))
        x = self.layer_norm("attention_norm")(x + mixed)

        wide = ACTIVATIONS[config.activation](self.dense(config.intermediate_size, "feed_forward")(x))
        narrow = self.dense(config.hidden_size, "output")(wide)
        return self.layer_norm("output_norm")(x + narrow).reshape(shape)
