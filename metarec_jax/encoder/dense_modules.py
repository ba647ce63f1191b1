"""Dense layers after pooling, as sentence-transformers stores them: a folder for each, such as 2_Dense."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.core.types import Params
from metarec_jax.encoder import convert
from metarec_jax.encoder.checkpoint_files import read_safetensors
from metarec_jax.encoder.model_config import Projection

_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "linear",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
"""PyTorch's class in a Dense module's config.json -> name of `activations.ACTIVATIONS`."""
_VECTOR = "sentence_embedding"
"""Name of the pooled vector among the inputs and outputs of a module."""
_WEIGHTS = "model.safetensors"
_KNOWN = {
    "in_features",
    "out_features",
    "bias",
    "activation_function",
    "module_input_name",
    "module_output_name",
    "use_residual",
}
"""Settings of a Dense module; one with others computes something else."""


class DenseModule(NamedTuple):
    """A dense layer of a checkpoint.

    Attributes:
        folder: its folder.
        inputs: width of its input.
        projection: the layer.
    """

    folder: Path
    inputs: int
    projection: Projection


def find_dense(folder: Path, modules: Sequence[tuple[str, str]]) -> list[DenseModule]:
    """Find the dense layers that follow pooling directly and can be computed.

    Args:
        folder: folder of the checkpoint.
        modules: (kind, subfolder) of each module of modules.json, in order.

    Returns:
        The layers, up to the first that cannot be computed: one of tokens, with an activation that is not known, or
        with weights in a pickle alone.
    """
    kinds = [kind for kind, _ in modules]
    found: list[DenseModule] = []
    if "Pooling" not in kinds:
        return found
    for kind, path in modules[kinds.index("Pooling") + 1 :]:
        module = _readable(folder / path) if kind == "Dense" else None
        if module is None:
            break
        found.append(module)
    return found


def read_dense(modules: Sequence[DenseModule], hidden_size: int) -> tuple[tuple[Projection, ...], dict[str, Params]]:
    """Read the weights of dense layers.

    Args:
        modules: from `find_dense`.
        hidden_size: width of a pooled vector.

    Returns:
        The layers, and their parameters by name.

    Raises:
        MetarecError: a layer does not take the vectors before it, or its weights are missing or damaged.
    """
    params: dict[str, Params] = {}
    width = hidden_size
    for number, module in enumerate(modules):
        if module.inputs != width:
            raise MetarecError(
                f"{module.folder / 'config.json'}: in_features is {module.inputs}, but the vectors before this layer "
                f"have {width} numbers; the folder holds parts of different models"
            )
        wanted = _weights(module.inputs, module.projection)
        tensors = read_safetensors(module.folder / _WEIGHTS, ("linear.",))
        missing = [weight.name for weight in wanted if weight.name not in tensors]
        if missing:
            raise MetarecError(
                f"{module.folder / _WEIGHTS}: there is no tensor {missing[0]}, which config.json asks for; the file is "
                "damaged, so copy or download it again"
            )
        params[f"projection_{number}"] = convert.tree_of(wanted, tensors, str(module.folder / _WEIGHTS))
        width = module.projection.features
    return tuple(module.projection for module in modules), params


def write_dense(folder: Path, projection: Projection, params: Mapping[str, Any]) -> None:
    """Write the folder of a dense layer.

    Args:
        folder: a new folder.
        projection: the layer.
        params: its parameters.
    """
    from safetensors.numpy import save_file

    kernel = np.asarray(params["kernel"], np.float32)
    names = {name: torch for torch, name in _ACTIVATIONS.items()}
    tree = {
        "in_features": kernel.shape[0],
        "out_features": projection.features,
        "bias": projection.bias,
        "activation_function": names[projection.activation],
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    tensors = convert.tensors_of(_weights(kernel.shape[0], projection), params)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def activation_of(function: Any) -> str | None:
    """Name in `activations.ACTIVATIONS` of an instance of a PyTorch activation; None if it is not known."""
    kind = type(function)
    return _ACTIVATIONS.get(f"{kind.__module__}.{kind.__name__}")


def _weights(inputs: int, projection: Projection) -> list[convert.Weight]:
    kernel = convert.Weight(("kernel",), "linear.weight", (projection.features, inputs), True)
    bias = convert.Weight(("bias",), "linear.bias", (projection.features,), False)
    return [kernel, bias] if projection.bias else [kernel]


def _readable(folder: Path) -> DenseModule | None:
    try:
        tree = read_json(folder / "config.json")
    except MetarecError:
        return None
    if not isinstance(tree, dict) or not (folder / _WEIGHTS).exists():
        return None
    if not tree.keys() <= _KNOWN or tree.get("use_residual", False) is not False:
        return None
    inputs, outputs = (tree.get(name) for name in ("in_features", "out_features"))
    activation = _ACTIVATIONS.get(str(tree.get("activation_function", "torch.nn.modules.activation.Tanh")))
    ends = {tree.get(f"module_{end}_name") or _VECTOR for end in ("input", "output")}
    if activation is None or ends != {_VECTOR} or not _is_size(inputs) or not _is_size(outputs):
        return None
    return DenseModule(folder, inputs, Projection(outputs, tree.get("bias", True) is True, activation))


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0
