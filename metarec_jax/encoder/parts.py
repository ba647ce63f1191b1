"""Layers that families of encoders share, as private Linen modules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.attention import attend, attend_fused, attend_tiled
from metarec_jax.encoder.model_config import ModelConfig
from metarec_jax.encoder.rotary import Places, rotate

ATTEND = {
    "xla": attend,
    "tiled": attend_tiled,
    "fused": attend_fused,
    "apart": functools.partial(attend, apart=True),
    "tiled apart": functools.partial(attend_tiled, apart=True),
    "fused apart": functools.partial(attend_fused, apart=True),
}
"""Name of `execution.Execution.attention` -> computation of attention."""


def along_last(vector: Float[Array, " features"], like: Array) -> Array:
    """Reshape a vector so that it broadcasts along the last axis of an array.

    Args:
        vector: the vector.
        like: array whose number of axes the result has.

    Returns:
        [1, ..., 1, features].
    """
    return jnp.expand_dims(vector, tuple(range(like.ndim - 1)))


class Dense(nn.Module):
    """A dense layer, plus a low-rank product where the parameters have LoRA factors (see `encoder.lora`)."""

    features: int
    use_bias: bool = True
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply the layer along the last axis."""
        kernel = self.param("kernel", nn.initializers.zeros, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = jnp.matmul(x, kernel)
        if bias is not None:
            y = y + along_last(bias, y)
        if self.has_variable("params", "lora_a"):
            left, right = (self.get_variable("params", name).astype(y.dtype) for name in ("lora_a", "lora_b"))
            y = y + x @ left @ right
        return y


def layer_norm(
    config: Any, *, dtype: DTypeLike | None = None, bias: bool = True, name: str | None = None
) -> nn.LayerNorm:
    """Make a layer norm.

    Args:
        config: an architecture, of text or pictures, of which ``layer_norm_eps`` is read.
        dtype: data type of the result; statistics are in float32 or wider.
        bias: whether it has a bias.
        name: its name in the parameters of the module that it is a part of.

    Returns:
        The layer.
    """
    # The fast variance E[x^2] - E[x]^2 cancels in float32, so that results would differ from PyTorch's.
    return nn.LayerNorm(config.layer_norm_eps, dtype=dtype, use_bias=bias, use_fast_variance=False, name=name)


def rms_norm(config: ModelConfig, *, dtype: DTypeLike | None = None, name: str | None = None) -> nn.RMSNorm:
    """Make a norm by the root mean square, without a bias (Zhang & Sennrich 2019, arXiv 1910.07467).

    Args:
        config, dtype, name: as for `layer_norm`.

    Returns:
        The layer.
    """
    return nn.RMSNorm(config.layer_norm_eps, dtype=dtype, name=name)


class Part(nn.Module):
    """Base of the modules of a family: architecture, data type of the computation, and constructors of layers."""

    config: Any
    dtype: DTypeLike | None = None

    def dense(self, features: int, name: str, *, bias: bool = True) -> Dense:
        """Make a dense layer.

        Args:
            features: width of the output.
            name: its name in the parameters.
            bias: whether it has a bias.

        Returns:
            The layer.
        """
        return Dense(features, use_bias=bias, dtype=self.dtype, name=name)

    def layer_norm(self, name: str, *, bias: bool = True) -> nn.LayerNorm:
        """Make a layer norm.

        Args:
            name: its name in the parameters.
            bias: whether it has a bias.

        Returns:
            The layer.
        """
        return layer_norm(self.config, dtype=self.dtype, bias=bias, name=name)

    def rms_norm(self, name: str) -> nn.RMSNorm:
        """Make a norm by the root mean square."""
        return rms_norm(self.config, dtype=self.dtype, name=name)

    def table(self, rows: int, name: str) -> nn.Embed:
        """Make a table of embeddings.

        Args:
            rows: number of embeddings.
            name: its name in the parameters.

        Returns:
            The table.
        """
        return nn.Embed(rows, self.config.hidden_size, dtype=self.dtype, name=name)

    def gated(self, x: Array, *, bias: bool = False) -> Array:
        """Apply a gated feed-forward layer: (activation(x W) * x V) U (Shazeer 2020, arXiv 2002.05202, equation 6).

        Args:
            x: input, with features on the last axis.
            bias: whether its three products have a bias.

        Returns:
            As `x`.
        """
        wide = self.config.intermediate_size
        gate = ACTIVATIONS[self.config.activation](self.dense(wide, "feed_forward", bias=bias)(x))
        return self.dense(x.shape[-1], "output", bias=bias)(gate * self.dense(wide, "multiplier", bias=bias)(x))

    def rotary_heads(self, x: Array, heads: int, where: Places, norm: nn.Module | None = None) -> Array:
        """Turn queries or keys by their rotary positions.

        Args:
            x: [texts, length, heads * width].
            heads: number of heads.
            where: angles of the positions.
            norm: norm of each head before; None for none.

        Returns:
            As `x`.
        """
        split = x.reshape(*x.shape[:2], heads, -1)
        split = split if norm is None else norm(split)  # type: ignore[operator]
        return rotate(jnp.asarray(split), where).reshape(x.shape)

    def grouped_heads(self, x: Array, where: Places, norm: Callable[..., nn.Module]) -> tuple[Array, Array, Array]:
        """Compute normed and turned queries and keys, and values, with fewer heads of keys and values than of queries.

        Args:
            x: [texts, length, hidden].
            where: angles of the positions.
            norm: (config, dtype, name) -> norm of each query and of each key.

        Returns:
            Queries [texts, length, heads * width], keys and values [texts, length, key heads * width].
        """
        config = self.config
        heads = {"query": config.num_heads, "key": config.num_key_value_heads, "value": config.num_key_value_heads}
        query, key, value = (
            self.dense(count * config.head_dim, name, bias=config.attention_bias)(x) for name, count in heads.items()
        )
        query, key = (
            self.rotary_heads(each, heads[name], where, norm(config, dtype=self.dtype, name=f"{name}_norm"))
            for name, each in (("query", query), ("key", key))
        )
        return query, key, value
