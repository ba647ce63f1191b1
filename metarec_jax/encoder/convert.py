"""Conversion from and to Hugging Face's names and layouts: config.json to `BertConfig`, tensors to parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.encoder.architectures import ARCHITECTURES, EMBEDDINGS
from metarec_jax.encoder.attention import DISTANCE_BUCKETS
from metarec_jax.encoder.bert_config import BertConfig
from metarec_jax.encoder.transformers_import import import_transformers

PARTS = ("embeddings.", "encoder.", "transformer.", "pooler.")
"""Prefixes of the plain names of an encoder's tensors; tensors of task heads have other prefixes."""

MASKED_HEADS = ("cls.predictions.", "lm_head.", "vocab_")
"""Prefixes of the names of tensors in heads of masked language modelling."""

_PREFIXES = sorted({architecture.prefix for architecture in ARCHITECTURES.values()})

# Fields of config.json that change the computation in unsupported ways, with their supported values.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "relative_attention_num_buckets": (DISTANCE_BUCKETS, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": ({}, None),  # the model is code in the folder
}


class Weight(NamedTuple):
    """One tensor: path in the parameters, Hugging Face name and shape, and whether it is transposed."""

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool


def config_from_json(tree: Mapping[str, Any], *, where: str) -> BertConfig:
    """Read an architecture from a config.json; `AutoConfig` checks the types and fills in defaults.

    Args:
        tree: the JSON object.
        where: name of the object in errors, for example its path.

    Returns:
        The architecture.

    Raises:
        MetarecError: the architecture or a value is not supported; the message lists those that are.
    """
    kind = tree.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise MetarecError(f"{where}: model_type is {kind!r}; the encoders that work are {', '.join(ARCHITECTURES)}")
    for name, fine in _REFUSED.items():
        if tree.get(name) not in fine:
            raise MetarecError(
                f"{where}: {name} is {tree[name]!r}, which this package does not compute; "
                f"it works with {name} {fine[0]!r}, a plain {kind} encoder"
            )
    architecture, settings = ARCHITECTURES[kind], {k: v for k, v in tree.items() if k != "model_type"}
    if settings.get("pad_token_id", 0) is None:
        del settings["pad_token_id"]  # null means the family's default
    try:
        read = import_transformers().AutoConfig.for_model(kind, **settings)
    except Exception as error:  # transformers raises its own errors, and any error that wrong types cause
        raise MetarecError(f"{where}: transformers cannot read it: {' '.join(str(error).split())}") from error
    values: dict[str, Any] = {field: getattr(read, name) for field, name in architecture.fields.items()}
    if architecture.counts_padding:
        values["max_positions"] -= values["pad_token_id"] + 1  # rows of the table that are never used
    try:
        return BertConfig(**{**architecture.fixed, **values}, model_type=kind)
    except MetarecError as error:
        raise MetarecError(f"{where}: {error}") from None


def config_to_json(config: BertConfig) -> dict[str, Any]:
    """The config.json that describes ``config``, as transformers reads it."""
    architecture = config.architecture
    tree = {name: getattr(config, field) for field, name in architecture.fields.items()}
    tree["max_position_embeddings"] += config.first_position
    return {"architectures": [architecture.model], "model_type": config.model_type, **tree}


def weights(config: BertConfig) -> Iterator[Weight]:
    """Yield every tensor of a model of this architecture."""
    hidden, wide = config.hidden_size, config.intermediate_size

    def dense(path: tuple[str, ...], name: str, inputs: int, outputs: int) -> Iterator[Weight]:
        yield Weight((*path, "kernel"), f"{name}.weight", (outputs, inputs), True)  # PyTorch keeps [out, in]
        yield Weight((*path, "bias"), f"{name}.bias", (outputs,), False)

    def norm(path: tuple[str, ...], name: str) -> Iterator[Weight]:
        yield Weight((*path, "scale"), f"{name}.weight", (hidden,), False)
        yield Weight((*path, "bias"), f"{name}.bias", (hidden,), False)

    architecture = config.architecture
    for part, rows in (
        ("word", config.vocab_size),
        ("position", config.first_position + config.max_positions),
        ("type", config.type_vocab_size),
    ):
        if rows:
            yield Weight(("embeddings", part, "embedding"), f"{EMBEDDINGS[part]}.weight", (rows, hidden), False)
    yield from norm(("embeddings", "norm"), EMBEDDINGS["norm"])
    if architecture.relative_bias:
        shape = (DISTANCE_BUCKETS, config.num_heads)
        yield Weight(("relative_bias", "embedding"), f"{architecture.relative_bias}.weight", shape, False)
    sizes = {"feed_forward": (hidden, wide), "output": (wide, hidden)}
    for i in range(config.num_layers):
        for part, name in architecture.layer.items():
            path, name = (f"layer_{i}", part), f"{architecture.layers}{i}.{name}"
            if part.endswith("norm"):
                yield from norm(path, name)
            else:
                yield from dense(path, name, *sizes.get(part, (hidden, hidden)))
    if config.has_pooler:
        yield from dense(("pooler",), "pooler.dense", hidden, hidden)


def plain_name(name: str) -> str:
    """Remove the prefix of task models from a tensor's name, and replace names of old checkpoints."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def layers_in(names: Iterable[str], config: BertConfig) -> int:
    """Number of layers in a checkpoint.

    Args:
        names: plain names of its tensors.
        config: the architecture.

    Returns:
        The highest layer number + 1; 0 without layers.
    """
    start = config.architecture.layers
    numbers = [name.removeprefix(start).split(".")[0] for name in names if name.startswith(start)]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def params_from_tensors(tensors: Mapping[str, np.ndarray], config: BertConfig, *, where: str) -> Params:
    """Convert tensors to parameters as `encode` takes them.

    Args:
        tensors: tensors by plain name (see `plain_name`); tensors outside the architecture are left out.
        config: the architecture.
        where: name of the weights in errors.

    Returns:
        A nested dict of float32 numpy arrays.

    Raises:
        MetarecError: a tensor is missing, has a wrong shape or type, or holds a NaN or infinity.
    """
    layers = layers_in(tensors, config)
    if layers > config.num_layers:
        raise MetarecError(f"{where}: the weights have {layers} layers, but config.json says {config.num_layers}")
    for weight in weights(config):
        if weight.name not in tensors:
            raise MetarecError(
                f"{where}: there is no tensor {weight.name}; the weights are not those of a complete "
                f"{config.model_type} encoder"
            )
    return _tree(weights(config), tensors, where)


def _tree(wanted: Iterable[Weight], tensors: Mapping[str, np.ndarray], where: str) -> Params:
    """The tensors as a nested dict of float32 arrays."""
    params: dict[str, Any] = {}
    for weight in wanted:
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
    """Convert parameters to the tensors of transformers' model without a head: the inverse of `params_from_tensors`.

    Args:
        params: parameters of the encoder.
        config: the architecture.

    Returns:
        Tensors by their names in transformers.
    """
    return _flat(weights(config), params)


def _flat(wanted: Iterable[Weight], params: Params) -> dict[str, np.ndarray]:
    tensors = {}
    for weight in wanted:
        value: Any = params
        for key in weight.path:
            value = value[key]
        value = np.asarray(value, np.float32)
        tensors[weight.name] = np.ascontiguousarray(value.T if weight.transposed else value)
    return tensors


def head_weights(config: BertConfig) -> Iterator[Weight]:
    """Yield every tensor of the head of masked language modelling except its decoder, the word embeddings."""
    hidden, masked = config.hidden_size, config.architecture.masked
    yield Weight(("dense", "kernel"), f"{masked.dense}.weight", (hidden, hidden), True)
    yield Weight(("dense", "bias"), f"{masked.dense}.bias", (hidden,), False)
    yield Weight(("norm", "scale"), f"{masked.norm}.weight", (hidden,), False)
    yield Weight(("norm", "bias"), f"{masked.norm}.bias", (hidden,), False)
    yield Weight(("bias",), masked.bias, (config.vocab_size,), False)


def head_from_tensors(
    tensors: Mapping[str, np.ndarray], config: BertConfig, params: Params, *, where: str
) -> Params | None:
    """Convert tensors to parameters of the head of masked language modelling, as `mlm_head.logits` takes them.

    Args:
        tensors: tensors by plain name.
        config: the architecture.
        params: parameters of the encoder; the head's decoder must be its word embeddings.
        where: name of the weights in errors.

    Returns:
        The parameters; None where the checkpoint has no such head, or one whose decoder is not the word embeddings.

    Raises:
        MetarecError: a tensor has a wrong shape or type, or holds a NaN or infinity.
    """
    if any(weight.name not in tensors for weight in head_weights(config)):
        return None
    decoder = tensors.get(f"{config.architecture.masked.decoder}.weight")
    word = params["embeddings"]["word"]["embedding"]
    if decoder is not None and not np.array_equal(np.asarray(decoder, np.float32), word):
        return None
    return _tree(head_weights(config), tensors, where)


def with_head(params: Params, head: Params, config: BertConfig) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Convert parameters to transformers' model with a head of masked language modelling.

    Args:
        params: parameters of the encoder.
        head: parameters of the head.
        config: the architecture.

    Returns:
        The config.json, and the tensors by name.
    """
    architecture = config.architecture
    tensors = {architecture.prefix + name: tensor for name, tensor in tensors_from_params(params, config).items()}
    tree = {**config_to_json(config), "architectures": [architecture.masked.model], "tie_word_embeddings": True}
    return tree, tensors | _flat(head_weights(config), head)
