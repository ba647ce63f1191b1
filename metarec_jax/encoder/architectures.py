"""Differences between families of checkpoints, one `Architecture` each.

Most families have BERT's layers (Devlin et al. 2019, arXiv 1810.04805). RoBERTa (Liu et al. 2019, arXiv 1907.11692) and
its multilingual and French versions number positions differently, DistilBERT (Sanh et al. 2019, arXiv 1910.01108) has
no token types and no pooler, and MPNet (Song et al. 2020, arXiv 2004.09297) adds a relative position bias to attention
scores. ModernBERT (Warner et al. 2024, arXiv 2412.13663), Qwen3 (Yang et al. 2025, arXiv 2505.09388) and Gemma 3 (arXiv
2503.19786) have layers of their own. The names of tensors and of config.json's fields also differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class MaskedHead(NamedTuple):
    """The head of masked language modelling: a dense layer, a norm, and a product with the word embeddings.

    Attributes:
        model: class name in transformers of the encoder with this head.
        dense, norm, bias, decoder: names of its tensors. The decoder is tied to the word embeddings.
        activation: a name of `activations.ACTIVATIONS`; None takes the encoder's.
    """

    model: str
    dense: str
    norm: str
    bias: str
    decoder: str
    activation: str | None = None


_EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "type": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}


class Architecture(NamedTuple):
    """One family of checkpoints.

    Attributes:
        model: class name in transformers of the encoder without a head.
        prefix: prefix of the encoder's tensor names in models with a task head.
        fields: field of its `model_config.ModelConfig` -> name in config.json, with a dot before each nested name.
        fixed: fields of its config that have one value in all checkpoints of the family.
        layers: prefix of the names of a layer's tensors; the number of the layer follows.
        layer: part of a layer in our parameters -> tensor name after the layer number. Parts of one name are rows of
            one tensor, in this order.
        masked: the head of masked language modelling; None where there is none.
        family: a name of `families.FAMILIES`.
        embeddings: part of the embeddings in our parameters -> tensor name.
        final_norm: name of the norm after the last layer; None where there is none.
        relative_bias: name of the table of relative position biases; None where there is none.
        counts_padding: whether positions count the tokens that are not padding, starting at the padding's id + 1, and
            padding has its id as position. Otherwise positions are 0, 1, 2, ...
        causal: whether a token attends only to itself and to the tokens before it.
    """

    model: str
    prefix: str
    fields: Mapping[str, str]
    fixed: Mapping[str, Any]
    layers: str
    layer: Mapping[str, str]
    masked: MaskedHead | None
    family: str = "bert"
    embeddings: Mapping[str, str] = _EMBEDDINGS
    final_norm: str | None = None
    relative_bias: str | None = None
    counts_padding: bool = False
    causal: bool = False


_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "layer_norm_eps": "layer_norm_eps",
    "activation": "hidden_act",
    "pad_token_id": "pad_token_id",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "init_scale": "initializer_range",
}

_BERT = Architecture(
    model="BertModel",
    prefix="bert.",
    fields=_FIELDS,
    fixed={},
    layers="encoder.layer.",
    layer={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feed_forward": "intermediate.dense",
        "output": "output.dense",
        "output_norm": "output.LayerNorm",
    },
    masked=MaskedHead(
        model="BertForMaskedLM",
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        bias="cls.predictions.bias",
        decoder="cls.predictions.decoder",
    ),
)

_LM_HEAD = MaskedHead(
    model="RobertaForMaskedLM",
    dense="lm_head.dense",
    norm="lm_head.layer_norm",
    bias="lm_head.bias",
    decoder="lm_head.decoder",
    activation="gelu",
)

_ROBERTA = _BERT._replace(
    model="RobertaModel",
    prefix="roberta.",
    masked=_LM_HEAD,
    counts_padding=True,
)

_DISTILBERT = Architecture(
    model="DistilBertModel",
    prefix="distilbert.",
    fields={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "max_positions": "max_position_embeddings",
        "activation": "activation",
        "pad_token_id": "pad_token_id",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "init_scale": "initializer_range",
    },
    fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12, "has_pooler": False},
    layers="transformer.layer.",
    layer={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "feed_forward": "ffn.lin1",
        "output": "ffn.lin2",
        "output_norm": "output_layer_norm",
    },
    masked=MaskedHead(
        model="DistilBertForMaskedLM",
        dense="vocab_transform",
        norm="vocab_layer_norm",
        bias="vocab_projector.bias",
        decoder="vocab_projector",
    ),
)

_MPNET = _BERT._replace(
    model="MPNetModel",
    prefix="mpnet.",
    fields={field: name for field, name in _FIELDS.items() if field != "type_vocab_size"},
    fixed={"type_vocab_size": 0, "pad_token_id": 1},  # transformers always uses padding id 1 for positions
    layer={
        **_BERT.layer,
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attention_output": "attention.attn.o",
        "attention_norm": "attention.LayerNorm",
    },
    masked=_LM_HEAD._replace(model="MPNetForMaskedLM"),
    relative_bias="encoder.relative_attention_bias",
    counts_padding=True,
)

_MODERNBERT = Architecture(
    model="ModernBertModel",
    prefix="model.",
    fields={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "max_positions": "max_position_embeddings",
        "layer_norm_eps": "norm_eps",
        "activation": "hidden_activation",
        "pad_token_id": "pad_token_id",
        "attention_dropout": "attention_dropout",
        "init_scale": "initializer_range",
        "layer_types": "layer_types",
        "window": "local_attention",
        "global_theta": "rope_parameters.full_attention.rope_theta",
        "local_theta": "rope_parameters.sliding_attention.rope_theta",
        "global_rotary": "rope_parameters.full_attention.rope_type",
        "local_rotary": "rope_parameters.sliding_attention.rope_type",
        "norm_bias": "norm_bias",
        "attention_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
        "dense_bias": "classifier_bias",
        "decoder_bias": "decoder_bias",
        "dense_activation": "classifier_activation",
        "embedding_dropout": "embedding_dropout",
        "mlp_dropout": "mlp_dropout",
    },
    fixed={"type_vocab_size": 0, "has_pooler": False},
    layers="layers.",
    layer={
        "query": "attn.Wqkv",
        "key": "attn.Wqkv",
        "value": "attn.Wqkv",
        "attention_output": "attn.Wo",
        "attention_norm": "attn_norm",
        "feed_forward": "mlp.Wi",
        "multiplier": "mlp.Wi",
        "output": "mlp.Wo",
        "output_norm": "mlp_norm",
    },
    masked=MaskedHead(
        model="ModernBertForMaskedLM", dense="head.dense", norm="head.norm", bias="decoder.bias", decoder="decoder"
    ),
    family="modernbert",
    embeddings={"word": "embeddings.tok_embeddings", "norm": "embeddings.norm"},
    final_norm="final_norm",
)

_QWEN3 = Architecture(
    model="Qwen3Model",
    prefix="model.",
    fields={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "max_positions": "max_position_embeddings",
        "layer_norm_eps": "rms_norm_eps",
        "activation": "hidden_act",
        "pad_token_id": "pad_token_id",
        "attention_dropout": "attention_dropout",
        "init_scale": "initializer_range",
        "num_key_value_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "theta": "rope_parameters.rope_theta",
        "rotary": "rope_parameters.rope_type",
        "attention_bias": "attention_bias",
    },
    fixed={"type_vocab_size": 0, "has_pooler": False},
    layers="layers.",
    layer={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "query_norm": "self_attn.q_norm",
        "key_norm": "self_attn.k_norm",
        "attention_output": "self_attn.o_proj",
        "attention_norm": "input_layernorm",
        "feed_forward": "mlp.gate_proj",
        "multiplier": "mlp.up_proj",
        "output": "mlp.down_proj",
        "output_norm": "post_attention_layernorm",
    },
    masked=None,
    family="qwen3",
    causal=True,
    embeddings={"word": "embed_tokens"},
    final_norm="norm",
)

_GEMMA3 = _QWEN3._replace(
    model="Gemma3TextModel",
    fields={
        **{name: at for name, at in _QWEN3.fields.items() if name not in ("activation", "theta", "rotary")},
        "activation": "hidden_activation",
        "query_scale": "query_pre_attn_scalar",
        "layer_types": "layer_types",
        "window": "sliding_window",
        "global_theta": "rope_parameters.full_attention.rope_theta",
        "local_theta": "rope_parameters.sliding_attention.rope_theta",
        "global_rotary": "rope_parameters.full_attention.rope_type",
        "local_rotary": "rope_parameters.sliding_attention.rope_type",
        "bidirectional": "use_bidirectional_attention",
    },
    fixed={**_QWEN3.fixed, "bidirectional": True},
    layer={
        **_QWEN3.layer,
        "attention_post_norm": "post_attention_layernorm",
        "output_norm": "pre_feedforward_layernorm",
        "output_post_norm": "post_feedforward_layernorm",
    },
    family="gemma3",
    causal=False,
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA._replace(model="XLMRobertaModel", masked=_LM_HEAD._replace(model="XLMRobertaForMaskedLM")),
    "camembert": _ROBERTA._replace(model="CamembertModel", masked=_LM_HEAD._replace(model="CamembertForMaskedLM")),
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
    "modernbert": _MODERNBERT,
    "qwen3": _QWEN3,
    "gemma3_text": _GEMMA3,
}
"""Supported families, by the ``model_type`` of a config.json."""
