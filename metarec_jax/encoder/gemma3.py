"""Linen modules of Gemma 3 (arXiv 2503.19786) without its causal mask, as in EmbeddingGemma (arXiv 2509.20354).

Each sublayer has a norm by the root mean square before and another after it. Queries and keys have norms, a head of
keys serves several queries, feed-forward layers are gated, and most layers attend within a window.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from metarec_jax.encoder.execution import Attention
from metarec_jax.encoder.gemma3_config import Gemma3Config
from metarec_jax.encoder.model_config import Tokens
from metarec_jax.encoder.parts import ATTEND, Part, along_last
from metarec_jax.encoder.rotary import Places


class Norm(nn.Module):
    """Norm by the root mean square, whose scale is stored as its difference from 1."""

    config: Gemma3Config
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply the norm along the last axis; it is computed in float32 or wider."""
        offset = self.param("offset", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        scaled = wide * jax.lax.rsqrt(square + self.config.layer_norm_eps) * (1 + along_last(jnp.asarray(offset), wide))
        return scaled.astype(x.dtype if self.dtype is None else self.dtype)


class Embeddings(Part):
    """Word embeddings, times the square root of their width."""

    config: Gemma3Config

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        """Compute the input of the first layer."""
        words = self.table(self.config.vocab_size, "word")(jnp.asarray(tokens.ids))
        return words * jnp.asarray(self.config.hidden_size**0.5, words.dtype)


class Layer(Part):
    """Attention and gated feed-forward sublayers."""

    config: Gemma3Config
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
        query, key, value = self.grouped_heads(self._norm("attention_norm", x), where, norm=Norm)
        if config.query_scale != config.head_dim:  # attention scales by the width of a head
            query = query * jnp.asarray((config.head_dim / config.query_scale) ** 0.5, query.dtype)
        mixed = ATTEND[self.attention](query, key, value, mask, num_heads=config.num_heads, allowed=where.allowed)
        mixed = self.dense(config.hidden_size, "attention_output", bias=config.attention_bias)(mixed)
        x = x + self._norm("attention_post_norm", mixed)
        return x + self._norm("output_post_norm", self.gated(self._norm("output_norm", x)))

    def _norm(self, name: str, x: Array) -> Array:
        return jnp.asarray(Norm(self.config, dtype=self.dtype, name=name)(x))
