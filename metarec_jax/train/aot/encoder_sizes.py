"""Sizes of BERT encoders that `metarec aot` compiles without weights. Importing this module imports no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class EncoderSize(NamedTuple):
    """The first fields of `metarec_jax.encoder.BertConfig`."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int


ENCODER_SIZES: Mapping[str, EncoderSize] = {
    "minilm": EncoderSize(30522, 384, 6, 12, 1536),
    "bert-base": EncoderSize(30522, 768, 12, 12, 3072),
    "bert-large": EncoderSize(30522, 1024, 24, 16, 4096),
    # No checkpoints of these sizes exist. They have 1.1 and 7.0 billion parameters.
    "bert-1b": EncoderSize(30522, 2048, 20, 16, 8192),
    "bert-7b": EncoderSize(30522, 4096, 34, 32, 16384),
}
