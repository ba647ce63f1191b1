"""Data sources, one per file, and a function that loads the data set that a config names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.arguments import takes, whole, with_type
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import SOURCES
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.scale import CLICKS
from metarec_jax.core.stored_columns import OwnerColumn, rows_of
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources.find import Place, places
from metarec_jax.data.sources.source import as_read, register_layout, register_source

_GIVEN = ("source", "path", "items_path", "columns")
"""Options that `load` sets from its other arguments."""

__all__ = ["describe_sources", "load", "register_layout", "register_source"]


@takes(seed=whole)
def load(
    config: DataConfig | str | os.PathLike[str] | Any,
    *,
    items: str | os.PathLike[str] | Any = None,
    columns: Columns | Mapping[str, str] | None = None,
    seed: int = 0,
    reporter: Reporter = QUIET,
    **options: Any,
) -> Interactions:
    """Load and check the data set that `config` names, or a table in memory.

    Args:
        config: source and path; or the path of a file or folder; or a table of pandas, polars or pyarrow, or a mapping
            of lists, with one row per interaction. Without a path, a published data set is searched for in the cache
            folder, in installed packages and at its publisher, in this order.
        items: for a path or a table, the path of a table with one row per item, or such a table in memory.
        columns: for a path or a table, the names of its columns, such as ``{"user": "who", "time": ""}``; "" if there
            is no such column.
        seed: seed of the generator of the source "synthetic".
        reporter: shows progress where large files become a row store in the cache folder (`row_store.LARGE`).
        **options: for a path or a table, other options of `DataConfig`, such as ``kind="click"``. Messages name them as
            the command line does: ``--data.repeats latest`` is ``repeats="latest"`` here.

    Returns:
        The interactions, without the negatives that ``config.negatives`` asks for, since these depend on the training
        rows (`metarec_jax.data.negatives.beside_clicks`).

    Raises:
        MetarecError: no data was found, or the data is not valid.
    """
    if isinstance(config, DataConfig):
        given = [name for name, value in (("items", items), ("columns", columns)) if value is not None] + [*options]
        if given:
            raise MetarecError(f"load: leave {', '.join(given)} out beside a `DataConfig`, which has these options")
        return _finished(_read(as_read(config), seed, reporter), config)
    _check_options(options)
    items_path = items if isinstance(items, str) else os.fspath(items) if isinstance(items, os.PathLike) else ""
    options |= {"columns": _columns(columns), "items_path": items_path}
    if isinstance(config, str | os.PathLike):
        path = os.fspath(config)
        if not isinstance(path, str) or not path:
            raise MetarecError(f"load: config is {with_type(config)}; pass the path of a file or folder")
        if items is not None and not items_path:
            raise MetarecError(
                f"load: items is {with_type(items)} beside a path: pass the path of a table of items, too"
            )
        return load(DataConfig(source="auto", path=path, **options), seed=seed, reporter=reporter)
    from metarec_jax.data.sources.table import load_frame  # imported here because pyarrow is slow to import

    config_ = DataConfig(source="table", path="a table in memory", **options)
    return _finished(load_frame(config, as_read(config_), items=None if items_path else items), config_)


def _read(config: DataConfig, seed: int, reporter: Reporter) -> Interactions:
    """Read the data set of a config: files of more than `row_store.LARGE` bytes through a row store in the cache."""
    from metarec_jax.data.sources import row_store  # imported here because pyarrow is slow to import

    if row_store.is_large(config):
        return row_store.cached(config, seed=seed, reporter=reporter)
    return SOURCES.get(config.source).load(config, seed)


def _finished(data: Interactions, config: DataConfig) -> Interactions:
    """Return the data set with the vectors and the threshold of liked items of a config, and clicks if it asks so."""
    if config.image_encoder and not config.columns.image:
        raise MetarecError(
            f"data.image_encoder is {config.image_encoder!r}, but no column has pictures: name that of the item file "
            "with --data.columns.image NAME, or leave the encoder out"
        )
    if config.vectors and data.items.vectors is None:
        from metarec_jax.data.vectors import from_file  # imported here because pyarrow is slow to import

        items = dataclasses.replace(data.items, vectors=from_file(config.vectors, len(data.items)))
        data = dataclasses.replace(data, items=items)
    if config.liked:
        liked, low, high = float(config.liked), data.scale.low, data.scale.high
        if not low < liked <= high:
            raise MetarecError(
                f"data.liked is {config.liked}, but ratings lie between {low:.7g} and {high:.7g}: give a rating above "
                "the least of them"
            )
        data = dataclasses.replace(data, scale=data.scale._replace(liked=liked))
    return clicks_of(data) if config.kind == "click" and data.kind == "rating" else data


def clicks_of(data: Interactions) -> Interactions:
    """Make clicks of ratings: the rows of liked items (`Scale.least_liked`) are clicks, the others are left out.

    Args:
        data: ratings.

    Returns:
        The clicks, of the same users and items.

    Raises:
        MetarecError: no rating is high enough.
    """
    liked = np.flatnonzero(data.rating >= data.scale.least_liked)
    least = f"{data.scale.liked_from:.7g}"
    if not len(liked):
        raise MetarecError(
            f"data.kind is 'click', but none of {len(data):,} ratings is {least} or more: lower --data.liked"
        )
    return dataclasses.replace(
        data,
        user=data.user.of(liked) if isinstance(data.user, OwnerColumn) else data.user[liked],
        item=rows_of(data.item, liked),
        time=rows_of(data.time, liked),
        rating=np.ones(len(liked), np.float32),
        scale=CLICKS,
        notes=(*data.notes, f"the {len(liked):,} ratings of {least} or more are clicks; the others are left out"),
    )


def _check_options(options: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(DataConfig) if field.name not in _GIVEN]
    for name in options:
        if name not in known:
            raise MetarecError(f"load: there is no option {name!r}; the options are {', '.join(known)}")


def _columns(columns: Any) -> Columns:
    if columns is None or isinstance(columns, Columns):
        return columns or Columns()
    if not isinstance(columns, Mapping):
        raise MetarecError(f"load: columns is {with_type(columns)}; pass a mapping, such as {{'user': 'who'}}")
    known = [field.name for field in dataclasses.fields(Columns)]
    for name in columns:
        if name not in known:
            raise MetarecError(f"load: columns has the entry {name!r}; its entries are {', '.join(known)}")
    return Columns(**columns)


def describe_sources(config: DataConfig) -> list[Place]:
    """Every place that `load` would look at, in order, without reading or downloading anything."""
    source = SOURCES.get(config.reader)
    if source.public and source.layout is None:
        return [Place("generator", source.load.__module__, True)]
    if config.path:
        path = Path(config.path).expanduser()
        return [Place("path", str(path), path.exists(), "given with --data.path")]
    if source.layout is None or source.layout.release is None:
        return [Place("path", "", False, f"source {config.source!r} needs --data.path")]
    return places(source.layout.release, config)
