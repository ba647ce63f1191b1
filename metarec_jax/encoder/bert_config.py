"""The architecture of an encoder, and the type of its input."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Array
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.architectures import ARCHITECTURES, Architecture

Pooling = Literal["auto", "mean", "cls"]
"""Pooling of token vectors into one vector; "auto" takes the pooling that the checkpoint's folder states."""


class Tokens(NamedTuple):
    """Texts as token ids, padded to one length.

    Attributes:
        ids: int32 [texts, length], rows of the vocabulary.
        mask: float32 [texts, length], 1 for a real token, 0 for padding, which has no effect on results.
        types: int32 [texts, length], segment of each token.
        skip: int32 [texts], number of first tokens of each text that mean pooling leaves out (those of a prompt); None
            where it leaves out none.
    """

    ids: Array
    mask: Array
    types: Array
    skip: Array | None = None


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The architecture of a BERT or a similar encoder; impossible values are refused."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    """Width of the feed-forward layer."""
    max_positions: int = 512
    """Greatest number of tokens of a text."""
    type_vocab_size: int = 2
    """Number of segments; 0 where the architecture has none."""
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"
    """A name of `activations.ACTIVATIONS`."""
    pad_token_id: int = 0
    has_pooler: bool = True
    """Whether there are weights for `pooled`."""
    dropout: float = 0.1
    """Share of the hidden features that transformers drops in training; kept for saving, nothing is dropped here."""
    attention_dropout: float = 0.1
    """The same of attention weights."""
    init_scale: float = 0.02
    """Standard deviation of random weights."""
    model_type: str = "bert"
    """A name of `architectures.ARCHITECTURES`."""

    @property
    def architecture(self) -> Architecture:
        """Properties and names of its family."""
        return ARCHITECTURES[self.model_type]

    @property
    def first_position(self) -> int:
        """Row of the position table for a text's first token; rows before it are for padding."""
        return self.pad_token_id + 1 if self.architecture.counts_padding else 0

    def __post_init__(self) -> None:
        if self.model_type not in ARCHITECTURES:
            raise MetarecError(
                f"encoder model_type is {self.model_type!r}; the encoders that work are {', '.join(ARCHITECTURES)}"
            )
        for name, value in self.architecture.fixed.items():
            if getattr(self, name) != value:
                raise MetarecError(
                    f"encoder {name} is {getattr(self, name)}, but in every {self.model_type} it is {value}"
                )
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "intermediate_size",
            "max_positions",
        ):
            if getattr(self, name) < 1:
                raise MetarecError(f"encoder {name} is {getattr(self, name)}; it must be at least 1")
        if self.type_vocab_size < 1 and "type_vocab_size" not in self.architecture.fixed:
            raise MetarecError(f"encoder type_vocab_size is {self.type_vocab_size}; it must be at least 1")
        if self.hidden_size % self.num_heads:
            raise MetarecError(
                f"encoder hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}; "
                "every head needs an equal slice"
            )
        if self.activation not in ACTIVATIONS:
            raise MetarecError(
                f"encoder activation {self.activation!r} is not known; known are {', '.join(ACTIVATIONS)}"
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise MetarecError(
                f"encoder pad_token_id {self.pad_token_id} is not in a vocabulary of vocab_size {self.vocab_size}"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise MetarecError(f"encoder {name} is {getattr(self, name)}; it must be at least 0 and below 1")
        for name in ("layer_norm_eps", "init_scale"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise MetarecError(f"encoder {name} is {getattr(self, name)}; it must be a finite number above 0")
