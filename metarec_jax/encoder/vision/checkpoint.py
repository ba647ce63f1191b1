"""Vision towers in Hugging Face folders: config.json, preprocessor_config.json and safetensors."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.encoder.checkpoint_files import read_object, read_safetensors
from metarec_jax.encoder.vision.tower import param_shapes
from metarec_jax.encoder.vision.vision_config import Preparation, VisionConfig

_KINDS = {"clip": "clip", "clip_vision_model": "clip", "siglip": "siglip", "siglip_vision_model": "siglip"}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "clip": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": 512,
        "num_channels": 3,
    },
    "siglip": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": True,
        "num_channels": 3,
    },
}
"""Values of transformers for what a config.json leaves out."""
_NAMES = {
    "patch": "embeddings.patch_embedding",
    "class": "embeddings.class_embedding",
    "position": "embeddings.position_embedding",
    "first_norm": "pre_layrnorm",
    "final_norm": "post_layernorm",
    "projection": "visual_projection",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_output": "self_attn.out_proj",
    "attention_norm": "layer_norm1",
    "output_norm": "layer_norm2",
    "feed_forward": "mlp.fc1",
    "output": "mlp.fc2",
}
_HEAD_NAMES = {"attention_output": "attention.out_proj", "output_norm": "layernorm"}
_ROWS = {"query": 0, "key": 1, "value": 2}
_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


@dataclasses.dataclass(frozen=True, eq=False)
class Vision:
    """A vision tower.

    Attributes:
        config: the architecture.
        params: its parameters, a nested dict of float32 arrays.
        preparation: how pictures are prepared.
        source: its origin, for messages.
    """

    config: VisionConfig
    params: Params
    preparation: Preparation
    source: str

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of architecture, preparation and weights: equal digests give equal vectors."""
        total = hashlib.sha256(json.dumps([dataclasses.asdict(self.config), self.preparation]).encode())
        for path, leaf in jax.tree.leaves_with_path(self.params):
            total.update(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode())
            total.update(np.asarray(leaf).tobytes())
        return total.hexdigest()


def load_vision(path: str) -> Vision:
    """Load the vision tower of a CLIP or a SigLIP from a folder, or from the Hugging Face hub.

    Args:
        path: a folder with config.json, model.safetensors and preprocessor_config.json; or a hub id.

    Returns:
        The tower.

    Raises:
        MetarecError: files are missing or damaged, or the architecture is not supported.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        folder = _from_hub(path)
    kind, config = _config(folder / "config.json")
    tensors = _tensors(folder / "model.safetensors")
    if kind == "clip":
        wide = tensors.get("visual_projection.weight")
        config = dataclasses.replace(config, projection=0 if wide is None else len(wide))
    params = _params(config, tensors, folder / "model.safetensors")
    return Vision(config, params, _preparation(folder / "preprocessor_config.json", config), f"the folder {folder}")


def _from_hub(name: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:  # the hub's client raises its own, its transport's, and the system's errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MetarecError(
            f"data.image_encoder is {name!r}: there is no such folder, and the Hugging Face hub gave no model of that "
            f"name ({reason[:300]}); give a folder or a hub id of a CLIP or SigLIP"
        ) from error


def _config(path: Path) -> tuple[str, VisionConfig]:
    tree = read_object(path, "the architecture of the vision tower")
    kind = _KINDS.get(str(tree.get("model_type")))
    if kind is None or tree.get("auto_map"):
        raise MetarecError(
            f"{path}: model_type is {tree.get('model_type')!r}{' with code of its own' if tree.get('auto_map') else ''}"
            f"; the vision towers that work are those of {', '.join(_KINDS)}"
        )
    own = tree.get("vision_config", tree)
    if not isinstance(own, Mapping):
        raise MetarecError(f"{path}: vision_config must be an object {{...}}")
    value = {name: own.get(name, default) for name, default in _DEFAULTS[kind].items()}
    for name, default in _DEFAULTS[kind].items():
        fine = isinstance(value[name], str) if isinstance(default, str) else type(value[name]) in (int, float, bool)
        if not fine or (isinstance(default, int) and isinstance(value[name], float)):
            raise MetarecError(f"{path}: {name} is {value[name]!r:.100}; it must be like {default!r}")
    if value["num_channels"] != 3 or not value.get("vision_use_head", True):
        raise MetarecError(f"{path}: only pictures of 3 colours, and SigLIP with its pooling head, are computed")
    try:
        return kind, VisionConfig(
            kind=kind,  # type: ignore[arg-type]
            hidden_size=value["hidden_size"],
            num_layers=value["num_hidden_layers"],
            num_heads=value["num_attention_heads"],
            intermediate_size=value["intermediate_size"],
            image_size=value["image_size"],
            patch_size=value["patch_size"],
            activation=value["hidden_act"],
            layer_norm_eps=value["layer_norm_eps"],
        )
    except MetarecError as error:
        raise MetarecError(f"{path}: {error}") from None


def _preparation(path: Path, config: VisionConfig) -> Preparation:
    """Read preprocessor_config.json; both families' own settings where there is none."""
    if config.kind == "clip":
        usual = Preparation(
            config.image_size, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        )
    else:
        usual = Preparation(0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if not path.exists():
        return usual
    tree = read_object(path, "how pictures are prepared")
    size, shortest = tree.get("size"), usual.shortest
    if isinstance(size, int):
        shortest = size if config.kind == "clip" else 0
    elif isinstance(size, Mapping):
        shortest = size.get("shortest_edge", 0)
    colours = [
        tree.get(name, default) for name, default in (("image_mean", usual.mean), ("image_std", usual.deviation))
    ]
    numbers = [tuple(float(c) for c in each) if _is_colour(each) else None for each in colours]
    resample = tree.get("resample", usual.resample)
    fine = type(shortest) is int and (shortest == 0 or config.image_size <= shortest <= 4096)
    if not fine or None in numbers or resample not in (0, 1, 2, 3, 4, 5) or 0.0 in (numbers[1] or ()):
        raise MetarecError(
            f"{path}: size, image_mean, image_std or resample cannot be followed: the shortest edge must be at least "
            f"the {config.image_size} pixels of the tower, and colours have three numbers"
        )
    return Preparation(shortest, numbers[0], numbers[1], resample)  # type: ignore[arg-type]


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(c) in (int, float) for c in value)


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of the tower, without the name of the model that it is a part of."""
    if not path.exists():
        raise MetarecError(f"{path} is missing; it holds the weights of the vision tower")
    whole = read_safetensors(path, ("vision_model.", "visual_projection."))
    if any(name.startswith("vision_model.") for name in whole):
        return {name.removeprefix("vision_model."): tensor for name, tensor in whole.items()}
    own = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.", "head.", "visual_projection.")
    return read_safetensors(path, own)


def _params(config: VisionConfig, tensors: Mapping[str, np.ndarray], where: Path) -> Params:
    params: dict[str, Any] = {}
    for path, leaf in jax.tree.leaves_with_path(param_shapes(config)):
        keys = tuple(key.key for key in path)
        value = _tensor(keys, leaf.shape, tensors, where)
        at = params
        for key in keys[:-1]:
            at = at.setdefault(key, {})
        at[keys[-1]] = value
    return params


def _tensor(
    keys: tuple[str, ...], shape: tuple[int, ...], tensors: Mapping[str, np.ndarray], where: Path
) -> np.ndarray:
    """The array of a path of our parameters."""
    name = ".".join(_parts(keys))
    if name not in tensors:
        raise MetarecError(f"{where}: there is no tensor {name}; the weights are not those of a complete vision tower")
    tensor = np.asarray(tensors[name], np.float32)
    if keys[0] == "patch" and keys[-1] == "kernel" and tensor.ndim == 4:
        tensor = tensor.transpose(0, 2, 3, 1).reshape(len(tensor), -1)  # a convolution without overlap is a product
    if keys[0] == "head" and keys[1] in _ROWS and len(tensor) % 3 == 0:
        size = len(tensor) // 3
        tensor = tensor[_ROWS[keys[1]] * size : (_ROWS[keys[1]] + 1) * size]
    tensor = tensor.T if keys[-1] == "kernel" else tensor.reshape(-1) if len(shape) == 1 else tensor
    if tensor.shape != shape:
        raise MetarecError(f"{where}: {name} has shape {list(tensors[name].shape)}, which does not fit config.json")
    if not np.isfinite(tensor).all():
        raise MetarecError(f"{where}: {name} holds a NaN or an infinity; the weights are damaged")
    return np.ascontiguousarray(tensor)


def _parts(keys: tuple[str, ...]) -> Iterator[str]:
    """The parts of a tensor's name, from the path of its array."""
    leaf = "bias" if keys[-1] == "bias" else "weight"
    if keys[0] == "head":
        if keys[1] == "probe":
            yield from ("head", "probe")
        elif keys[1] in _ROWS:
            yield from ("head", f"attention.in_proj_{leaf}")
        else:
            yield from ("head", _HEAD_NAMES.get(keys[1], _NAMES[keys[1]]), leaf)
        return
    first, *rest = keys
    if first.startswith("layer_"):
        yield from ("encoder.layers", first.removeprefix("layer_"), _NAMES[rest[0]], leaf)
    elif first == "class":
        yield _NAMES[first]
    else:
        yield from (_NAMES[first], leaf)
