"""The architecture of a BERT or a similar encoder."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from metarec_jax.encoder.model_config import ModelConfig


@dataclasses.dataclass(frozen=True)
class BertConfig(ModelConfig):
    """The architecture of a BERT or a similar encoder; impossible values are refused."""

    type_vocab_size: int = 2
    has_pooler: bool = True
    dropout: float = 0.1
    """Share of the hidden features that transformers drops in training; kept for saving, nothing is dropped here."""
    family: ClassVar[str] = "bert"

    def __post_init__(self) -> None:
        super().__post_init__()
        if "type_vocab_size" not in self.architecture.fixed:
            self.require_least(1, "type_vocab_size")
        self.require_equal_heads()
        self.require_shares("dropout")
