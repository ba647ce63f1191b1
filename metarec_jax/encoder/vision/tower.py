"""Linen modules of a vision tower, and pure functions of its parameters."""

from __future__ import annotations

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.types import Array as AnyArray
from metarec_jax.core.types import Params
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.attention import attend
from metarec_jax.encoder.parts import Dense, Part
from metarec_jax.encoder.vision.vision_config import VisionConfig


class Layer(Part):
    """Attention and feed-forward sublayers, each after a norm."""

    config: VisionConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Compute the layer for [pictures, tokens, hidden]."""
        hidden = self.config.hidden_size
        normed = self.layer_norm("attention_norm")(x)
        query, key, value = (self.dense(hidden, name)(normed) for name in ("query", "key", "value"))
        everything = jnp.ones(x.shape[:2], jnp.float32)
        mixed = attend(query, key, value, everything, num_heads=self.config.num_heads)
        x = x + self.dense(hidden, "attention_output")(mixed)
        return x + self.feed_forward(self.layer_norm("output_norm")(x))

    def feed_forward(self, x: Array) -> Array:
        """Apply the feed-forward layer along the last axis."""
        wide = self.dense(self.config.intermediate_size, "feed_forward")(x)
        return self.dense(x.shape[-1], "output")(ACTIVATIONS[self.config.activation](wide))


class Head(Layer):
    """SigLIP's pooling: attention of a learned query to all patches, and a feed-forward sublayer."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Pool [pictures, tokens, hidden] into [pictures, hidden]."""
        config, width = self.config, self.config.hidden_size // self.config.num_heads
        probe = self.param("probe", nn.initializers.zeros, (config.hidden_size,))
        query = self.dense(config.hidden_size, "query")(jnp.asarray(probe)[None]).reshape(config.num_heads, width)
        key, value = (
            self.dense(config.hidden_size, name)(x).reshape(*x.shape[:2], config.num_heads, width)
            for name in ("key", "value")
        )
        scores = jnp.einsum("hw,pthw->pht", query * width**-0.5, key)
        weights = jax.nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), axis=-1)
        mixed = jnp.einsum("pht,pthw->phw", weights.astype(value.dtype), value).reshape(x.shape[0], -1)
        x = self.dense(config.hidden_size, "attention_output")(mixed)
        return x + self.feed_forward(self.layer_norm("output_norm")(x))


class Tower(Part):
    """A vision tower."""

    config: VisionConfig

    @nn.compact
    def __call__(self, pixels: Array) -> tuple[Array, list[Array]]:
        """Compute the vectors of pictures.

        Args:
            pixels: [pictures, height, width, 3], prepared.

        Returns:
            [pictures, width], and the input of the first layer and the output of each layer.
        """
        config, clip = self.config, self.config.kind == "clip"
        x = self.dense(config.hidden_size, "patch", bias=not clip)(_patches(pixels, config.patch_size))
        if clip:
            own = self.param("class", nn.initializers.zeros, (config.hidden_size,))
            x = jnp.concatenate([jnp.broadcast_to(own[None, None], (len(x), 1, config.hidden_size)), x], axis=1)
        x = x + self.param("position", nn.initializers.zeros, (config.tokens, config.hidden_size))[None]
        x = self.layer_norm("first_norm")(x) if clip else x
        states = [x]
        for number in range(config.num_layers):
            states.append(Layer(config, self.dtype, name=f"layer_{number}")(states[-1]))
        if not clip:
            return Head(config, self.dtype, name="head")(self.layer_norm("final_norm")(states[-1])), states
        vector = self.layer_norm("final_norm")(states[-1][:, 0])
        if config.projection:
            vector = Dense(config.projection, use_bias=False, dtype=self.dtype, name="projection")(vector)
        return vector, states


def _patches(pixels: Array, size: int) -> Array:
    """Cut pictures into patches: [pictures, patches, size * size * 3]."""
    count, height, width, colours = pixels.shape
    grid = pixels.reshape(count, height // size, size, width // size, size, colours)
    return grid.swapaxes(2, 3).reshape(count, -1, size * size * colours)


def param_shapes(config: VisionConfig) -> Params:
    """Return the shapes of the parameters: a nested dict of float32 ShapeDtypeStructs."""
    pixels = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    return jax.eval_shape(lambda pixels: Tower(config).init(jax.random.key(0), pixels), pixels)["params"]


def encode_pixels(
    params: Params, config: VisionConfig, pixels: Float[AnyArray, "pictures height width colours"]
) -> Float[Array, "pictures features"]:
    """Encode prepared pictures as vectors of unit length.

    Args:
        params: parameters of the tower.
        config: the architecture.
        pixels: prepared pictures.

    Returns:
        The vectors.
    """
    vectors, _ = states_of(params, config, pixels)
    square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def states_of(
    params: Params, config: VisionConfig, pixels: Float[AnyArray, "pictures height width colours"]
) -> tuple[Float[Array, "pictures features"], list[Float[Array, "pictures tokens hidden"]]]:
    """Compute the vectors of pictures, before they are scaled, and the states at every layer.

    Args:
        params, config, pixels: as for `encode_pixels`.

    Returns:
        The vectors, and the input of the first layer and the output of each layer.
    """
    return cast("tuple[Array, list[Array]]", Tower(config).apply({"params": params}, jnp.asarray(pixels)))
