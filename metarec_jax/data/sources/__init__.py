"""Data sources, one per file, and a function that loads the data set that a config names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.arguments import shown, takes, text, whole
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import SOURCES
from metarec_jax.core.types import Interactions, Kind
from metarec_jax.data.sources.find import Place, places
from metarec_jax.data.sources.source import register_layout, register_source

__all__ = ["describe_sources", "load", "register_layout", "register_source"]


@takes(seed=whole, kind=text)
def load(
    config: DataConfig | str | os.PathLike[str] | Any,
    *,
    columns: Columns | Mapping[str, str] | None = None,
    kind: Kind = "rating",
    seed: int = 0,
) -> Interactions:
    """Load and check the data set that `config` names, or a table in memory.

    Args:
        config: source and path; or the path of a file or folder; or a table of pandas, polars or pyarrow, or a mapping
            of lists, with one row per interaction. Without a path, a published data set is searched for in the cache
            folder, in installed packages and at its publisher, in this order.
        columns: for a path or a table, the names of its columns, such as ``{"user": "who", "time": ""}``; "" if there
            is no such column.
        kind: for a path or a table, "rating" or "click".
        seed: seed of the generator of the source "synthetic".

    Returns:
        The interactions, without the negatives that ``config.negatives`` asks for, since these depend on the training
        rows (`metarec_jax.data.negatives.beside_clicks`).

    Raises:
        MetarecError: no data was found, or the data is not valid.
    """
    if not isinstance(config, DataConfig):
        named = _columns(columns)
        if not isinstance(config, str | os.PathLike):
            from metarec_jax.data.sources.frame import load_frame  # pyarrow is slow to import

            return load_frame(config, named, DataConfig(kind=kind).kind)
        path = os.fspath(config)
        if not isinstance(path, str) or not path:
            raise MetarecError(f"load: config is {shown(config)}; pass the path of a file or folder")
        config = DataConfig(source="auto", path=path, columns=named, kind=kind)
    elif columns is not None or kind != "rating":
        raise MetarecError("load: columns and kind are fields of the `DataConfig`, so leave them out beside it")
    data = SOURCES.get(config.source).load(config, seed)
    if config.vectors and data.items.vectors is None:
        from metarec_jax.data.vectors import from_file  # pyarrow, which it needs, is slow to import

        items = dataclasses.replace(data.items, vectors=from_file(config.vectors, len(data.items)))
        data = dataclasses.replace(data, items=items)
    return data


def _columns(columns: Any) -> Columns:
    if columns is None or isinstance(columns, Columns):
        return columns or Columns()
    if not isinstance(columns, Mapping):
        raise MetarecError(f"load: columns is {shown(columns)}; pass a mapping, such as {{'user': 'who'}}")
    known = [field.name for field in dataclasses.fields(Columns)]
    for name in columns:
        if name not in known:
            raise MetarecError(f"load: columns has the entry {name!r}; its entries are {', '.join(known)}")
    return Columns(**columns)


def describe_sources(config: DataConfig) -> list[Place]:
    """The places where `load` searches, in order; nothing is read or downloaded."""
    source = SOURCES.get(config.source)
    if source.public and source.layout is None:
        return [Place("generator", source.load.__module__, True)]
    if config.path:
        path = Path(config.path).expanduser()
        return [Place("path", str(path), path.exists(), "given with --data.path")]
    if source.layout is None or source.layout.release is None:
        return [Place("path", "", False, f"source {config.source!r} needs --data.path")]
    return places(source.layout.release, config)
