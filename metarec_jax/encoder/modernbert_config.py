"""The architecture of a ModernBERT."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.model_config import HeadBiases, ModelConfig
from metarec_jax.encoder.rotary import (
    GLOBAL,
    LOCAL,
    Reach,
    require_default_rotary,
    require_even_heads,
    require_layer_types,
    with_layer_types,
)


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(ModelConfig):
    """The architecture of a ModernBERT; impossible values are refused."""

    max_positions: int = 8192
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    model_type: str = "modernbert"
    family: ClassVar[str] = "modernbert"
    layer_types: tuple[str, ...] = ()
    """"full_attention" or "sliding_attention" for each layer; () makes every third layer global, the first included."""
    window: int = 128
    """Width of a local layer's window: a token attends to those at most half of it away."""
    global_theta: float = 160_000.0
    """Base of the rotary frequencies of global layers."""
    local_theta: float = 10_000.0
    """Base of the rotary frequencies of local layers."""
    global_rotary: str = "default"
    """Kind of rotary positions of global layers; only "default" is computed."""
    local_rotary: str = "default"
    """The same of local layers."""
    norm_bias: bool = False
    """Whether layer norms have a bias."""
    attention_bias: bool = False
    """Whether the dense layers of attention have a bias."""
    mlp_bias: bool = False
    """Whether the feed-forward layers have a bias."""
    dense_bias: bool = False
    """Whether the dense layer of the masked head has a bias."""
    decoder_bias: bool = True
    """Whether the masked head has a bias for each word."""
    dense_activation: str = "gelu"
    """Activation of the masked head."""
    embedding_dropout: float = 0.0
    """Share of the embeddings' features that transformers drops in training; nothing is dropped here."""
    mlp_dropout: float = 0.0
    """The same of the feed-forward layers."""

    @property
    def head_biases(self) -> HeadBiases:
        """Biases of its head of masked language modelling."""
        return HeadBiases(self.dense_bias, self.norm_bias, self.decoder_bias)

    @property
    def head_activation(self) -> str:
        """Activation of its head of masked language modelling."""
        return self.dense_activation

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """Rotary base and attended tokens of each layer."""
        half = self.window // 2
        of_kind = {GLOBAL: Reach(self.global_theta), LOCAL: Reach(self.local_theta, half, half)}
        return tuple(of_kind[kind] for kind in self.layer_types)

    def __post_init__(self) -> None:
        with_layer_types(self, every=3, first=0)
        super().__post_init__()
        self.require_equal_heads()
        require_even_heads(self)
        self.require_least(2, "window")
        self.require_positive("global_theta", "local_theta")
        self.require_shares("embedding_dropout", "mlp_dropout")
        require_default_rotary(self, "global_rotary", "local_rotary")
        require_layer_types(self)
        if self.dense_activation not in ACTIVATIONS:
            raise MetarecError(
                f"encoder dense_activation {self.dense_activation!r} is not known; known are {', '.join(ACTIVATIONS)}"
            )
