"""Paths among the options: they are absolute in a run, and can be named anew for a run whose data has moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from metarec_jax.core.kinds import ENCODERS

Chosen = TypeVar("Chosen")


def paths_of(config: object) -> dict[str, str]:
    """Every option that is a path, "data.path" say, with its value; "" where it is not given."""
    data = vars(config)["data"]
    names = [field.name for field in dataclasses.fields(data)]
    found = {f"data.{name}": getattr(data, name) for name in names if name.endswith("path") or name == "vectors"}
    found["encoder.path"] = vars(config)["encoder"].path
    return found


def with_paths(config: Chosen, paths: Mapping[str, str]) -> Chosen:
    """Replace options that are paths.

    Args:
        config: of a run or a pretraining.
        paths: new values by option.
    """
    for name, value in paths.items():
        section, _, field = name.partition(".")
        changed = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: changed})  # type: ignore[bad-specialization]
    return config


def absolute(config: Chosen) -> Chosen:
    """Make every path of a config absolute; the encoder's where it is a folder, and no name or hub id."""
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
    """Whether an ``encoder.path`` is that of a folder: it exists, or it is written as a path."""
    if encoder in ENCODERS.names():
        return False
    return encoder.startswith((".", "/", "~")) or Path(encoder).expanduser().exists()


def missing(config: object) -> dict[str, str]:
    """The paths of a config where nothing is, by option."""
    found = paths_of(config)
    encoder = found.pop("encoder.path")
    gone = {name: path for name, path in found.items() if path and not Path(path).expanduser().exists()}
    if is_folder(encoder) and not Path(encoder).expanduser().exists():
        gone["encoder.path"] = encoder
    return gone


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
