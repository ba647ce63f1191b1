"""Conversion from and to Hugging Face's names and layouts: config.json to `ModelConfig`, tensors to parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.encoder.architectures import ARCHITECTURES
from metarec_jax.encoder.attention import DISTANCE_BUCKETS
from metarec_jax.encoder.families import config_class
from metarec_jax.encoder.forward import param_shapes
from metarec_jax.encoder.gemma3_config import Gemma3Config
from metarec_jax.encoder.mlm_head import identity_head
from metarec_jax.encoder.model_config import ModelConfig
from metarec_jax.encoder.transformers_import import import_transformers

PARTS = ("embeddings.", "encoder.", "transformer.", "pooler.", "layers.", "final_norm.", "embed_tokens.", "norm.")
"""Prefixes of the plain names of an encoder's tensors; tensors of task heads have other prefixes."""

MASKED_HEADS = ("cls.predictions.", "lm_head.", "vocab_", "head.", "decoder.")
"""Prefixes of the names of tensors in heads of masked language modelling."""

_PREFIXES = sorted({architecture.prefix for architecture in ARCHITECTURES.values()})

# Fields of config.json that change the computation in unsupported ways, with their supported values: of all families,
# and of each.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "auto_map": ({}, None),  # the model is code in the folder
}
_REFUSED_OF: Mapping[str, dict[str, tuple[Any, ...]]] = {
    "bert": {
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "add_cross_attention": (False, None),
        "relative_attention_num_buckets": (DISTANCE_BUCKETS, None),
        "pruned_heads": ({}, None),
    },
    "modernbert": {"partial_rotary_factor": (1.0, None)},
    "qwen3": {
        "partial_rotary_factor": (1.0, None),
        "use_sliding_window": (False, None),
        "use_bidirectional_attention": (False, None),
        "is_causal": (True, None),
    },
    "gemma3": {
        "partial_rotary_factor": (1.0, None),
        "attn_logit_softcapping": (None,),
        "use_bidirectional_attention": (True,),
    },
}

_TENSOR = {"kernel": "weight", "scale": "weight", "offset": "weight", "embedding": "weight", "bias": "bias"}
"""Name of an array in our parameters -> last part of its tensor's name."""

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
"""Ids that transformers' config of a ModernBERT has, with those of ModernBERT-base where config.json states none."""

NO_PADDING = 0
"""Id with which texts are padded where config.json states none, as of decoders; padding has no effect on results."""


class Weight(NamedTuple):
    """One array of the parameters, and the tensor that holds it.

    Attributes:
        path: path in the parameters.
        name: Hugging Face name of the tensor.
        shape: shape of the tensor.
        transposed: whether the array is its transpose.
        rows: first row of the tensor that belongs to the array, and the row after the last; None for all rows.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool
    rows: tuple[int, int] | None = None


def config_from_json(tree: Mapping[str, Any], *, where: str) -> ModelConfig:
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
    for name, fine in (_REFUSED | _REFUSED_OF[ARCHITECTURES[kind].family]).items():
        if tree.get(name) not in fine:
            raise MetarecError(
                f"{where}: {name} is {tree.get(name)!r}, which this package does not compute; "
                f"it works with {name} {fine[0]!r}, a plain {kind} encoder"
            )
    architecture, settings = ARCHITECTURES[kind], {k: v for k, v in tree.items() if k != "model_type"}
    if settings.get("pad_token_id", 0) is None:
        del settings["pad_token_id"]  # null means the family's default
    try:
        read = import_transformers().AutoConfig.for_model(kind, **settings)
    except Exception as error:  # transformers raises its own errors, and any error that wrong types cause
        raise MetarecError(f"{where}: transformers cannot read it: {' '.join(str(error).split())}") from error
    values = {field: _at(read, name) for field, name in architecture.fields.items()}
    if values["pad_token_id"] is None:
        values["pad_token_id"] = NO_PADDING
    if architecture.counts_padding:
        values["max_positions"] -= values["pad_token_id"] + 1  # rows of the table that are never used
    try:
        return config_class(kind)(**{**architecture.fixed, **values}, model_type=kind)
    except MetarecError as error:
        raise MetarecError(f"{where}: {error}") from None


def _at(read: Any, name: str) -> Any:
    """The value of a name in a config of transformers; nested names have a dot before each, and lists are tuples."""
    first, *rest = name.split(".")
    value = getattr(read, first)
    for key in rest:
        value = value[key]
    return tuple(value) if isinstance(value, list) else value


def config_to_json(config: ModelConfig) -> dict[str, Any]:
    """The config.json that describes ``config``, as transformers reads it."""
    architecture, tree = config.architecture, dict[str, Any]()
    for field, name in architecture.fields.items():
        value, at = getattr(config, field), tree
        *outer, last = name.split(".")
        for key in outer:
            at = at.setdefault(key, {})
        at[last] = list(value) if isinstance(value, tuple) else value
    tree["max_position_embeddings"] += config.first_position
    if config.family == "modernbert":
        tree |= dict.fromkeys(SPECIAL_TOKENS)
    if isinstance(config, Gemma3Config):
        tree["sliding_window"] = 2 * (config.window - 1)  # transformers halves it, and adds 1, where it reads it
    if config.architecture.causal and config.pad_token_id == NO_PADDING:
        del tree["pad_token_id"]
    return {"architectures": [architecture.model], "model_type": config.model_type, **tree}


def weights(config: ModelConfig) -> Iterator[Weight]:
    """Yield every array of a model of this architecture, with its tensor."""
    architecture, params = config.architecture, param_shapes(config)
    for part, name in architecture.embeddings.items():
        yield from _named(params["embeddings"], {part: name}, ("embeddings",))
    if architecture.relative_bias:
        yield from _named(params, {"relative_bias": architecture.relative_bias})
    for i in range(config.num_layers):
        names = {part: f"{architecture.layers}{i}.{name}" for part, name in architecture.layer.items()}
        yield from _named(params[f"layer_{i}"], names, (f"layer_{i}",))
    if architecture.final_norm:
        yield from _named(params, {"final_norm": architecture.final_norm})
    if config.has_pooler:
        yield from _named(params, {"pooler": "pooler.dense"})


def _named(params: Params, names: Mapping[str, str], at: tuple[str, ...] = ()) -> Iterator[Weight]:
    """Yield the arrays of some parts of the parameters.

    Parts that the parameters do not have are left out; those of one name are rows of one tensor.
    """
    present = {part: name for part, name in names.items() if part in params}
    for part, name in present.items():
        for leaf in ("kernel", "scale", "offset", "embedding", "bias"):
            if leaf not in params[part]:
                continue
            transposed = leaf == "kernel"  # PyTorch keeps [out, in]
            parts = [other for other, its in present.items() if its == name]
            sizes = [params[other][leaf].shape[1 if transposed else 0] for other in parts]
            start, size = sum(sizes[: parts.index(part)]), sizes[parts.index(part)]
            shape = params[part][leaf].shape
            shape = (sum(sizes), *(shape[:1] if transposed else shape[1:]))
            rows = (start, start + size) if len(parts) > 1 else None
            yield Weight((*at, part, leaf), f"{name}.{_TENSOR[leaf]}", shape, transposed, rows)


def plain_name(name: str) -> str:
    """Remove the prefix of task models from a tensor's name, and replace names of old checkpoints."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def layers_in(names: Iterable[str], config: ModelConfig) -> int:
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


def params_from_tensors(tensors: Mapping[str, np.ndarray], config: ModelConfig, *, where: str) -> Params:
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
    return tree_of(weights(config), tensors, where)


def tree_of(wanted: Iterable[Weight], tensors: Mapping[str, np.ndarray], where: str) -> Params:
    """Convert tensors to a nested dict of float32 arrays.

    Args:
        wanted: the arrays.
        tensors: tensors by name, with all that the arrays are in.
        where: name of the weights in errors.

    Returns:
        The arrays by their paths.

    Raises:
        MetarecError: a tensor has a wrong shape or type, or holds a NaN or infinity.
    """
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
        tensor = tensor[slice(*weight.rows)] if weight.rows else tensor
        value = np.ascontiguousarray(tensor.T if weight.transposed else tensor, dtype=np.float32)
        if not np.isfinite(value).all():
            raise MetarecError(f"{where}: {weight.name} holds a NaN or an infinity; the weights are damaged")
        at = params
        for key in weight.path[:-1]:
            at = at.setdefault(key, {})
        at[weight.path[-1]] = value
    return params


def tensors_from_params(params: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """Convert parameters to the tensors of transformers' model without a head: the inverse of `params_from_tensors`.

    Args:
        params: parameters of the encoder.
        config: the architecture.

    Returns:
        Tensors by their names in transformers.
    """
    return tensors_of(weights(config), params)


def tensors_of(wanted: Iterable[Weight], params: Params) -> dict[str, np.ndarray]:
    """Convert parameters to tensors: the inverse of `tree_of`.

    Args:
        wanted: the arrays.
        params: a nested dict with these arrays.

    Returns:
        Tensors by name.
    """
    pieces: dict[str, list[np.ndarray]] = {}
    for weight in wanted:
        value: Any = params
        for key in weight.path:
            value = value[key]
        value = np.asarray(value, np.float32)
        pieces.setdefault(weight.name, []).append(value.T if weight.transposed else value)
    return {name: np.ascontiguousarray(np.concatenate(of) if of[1:] else of[0]) for name, of in pieces.items()}


def head_weights(config: ModelConfig) -> Iterator[Weight]:
    """Yield every array of the head of masked language modelling except its decoder, the word embeddings."""
    masked = config.architecture.masked
    if masked is None:
        return
    head = jax.eval_shape(lambda: identity_head(config))
    yield from _named(head, {"dense": masked.dense, "norm": masked.norm})
    if "bias" in head:
        yield Weight(("bias",), masked.bias, (config.vocab_size,), False)


def head_from_tensors(
    tensors: Mapping[str, np.ndarray], config: ModelConfig, params: Params, *, where: str
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
    masked = config.architecture.masked
    if masked is None or any(weight.name not in tensors for weight in head_weights(config)):
        return None
    decoder = tensors.get(f"{masked.decoder}.weight")
    word = params["embeddings"]["word"]["embedding"]
    if decoder is not None and not np.array_equal(np.asarray(decoder, np.float32), word):
        return None
    return tree_of(head_weights(config), tensors, where)


def with_head(params: Params, head: Params, config: ModelConfig) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
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
    assert architecture.masked is not None  # there is a head
    tree = {**config_to_json(config), "architectures": [architecture.masked.model], "tie_word_embeddings": True}
    return tree, tensors | tensors_of(head_weights(config), head)
