"""The architecture of a Qwen3 without its language-modelling head."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from metarec_jax.encoder.model_config import ModelConfig
from metarec_jax.encoder.rotary import Reach, require_default_rotary, require_even_heads, require_shared_heads


@dataclasses.dataclass(frozen=True)
class Qwen3Config(ModelConfig):
    """The architecture of a Qwen3; impossible values are refused."""

    max_positions: int = 32768
    layer_norm_eps: float = 1e-6
    activation: str = "silu"
    attention_dropout: float = 0.0
    model_type: str = "qwen3"
    family: ClassVar[str] = "qwen3"
    num_key_value_heads: int = 8
    """Number of heads of keys and values; each is shared by as many query heads."""
    head_dim: int = 128
    """Number of features of a head."""
    theta: float = 1_000_000.0
    """Base of the rotary frequencies."""
    rotary: str = "default"
    """Kind of rotary positions; only "default" is computed."""
    attention_bias: bool = False
    """Whether the dense layers of attention have a bias."""

    @property
    def head_width(self) -> int:
        """Number of features of an attention head."""
        return self.head_dim

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """Rotary base and attended tokens of each layer."""
        return (Reach(self.theta, after=0),) * self.num_layers

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(1, "num_key_value_heads", "head_dim")
        self.require_positive("theta")
        require_default_rotary(self, "rotary")
        require_shared_heads(self)
        require_even_heads(self)
