"""Sizes of encoders that `metarec aot` compiles without weights. Importing this module imports no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class EncoderSize(NamedTuple):
    """The first fields of `metarec_jax.encoder.ModelConfig`, and those of a family.

    Attributes:
        family: a ``model_type``.
        key_heads: number of heads of keys and values, and `head` the number of features of a head; 0 where the family
            has neither.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    family: str = "bert"
    key_heads: int = 0
    head: int = 0


ENCODER_SIZES: Mapping[str, EncoderSize] = {
    "minilm": EncoderSize(30522, 384, 6, 12, 1536),
    "bert-base": EncoderSize(30522, 768, 12, 12, 3072),
    "bert-large": EncoderSize(30522, 1024, 24, 16, 4096),
    "modernbert-base": EncoderSize(50368, 768, 22, 12, 1152, "modernbert"),
    "modernbert-large": EncoderSize(50368, 1024, 28, 16, 2624, "modernbert"),
    "qwen3-0.6b": EncoderSize(151669, 1024, 28, 16, 3072, "qwen3", 8, 128),
    "qwen3-4b": EncoderSize(151665, 2560, 36, 32, 9728, "qwen3", 8, 128),
    "qwen3-8b": EncoderSize(151665, 4096, 36, 32, 12288, "qwen3", 8, 128),
    "embeddinggemma-300m": EncoderSize(262144, 768, 24, 3, 1152, "gemma3_text", 1, 256),
    # No checkpoints of these sizes exist. They have 1.1 and 7.0 billion parameters.
    "bert-1b": EncoderSize(30522, 2048, 20, 16, 8192),
    "bert-7b": EncoderSize(30522, 4096, 34, 32, 16384),
}
