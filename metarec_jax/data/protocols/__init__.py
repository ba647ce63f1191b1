"""The field's protocols: which rows of a data set train, and which tasks a model is then tried on.

Each is a pure function of the data, the config and a seed, one a file, and knows nothing of any model. What it returns
(`Division`) is all that the rest of the package learns of the held-out rows: training reads the rows of
``Division.train`` and no other.
"""

from __future__ import annotations

from metarec_jax.config.run import Config
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols import few_shot, melu, tallrec, time_split, users
from metarec_jax.data.protocols.division import Division, Scenario, check

__all__ = ["Division", "Scenario", "divide"]

_PROTOCOLS = {
    "users": users.divide,
    "melu": melu.divide,
    "tallrec": tallrec.divide,
    "few-shot": few_shot.divide,
    "time": time_split.divide,
}


def divide(data: Interactions, config: Config, seed: int) -> Division:
    """Divides `data` as ``config.split`` says.

    Args:
        data: the data set.
        config: of which ``split`` and ``episodes`` are read.
        seed: of everything that is drawn; equal arguments give equal divisions.

    Raises:
        MetarecError: the data lacks what the protocol needs, or leaves too few users for a part of it.
    """
    division = _PROTOCOLS[config.split.kind](data, config.split, config.episodes, seed)
    check(division, data)
    return division
