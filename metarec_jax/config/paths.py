"""Options that are paths. A run stores absolute paths; new paths can replace them after the data has moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from metarec_jax.core.kinds import ENCODERS

Chosen = TypeVar("Chosen")


_MODELS = ("encoder.path", "data.image_encoder")
"""Options that are a folder, a name or a hub id."""


def paths_of(config: object) -> dict[str, str]:
    """Return the value of every option that is a path, by name such as "data.path"; "" for a path not given."""
    data = vars(config)["data"]
    names = [field.name for field in dataclasses.fields(data)]
    found = {f"data.{name}": getattr(data, name) for name in names if name.endswith("path") or name == "vectors"}
    return found | {"data.image_encoder": data.image_encoder, "encoder.path": vars(config)["encoder"].path}


def with_paths(config: Chosen, paths: Mapping[str, str]) -> Chosen:
    """Replace options that are paths.

    Args:
        config: config of a run or a pretraining.
        paths: new values by option name, such as "data.path".

    Returns:
        A copy of `config` with the new paths.
    """
    for name, value in paths.items():
        section, _, field = name.partition(".")
        changed = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: changed})  # type: ignore[bad-specialization]
    return config


def absolute(config: Chosen) -> Chosen:
    """Make every path of a config absolute; those of models only if they are folders, not names or hub ids."""
    given = {name: path for name, path in paths_of(config).items() if path}
    found = {name: _absolute(path) for name, path in given.items() if name not in _MODELS or is_folder(path)}
    if cache := vars(config)["data"].cache:
        found["data.cache"] = _absolute(cache)
    begin = getattr(vars(config).get("train"), "begin", "")
    if begin:
        found["train.begin"] = _absolute(begin)
    return with_paths(config, found)


def is_folder(encoder: str) -> bool:
    """Whether an ``encoder.path`` denotes a folder: it exists, or it begins with ".", "/" or "~"."""
    if encoder in ENCODERS.names():
        return False
    return encoder.startswith((".", "/", "~")) or Path(encoder).expanduser().exists()


def missing(config: object) -> dict[str, str]:
    """Return the paths of a config that do not exist, by option name."""
    found = {name: path for name, path in paths_of(config).items() if name not in _MODELS or is_folder(path)}
    return {name: path for name, path in found.items() if path and not Path(path).expanduser().exists()}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
