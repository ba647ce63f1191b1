"""Whatever is at a path: a table, or a folder of files in any registered layout; MovieLens-100K without a path."""

from __future__ import annotations

from metarec_jax.config.data import DataConfig
from metarec_jax.core.kinds import SOURCES
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources.source import read_path, register_source


@register_source("auto")
def load(config: DataConfig, seed: int) -> Interactions:
    """Read ``config.path`` by the files that are there, or the published data set that ``config.reader`` names."""
    return read_path(config) if config.path else SOURCES.get(config.reader).load(config, seed)
