"""Data sources, one per file, and a function that loads the data set that a config names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import SOURCES
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources.find import Place, places
from metarec_jax.data.sources.source import register_layout, register_source

__all__ = ["describe_sources", "load", "register_layout", "register_source"]


def load(config: DataConfig, *, seed: int = 0) -> Interactions:
    """Load and check the data set that `config` names.

    Args:
        config: source and path. Without a path, a published data set is searched for in the cache folder, in installed
            packages and at its publisher, in this order.
        seed: seed of the generator of the source "synthetic".

    Returns:
        The interactions, without the negatives that ``config.negatives`` asks for, since these depend on the training
        rows (`metarec_jax.data.negatives.beside_clicks`).

    Raises:
        MetarecError: no data was found, or the data is not valid.
    """
    data = SOURCES.get(config.source).load(config, seed)
    if config.vectors and data.items.vectors is None:
        from metarec_jax.data.vectors import from_file  # pyarrow, which it needs, is slow to import

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
    return data


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
