"""The architecture of a Gemma 3 text encoder."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from metarec_jax.encoder.model_config import ModelConfig
from metarec_jax.encoder.rotary import (
    GLOBAL,
    Reach,
    require_default_rotary,
    require_even_heads,
    require_layer_types,
    require_shared_heads,
    with_layer_types,
)


@dataclasses.dataclass(frozen=True)
class Gemma3Config(ModelConfig):
    """The architecture of a Gemma 3 text encoder, as EmbeddingGemma; impossible values are refused."""

    max_positions: int = 2048
    layer_norm_eps: float = 1e-6
    activation: str = "gelu_pytorch_tanh"
    attention_dropout: float = 0.0
    model_type: str = "gemma3_text"
    family: ClassVar[str] = "gemma3"
    num_key_value_heads: int = 1
    """Number of heads of keys and values; each is shared by as many query heads."""
    head_dim: int = 256
    """Number of features of a head."""
    query_scale: int = 256
    """Scores of attention are divided by the square root of this number."""
    layer_types: tuple[str, ...] = ()
    """"full_attention" or "sliding_attention" for each layer; () makes every sixth layer global, the sixth first."""
    window: int = 257
    """A token of a local layer attends to those less than this distance away."""
    global_theta: float = 1_000_000.0
    """Base of the rotary frequencies of global layers."""
    local_theta: float = 10_000.0
    """Base of the rotary frequencies of local layers."""
    global_rotary: str = "default"
    """Kind of rotary positions of global layers; only "default" is computed."""
    local_rotary: str = "default"
    """The same of local layers."""
    attention_bias: bool = False
    """Whether the dense layers of attention have a bias."""
    bidirectional: bool = True
    """Whether a token attends to the tokens after it; only such encoders are computed."""

    @property
    def head_width(self) -> int:
        """Number of features of an attention head."""
        return self.head_dim

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """Rotary base and attended tokens of each layer."""
        far = self.window - 1
        local = Reach(self.local_theta, far, far)
        return tuple(Reach(self.global_theta) if kind == GLOBAL else local for kind in self.layer_types)

    def __post_init__(self) -> None:
        with_layer_types(self, every=6, first=5)
        super().__post_init__()
        self.require_least(1, "num_key_value_heads", "head_dim", "query_scale", "window")
        self.require_positive("global_theta", "local_theta")
        require_default_rotary(self, "global_rotary", "local_rotary")
        require_layer_types(self)
        require_shared_heads(self)
        require_even_heads(self)
