"""The source "auto": a table, or a folder of files in any registered layout."""

from __future__ import annotations

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources.source import read_path, register_source


@register_source("auto")
def load(config: DataConfig, seed: int) -> Interactions:
    """Read ``config.path`` by the layout of its files.

    Args:
        config: the path.
        seed: not used.

    Returns:
        The data set.

    Raises:
        MetarecError: there is no path, or no layout fits.
    """
    if not config.path:
        raise MetarecError("data.source 'auto' recognises files by their names: say where they are with --data.path")
    return read_path(config)
