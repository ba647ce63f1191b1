"""What every encoder's architecture states, and the type of an encoder's input."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal, NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Array
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.architectures import ARCHITECTURES, Architecture
from metarec_jax.encoder.rotary import Reach

Pooling = Literal["auto", "mean", "cls", "lasttoken"]
"""Pooling of token vectors into one vector; "auto" takes the pooling that the checkpoint's folder states."""


class Tokens(NamedTuple):
    """Texts as token ids, padded to one length; or, with `lengths`, rows with several texts one after another.

    Attributes:
        ids: int32 [texts, length], rows of the vocabulary.
        mask: float32 [texts, length], 1 for a real token, 0 for padding, which has no effect on results.
        types: int32 [texts, length], segment of each token.
        skip: int32 [texts], number of first tokens of each text that mean pooling leaves out (those of a prompt); None
            where it leaves out none. With `lengths`, int32 [rows, texts].
        lengths: int32 [rows, texts], number of tokens of each text of a row, 0 where there is no further text. A text
            has its own positions, and none of its tokens attends to another text. None where a row is one text.
    """

    ids: Array
    mask: Array
    types: Array
    skip: Array | None = None
    lengths: Array | None = None


class Projection(NamedTuple):
    """A dense layer that is applied to the vector of a text, after pooling.

    Attributes:
        features: width of its output.
        bias: whether it has a bias.
        activation: a name of `activations.ACTIVATIONS`.
    """

    features: int
    bias: bool = True
    activation: str = "linear"


class HeadBiases(NamedTuple):
    """Which layers of a head of masked language modelling have a bias."""

    dense: bool = True
    norm: bool = True
    decoder: bool = True


_MOST = 2**31 - 1
"""Greatest size of an array's axis."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and options that all architectures have; impossible values are refused."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    """Width of the feed-forward layer."""
    max_positions: int = 512
    """Greatest number of tokens of a text."""
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"
    """A name of `activations.ACTIVATIONS`."""
    pad_token_id: int = 0
    attention_dropout: float = 0.1
    """Share of attention weights that transformers drops in training; kept for saving, nothing is dropped here."""
    init_scale: float = 0.02
    """Standard deviation of random weights."""
    model_type: str = "bert"
    """A name of `architectures.ARCHITECTURES`."""
    type_vocab_size: int = 0
    """Number of segments; 0 where the architecture has none."""
    has_pooler: bool = False
    """Whether there are weights for `pooled`."""
    projections: tuple[Projection, ...] = ()
    """Dense layers after pooling, in order."""
    family: ClassVar[str]
    """A name of `families.FAMILIES`."""

    @property
    def architecture(self) -> Architecture:
        """Properties and names of its family."""
        return ARCHITECTURES[self.model_type]

    @property
    def first_position(self) -> int:
        """Row of the position table for a text's first token; rows before it are for padding."""
        return self.pad_token_id + 1 if self.architecture.counts_padding else 0

    @property
    def plain(self) -> bool:
        """Whether every token attends to its whole text, with as many heads of keys and values as of queries."""
        return not self.reaches

    @property
    def vector_size(self) -> int:
        """Width of the vector of a text: of the last dense layer after pooling, or else of a token's."""
        return self.projections[-1].features if self.projections else self.hidden_size

    def width(self, dims: int) -> int:
        """Width of the vectors of texts that are cut to their first `dims` numbers; 0 does not cut."""
        return dims or self.vector_size

    @property
    def head_width(self) -> int:
        """Number of features of an attention head."""
        return self.hidden_size // self.num_heads

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """Rotary base and attended tokens of each layer; () where positions are not rotary and all tokens attended."""
        return ()

    @property
    def head_biases(self) -> HeadBiases:
        """Biases of its head of masked language modelling."""
        return HeadBiases()

    @property
    def head_activation(self) -> str:
        """Activation of its head of masked language modelling."""
        masked = self.architecture.masked
        return (masked.activation if masked else None) or self.activation

    def __post_init__(self) -> None:
        if self.model_type not in ARCHITECTURES:
            raise MetarecError(
                f"encoder model_type is {self.model_type!r}; the encoders that work are {', '.join(ARCHITECTURES)}"
            )
        if self.architecture.family != self.family:
            raise MetarecError(
                f"encoder model_type is {self.model_type!r}, which is none of a {type(self).__name__}; see "
                "metarec_jax.encoder.config_class"
            )
        for name, value in self.architecture.fixed.items():
            if getattr(self, name) != value:
                raise MetarecError(
                    f"encoder {name} is {getattr(self, name)}, but in every {self.model_type} it is {value}"
                )
        self.require_least(
            1, "vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions"
        )
        if self.activation not in ACTIVATIONS:
            raise MetarecError(
                f"encoder activation {self.activation!r} is not known; known are {', '.join(ACTIVATIONS)}"
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise MetarecError(
                f"encoder pad_token_id {self.pad_token_id} is not in a vocabulary of vocab_size {self.vocab_size}"
            )
        self.require_shares("attention_dropout")
        self.require_positive("layer_norm_eps", "init_scale")

    def require_least(self, least: int, *names: str) -> None:
        """Refuse fields below a number, and above what 32 bits hold: they are sizes of arrays.

        Args:
            least: the least value.
            *names: fields.

        Raises:
            MetarecError: a field is not in these bounds.
        """
        for name in names:
            if getattr(self, name) < least:
                raise MetarecError(f"encoder {name} is {getattr(self, name)}; it must be at least {least}")
            if getattr(self, name) > _MOST:
                raise MetarecError(f"encoder {name} is {getattr(self, name)}; it must be at most {_MOST}")

    def require_shares(self, *names: str) -> None:
        """Refuse fields that are not at least 0 and below 1."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise MetarecError(f"encoder {name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def require_positive(self, *names: str) -> None:
        """Refuse fields that are not finite numbers above 0."""
        for name in names:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise MetarecError(f"encoder {name} is {getattr(self, name)}; it must be a finite number above 0")

    def require_equal_heads(self) -> None:
        """Refuse a hidden size that the heads do not divide."""
        if self.hidden_size % self.num_heads:
            raise MetarecError(
                f"encoder hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}; "
                "every head needs an equal slice"
            )
