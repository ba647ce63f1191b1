"""Evaluation protocols, one per file: which rows of a data set train, and on which tasks a model is tested.

A protocol is a pure function of the data, the config and a seed, and does not depend on the model. Training reads only
the rows of ``Division.train``. A protocol is registered with `register_split`.
"""

from __future__ import annotations

from metarec_jax.config.run import Config
from metarec_jax.core.kinds import SPLITS
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.division import Division, Scenario, check, register_split

__all__ = ["Division", "Scenario", "divide", "register_split"]


def divide(data: Interactions, config: Config, seed: int) -> Division:
    """Divide `data` as ``config.split`` says.

    Args:
        data: the data set.
        config: ``split`` and ``episodes`` are read.
        seed: seed of all draws; equal arguments give equal divisions.

    Returns:
        Training rows, and the tasks of validation and of each test scenario.

    Raises:
        MetarecError: the data lacks information that the protocol needs, or leaves too few users for a part.
    """
    division = SPLITS.get(config.split.kind)(data, config.split, config.episodes, seed)
    check(division, data)
    return division
