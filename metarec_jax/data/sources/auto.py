"""Data source that detects the format at a path: a table, or a folder of files in a registered layout."""

from __future__ import annotations

from metarec_jax.config.data import DataConfig
from metarec_jax.core.kinds import SOURCES
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources.source import read_path, register_source


@register_source("auto")
def load(config: DataConfig, seed: int) -> Interactions:
    """Read the data at ``config.path``; without a path, read the published data set that ``config.reader`` names.

    Args:
        config: options of the data.
        seed: passed to the reader of the published data set; not used with a path.

    Returns:
        The interactions.

    Raises:
        MetarecError: a file is missing or not valid.
    """
    return read_path(config) if config.path else SOURCES.get(config.reader).load(config, seed)
