"""Text encoders in JAX: loading and saving of pretrained weights, and encoding of texts as vectors.

>>> from metarec_jax import encoder
>>> bert = encoder.load("random")
>>> encoder.encode_table(bert, ["a film", "another film", "a film"]).shape
(3, 64)
"""

from metarec_jax.encoder.bert_config import BertConfig
from metarec_jax.encoder.embedding_cache import encode_table
from metarec_jax.encoder.execution import Attention, Execution, choose_execution
from metarec_jax.encoder.families import config_class
from metarec_jax.encoder.forward import embed, encode, hidden_states, init, param_shapes, pooled, run_layers
from metarec_jax.encoder.gemma3_config import Gemma3Config
from metarec_jax.encoder.lora import LORA_LAYERS, add_lora, lora_layers, merge_lora
from metarec_jax.encoder.model_config import ModelConfig, Pooling, Projection, Tokens
from metarec_jax.encoder.modernbert_config import ModernBertConfig
from metarec_jax.encoder.padding import bucket, chunks, pack
from metarec_jax.encoder.pooling import pool, text_vectors
from metarec_jax.encoder.pretrained import Encoder, load, random_encoder, remarks, save
from metarec_jax.encoder.qwen3_config import Qwen3Config
from metarec_jax.encoder.sentence_transformers import Side
from metarec_jax.encoder.text_rows import TextRows, Texts
from metarec_jax.encoder.tokenizer import Tokenised, Tokenizer, prompt_length, require_strings, tokenize, words_of

__all__ = [
    "LORA_LAYERS",
    "Attention",
    "BertConfig",
    "Encoder",
    "Execution",
    "Gemma3Config",
    "ModelConfig",
    "ModernBertConfig",
    "Pooling",
    "Projection",
    "Qwen3Config",
    "Side",
    "TextRows",
    "Texts",
    "Tokenised",
    "Tokenizer",
    "Tokens",
    "add_lora",
    "bucket",
    "choose_execution",
    "chunks",
    "config_class",
    "embed",
    "encode",
    "encode_table",
    "hidden_states",
    "init",
    "load",
    "lora_layers",
    "merge_lora",
    "pack",
    "param_shapes",
    "pool",
    "pooled",
    "prompt_length",
    "random_encoder",
    "remarks",
    "require_strings",
    "run_layers",
    "save",
    "text_vectors",
    "tokenize",
    "words_of",
]
