"""Options that are paths. A run stores absolute paths; new paths can replace them after the data has moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from metarec_jax.core.kinds import ENCODERS

Chosen = TypeVar("Chosen")


def paths_of(config: object) -> dict[str, str]:
    """Return the value of every option that is a path, by name such as "data.path"; "" for a path not given."""
    data = vars(config)["data"]
    names = [field.name for field in dataclasses.fields(data)]
    found = {f"data.{name}": getattr(data, name) for name in names if name.endswith("path") or name == "vectors"}
    found["encoder.path"] = vars(config)["encoder"].path
    return found


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
    """Make every path of a config absolute; the encoder's path only if it is a folder, not a name or hub id."""
    found = {name: _absolute(path) for name, path in paths_of(config).items() if path and name != "encoder.path"}
    encoder = paths_of(config)["encoder.path"]
    if is_folder(encoder):
        found["encoder.path"] = _absolute(encoder)
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
    found = paths_of(config)
    encoder = found.pop("encoder.path")
    gone = {name: path for name, path in found.items() if path and not Path(path).expanduser().exists()}
    if is_folder(encoder) and not Path(encoder).expanduser().exists():
        gone["encoder.path"] = encoder
    return gone


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
