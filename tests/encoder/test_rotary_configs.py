"""Files config.json as published checkpoints have them."""

from __future__ import annotations

import pytest

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import convert

MODERNBERT = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "sep_token_id": 50282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": 50368,
}
MULTILINGUAL = MODERNBERT | {
    "position_embedding_type": "sans_pos",
    "global_rope_theta": 160000,
    "local_rope_theta": 160000,
    "pad_token_id": 0,
    "vocab_size": 256000,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151669,
}
GEMMA3 = {
    "_sliding_window_pattern": 6,
    "architectures": ["Gemma3TextModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "dtype": "float32",
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4,
    "max_position_embeddings": 2048,
    "model_type": "gemma3_text",
    "num_attention_heads": 3,
    "num_hidden_layers": 24,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "use_bidirectional_attention": True,
    "use_cache": True,
    "vocab_size": 262144,
}


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        (MODERNBERT, encoder.ModernBertConfig(50368, 768, 22, 12, 1152, pad_token_id=50283)),
        (MULTILINGUAL, encoder.ModernBertConfig(256000, 768, 22, 12, 1152, local_theta=160000.0)),
        (QWEN3, encoder.Qwen3Config(151669, 1024, 28, 16, 3072)),
        (GEMMA3, encoder.Gemma3Config(262144, 768, 24, 3, 1152)),
    ],
    ids=["ModernBERT-base", "mmBERT-base", "Qwen3-Embedding-0.6B", "EmbeddingGemma-300M"],
)
def test_a_published_config_is_read_and_written(tree, wanted):
    read = convert.config_from_json(tree, where="config.json")
    assert read == wanted
    assert convert.config_from_json(convert.config_to_json(read), where="written") == wanted
    assert "pad_token_id" not in convert.config_to_json(convert.config_from_json(QWEN3, where=""))


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (QWEN3 | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ["rotary is 'yarn'", "'default'"]),
        (QWEN3 | {"use_sliding_window": True, "sliding_window": 4096}, ["use_sliding_window is True"]),
        (QWEN3 | {"is_causal": False}, ["is_causal is False", "True"]),
        (QWEN3 | {"use_bidirectional_attention": True}, ["use_bidirectional_attention is True"]),
        (QWEN3 | {"partial_rotary_factor": 0.5}, ["partial_rotary_factor is 0.5"]),
        (QWEN3 | {"quantization_config": {"bits": 4}}, ["quantization_config"]),
        (QWEN3 | {"head_dim": 127}, ["127", "even"]),
        (QWEN3 | {"rope_theta": -1.0}, ["theta is -1.0"]),
        (GEMMA3 | {"use_bidirectional_attention": None}, ["use_bidirectional_attention is None", "True"]),
        (GEMMA3 | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, ["_rotary is 'linear'"]),
        (GEMMA3 | {"num_attention_heads": 4, "num_key_value_heads": 3}, ["num_heads 4", "num_key_value_heads 3"]),
        (MODERNBERT | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, ["global_rotary is 'linear'"]),
        (MODERNBERT | {"auto_map": {"AutoModel": "modeling.Model"}}, ["auto_map", "modeling.Model"]),
        (MODERNBERT | {"hidden_activation": "swoosh"}, ["swoosh", "gelu"]),
        (MODERNBERT | {"pad_token_id": 60000}, ["pad_token_id 60000", "50368"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value["model_type"],
)
def test_what_is_not_computed_is_refused_by_name(tree, words):
    with pytest.raises(MetarecError) as error:
        convert.config_from_json(tree, where="config.json")
    assert str(error.value).startswith("config.json: ")
    assert all(word in str(error.value) for word in words), error.value
    assert len(str(error.value)) < 600
