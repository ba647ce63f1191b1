"""Hugging Face's names and layouts, in and out: config.json to `BertConfig`, tensors to parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.encoder.bert import BertConfig
from metarec_jax.errors import MetarecError
from metarec_jax.types import Params

MODEL_TYPES = ("bert",)
"""Values of ``model_type`` that work."""

PARTS = ("embeddings.", "encoder.", "pooler.")
"""How the plain names of an encoder's tensors start; a checkpoint's task heads have others."""

# Field of BertConfig, name in config.json, and the value that Hugging Face assumes where the file has none.
_FIELDS = (
    ("vocab_size", "vocab_size", 30522),
    ("hidden_size", "hidden_size", 768),
    ("num_layers", "num_hidden_layers", 12),
    ("num_heads", "num_attention_heads", 12),
    ("intermediate_size", "intermediate_size", 3072),
    ("max_positions", "max_position_embeddings", 512),
    ("type_vocab_size", "type_vocab_size", 2),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
    ("activation", "hidden_act", "gelu"),
    ("pad_token_id", "pad_token_id", 0),
    ("dropout", "hidden_dropout_prob", 0.1),
    ("attention_dropout", "attention_probs_dropout_prob", 0.1),
    ("init_scale", "initializer_range", 0.02),
)

# What changes the arithmetic in ways this package does not follow: name, the values that are fine.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": ({}, None),  # the model is code of its own, whatever model_type says
}


class Weight(NamedTuple):
    """One tensor: where it lies in the parameters, its Hugging Face name, its shape there, and if it is transposed."""

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool


def config_from_json(tree: Mapping[str, Any], *, where: str) -> BertConfig:
    """The architecture that a config.json describes.

    Args:
        tree: the JSON object.
        where: what to call it in an error, for example its file name.

    Raises:
        MetarecError: an architecture or a value that does not work; the message says which do.
    """
    kind = tree.get("model_type")
    if kind not in MODEL_TYPES:
        raise MetarecError(f"{where}: model_type is {kind!r}; the encoders that work are {', '.join(MODEL_TYPES)}")
    for name, fine in _REFUSED.items():
        if tree.get(name) not in fine:
            raise MetarecError(
                f"{where}: {name} is {tree[name]!r}, which this package does not compute; "
                f"it works with {name} {fine[0]!r}, a plain BERT encoder"
            )
    values = {field: tree.get(name, default) for field, name, default in _FIELDS}
    if values["pad_token_id"] is None:
        values["pad_token_id"] = 0
    for field, name, default in _FIELDS:
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if isinstance(values[field], bool) or not isinstance(values[field], kinds):
            raise MetarecError(f"{where}: {name} is {values[field]!r}; it must be a {type(default).__name__}")
    try:
        return BertConfig(**values)
    except MetarecError as error:
        raise MetarecError(f"{where}: {error}") from None


def config_to_json(config: BertConfig) -> dict[str, Any]:
    """The config.json that describes ``config``, as transformers reads it."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "position_embedding_type": "absolute",
        **{name: getattr(config, field) for field, name, _ in _FIELDS},
    }


def weights(config: BertConfig) -> Iterator[Weight]:
    """Every tensor that a model of this architecture has."""
    hidden, wide = config.hidden_size, config.intermediate_size

    def dense(path: tuple[str, ...], name: str, inputs: int, outputs: int) -> Iterator[Weight]:
        yield Weight((*path, "kernel"), f"{name}.weight", (outputs, inputs), True)  # PyTorch keeps [out, in]
        yield Weight((*path, "bias"), f"{name}.bias", (outputs,), False)

    def norm(path: tuple[str, ...], name: str) -> Iterator[Weight]:
        yield Weight((*path, "scale"), f"{name}.weight", (hidden,), False)
        yield Weight((*path, "bias"), f"{name}.bias", (hidden,), False)

    for ours, theirs, rows in (
        ("word", "word_embeddings", config.vocab_size),
        ("position", "position_embeddings", config.max_positions),
        ("type", "token_type_embeddings", config.type_vocab_size),
    ):
        yield Weight(("embeddings", ours, "embedding"), f"embeddings.{theirs}.weight", (rows, hidden), False)
    yield from norm(("embeddings", "norm"), "embeddings.LayerNorm")
    for i in range(config.num_layers):
        layer, prefix = f"layer_{i}", f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            yield from dense((layer, part), f"{prefix}.attention.self.{part}", hidden, hidden)
        yield from dense((layer, "attention_output"), f"{prefix}.attention.output.dense", hidden, hidden)
        yield from norm((layer, "attention_norm"), f"{prefix}.attention.output.LayerNorm")
        yield from dense((layer, "feed_forward"), f"{prefix}.intermediate.dense", hidden, wide)
        yield from dense((layer, "output"), f"{prefix}.output.dense", wide, hidden)
        yield from norm((layer, "output_norm"), f"{prefix}.output.LayerNorm")
    if config.has_pooler:
        yield from dense(("pooler",), "pooler.dense", hidden, hidden)


def plain_name(name: str) -> str:
    """A tensor's name without the prefix that task models put before it, and without the names of old checkpoints."""
    name = name.removeprefix("bert.")
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def layers_in(names: Sequence[str]) -> int:
    """How many layers tensors of these plain names belong to."""
    numbers = [int(n.split(".")[2]) for n in names if n.startswith("encoder.layer.") and n.split(".")[2].isdigit()]
    return 1 + max(numbers, default=-1)


def params_from_tensors(tensors: Mapping[str, np.ndarray], config: BertConfig, *, where: str) -> Params:
    """Parameters as `encode` takes them.

    Args:
        tensors: by plain name (see `plain_name`); others than the architecture's are left out.
        config: the architecture.
        where: what to call the weights in an error.

    Returns:
        A nested dict of float32 numpy arrays.

    Raises:
        MetarecError: a tensor is missing, has another shape or type, or holds a NaN or infinity.
    """
    layers = layers_in(list(tensors))
    if layers > config.num_layers:
        raise MetarecError(f"{where}: the weights have {layers} layers, but config.json says {config.num_layers}")
    params: dict[str, Any] = {}
    for weight in weights(config):
        if weight.name not in tensors:
            raise MetarecError(f"{where}: there is no tensor {weight.name}; the file is not a complete BERT encoder")
        tensor = tensors[weight.name]
        if tensor.shape != weight.shape:
            raise MetarecError(
                f"{where}: {weight.name} has shape {list(tensor.shape)}, but config.json asks for {list(weight.shape)}"
            )
        if tensor.dtype.kind != "f" and tensor.dtype.name != "bfloat16":
            raise MetarecError(
                f"{where}: {weight.name} is of type {tensor.dtype}; it must be float32, float16, bfloat16 or float64"
            )
        value = np.ascontiguousarray(tensor.T if weight.transposed else tensor, dtype=np.float32)
        if not np.isfinite(value).all():
            raise MetarecError(f"{where}: {weight.name} holds a NaN or an infinity; the weights are damaged")
        at = params
        for key in weight.path[:-1]:
            at = at.setdefault(key, {})
        at[weight.path[-1]] = value
    return params


def tensors_from_params(params: Params, config: BertConfig) -> dict[str, np.ndarray]:
    """The tensors that transformers' ``BertModel`` has, by its names: the inverse of `params_from_tensors`."""
    tensors = {}
    for weight in weights(config):
        value: Any = params
        for key in weight.path:
            value = value[key]
        value = np.asarray(value, np.float32)
        tensors[weight.name] = np.ascontiguousarray(value.T if weight.transposed else value)
    return tensors
