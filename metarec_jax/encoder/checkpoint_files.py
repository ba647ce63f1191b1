"""Files of a checkpoint's folder: JSON objects, and tensors in one or several safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.core.regular_files import open_regular
from metarec_jax.encoder import convert


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        what: contents of the file, for the message where it is missing.

    Returns:
        The object.

    Raises:
        MetarecError: the file is missing or damaged, or does not hold an object; the message names file and line.
    """
    try:
        tree = read_json(path)
    except MetarecError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise MetarecError(f"{path} is missing; it holds {what}") from None
        raise
    if not isinstance(tree, dict):
        raise MetarecError(f"{path}: it must be an object {{...}}")
    return tree


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read all tensors of a folder, by plain name."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return read_safetensors(single)
    if index.exists():
        return _read_shards(folder, index)
    if (folder / "pytorch_model.bin").exists():
        raise MetarecError(
            f"{folder} holds only pytorch_model.bin, a pickle, which runs code when it is loaded; where you trust it, "
            f"convert it once: python -c \"from transformers import AutoModel; AutoModel.from_pretrained('{folder}')"
            f".save_pretrained('{folder}')\""
        )
    raise MetarecError(f"{folder} holds no weights; model.safetensors (or its index and shards) is missing")


def _read_shards(folder: Path, index: Path) -> dict[str, np.ndarray]:
    shards = read_object(index, "the names of the shards").get("weight_map")
    if not isinstance(shards, Mapping) or not all(isinstance(shard, str) for shard in shards.values()):
        raise MetarecError(f"{index}: weight_map is missing, or does not name a file for each tensor")
    shards = {name: Path(shard).name for name, shard in shards.items()}
    files = sorted(set(shards.values()))
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise MetarecError(
            f"{folder}: {len(missing)} of {len(files)} shards that {index.name} names are missing "
            f"({', '.join(missing)}); the folder is incomplete, so copy or download it again"
        )
    tensors: dict[str, np.ndarray] = {}
    for shard in files:
        found = read_safetensors(folder / shard)
        promised = [convert.plain_name(name) for name, where in shards.items() if where == shard]
        lost = [name for name in promised if name.startswith(convert.PARTS) and name not in found]
        if lost:
            raise MetarecError(
                f"{folder / shard} has no tensor {lost[0]}, which {index.name} says is there; "
                "the files are of different downloads, so copy or download them again"
            )
        tensors |= found
    return tensors


def read_safetensors(
    path: Path, wanted: tuple[str, ...] = (*convert.PARTS, *convert.MASKED_HEADS)
) -> dict[str, np.ndarray]:
    """Read tensors of a file.

    Args:
        path: the file.
        wanted: prefixes of the plain names of the tensors to read.

    Returns:
        Tensors by plain name.

    Raises:
        MetarecError: the file is damaged.
    """
    import safetensors

    try:
        open_regular(path).close()
        with safetensors.safe_open(path, framework="numpy") as file:
            plain = {name: convert.plain_name(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            return {mine: file.get_tensor(name) for name, mine in plain.items() if mine.startswith(wanted)}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise MetarecError(f"{path} cannot be read ({error}); it is damaged, so copy or download it again") from error
