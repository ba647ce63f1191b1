"""Linen modules of Qwen3 (Yang et al. 2025, arXiv 2505.09388), the decoder of Qwen3-Embedding (arXiv 2506.05176).

Attention is causal, with fewer heads of keys and values than of queries, and with a norm of each query and key; norms
come before the sublayers and are by the root mean square; feed-forward layers are gated, and positions rotary.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.encoder.execution import Attention
from metarec_jax.encoder.model_config import Tokens
from metarec_jax.encoder.parts import ATTEND, Part, rms_norm
from metarec_jax.encoder.qwen3_config import Qwen3Config
from metarec_jax.encoder.rotary import Places


class Embeddings(Part):
    """Word embeddings."""

    config: Qwen3Config

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        """Compute the input of the first layer."""
        return self.table(self.config.vocab_size, "word")(jnp.asarray(tokens.ids))


class Layer(Part):
    """Causal attention and gated feed-forward sublayers."""

    config: Qwen3Config
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
        config = self.config
        query, key, value = self.grouped_heads(self.rms_norm("attention_norm")(x), where, norm=rms_norm)
        mixed = ATTEND[self.attention](query, key, value, mask, num_heads=config.num_heads, allowed=where.allowed)
        x = x + self.dense(config.hidden_size, "attention_output", bias=config.attention_bias)(mixed)
        return x + self.gated(self.rms_norm("output_norm")(x))
