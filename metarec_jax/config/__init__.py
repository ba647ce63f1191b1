"""Every choice of a run, as frozen dataclasses that check themselves."""

from metarec_jax.config.data import Columns, DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.config.run import Config

__all__ = ["Columns", "Config", "DataConfig", "EpisodeConfig", "SplitConfig"]
