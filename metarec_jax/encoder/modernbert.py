"""Linen modules of ModernBERT (Warner et al. 2024, arXiv 2412.13663).

Norms come before attention and before the feed-forward layers, which are gated; positions are rotary; every third layer
attends to the whole text, and the others within a window.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.encoder.execution import Attention
from metarec_jax.encoder.model_config import Tokens
from metarec_jax.encoder.modernbert_config import ModernBertConfig
from metarec_jax.encoder.parts import ATTEND, Part
from metarec_jax.encoder.rotary import Places


class Embeddings(Part):
    """Normalised word embeddings."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        """Compute the input of the first layer."""
        words = self.table(self.config.vocab_size, "word")(jnp.asarray(tokens.ids))
        return self.layer_norm("norm", bias=self.config.norm_bias)(words)


class Layer(Part):
    """Attention and gated feed-forward sublayers; the first layer has no norm before attention."""

    config: ModernBertConfig
    attention: Attention = "xla"
    number: int = 0

    @nn.compact
    def __call__(self, x: Array, mask: Array, where: Places) -> Array:
        """Compute the layer.

        Args:
            x: [texts, length, hidden].
            mask: [texts, length], 1 for a real token.
            where: positions, and attended pairs.

        Returns:
            As `x`.
        """
        config, bias = self.config, self.config.attention_bias
        normed = self.layer_norm("attention_norm", bias=config.norm_bias)(x) if self.number else x
        query, key, value = (
            self.dense(config.hidden_size, name, bias=bias)(normed) for name in ("query", "key", "value")
        )
        query, key = (self.rotary_heads(each, config.num_heads, where) for each in (query, key))
        mixed = ATTEND[self.attention](query, key, value, mask, num_heads=config.num_heads, allowed=where.allowed)
        x = x + self.dense(config.hidden_size, "attention_output", bias=bias)(mixed)
        return x + self.gated(self.layer_norm("output_norm", bias=config.norm_bias)(x), bias=config.mlp_bias)
