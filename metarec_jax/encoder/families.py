"""The Linen modules of each family of encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
from jax.typing import DTypeLike

from metarec_jax.encoder import bert, gemma3, modernbert, qwen3
from metarec_jax.encoder.architectures import ARCHITECTURES
from metarec_jax.encoder.bert_config import BertConfig
from metarec_jax.encoder.gemma3_config import Gemma3Config
from metarec_jax.encoder.model_config import ModelConfig
from metarec_jax.encoder.modernbert_config import ModernBertConfig
from metarec_jax.encoder.parts import layer_norm, rms_norm
from metarec_jax.encoder.qwen3_config import Qwen3Config


class Family(NamedTuple):
    """How a family of encoders is computed.

    Attributes:
        config: class of its architectures.
        embeddings: (config, dtype) -> module of the first layer's input.
        layer: (config, dtype, attention, number) -> module of a layer.
        final_norm: (config, dtype) -> norm after the last layer; None for none.
    """

    config: type[ModelConfig]
    embeddings: Callable[..., nn.Module]
    layer: Callable[..., nn.Module]
    final_norm: Callable[..., nn.Module] | None = None


def _modernbert_norm(config: ModernBertConfig, dtype: DTypeLike | None = None) -> nn.Module:
    return layer_norm(config, dtype=dtype, bias=config.norm_bias)


FAMILIES: Mapping[str, Family] = {
    "bert": Family(BertConfig, bert.Embeddings, bert.Layer),
    "modernbert": Family(ModernBertConfig, modernbert.Embeddings, modernbert.Layer, _modernbert_norm),
    "qwen3": Family(Qwen3Config, qwen3.Embeddings, qwen3.Layer, rms_norm),
    "gemma3": Family(Gemma3Config, gemma3.Embeddings, gemma3.Layer, gemma3.Norm),
}


def family_of(config: ModelConfig) -> Family:
    """Modules of an architecture."""
    return FAMILIES[config.family]


def config_class(model_type: str) -> type[ModelConfig]:
    """Class of the architectures of a ``model_type``, a name of `architectures.ARCHITECTURES`."""
    return FAMILIES[ARCHITECTURES[model_type].family].config
