"""Users of a public data set, to try a service with; their ratings are public, so the service may show them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data import load
from metarec_jax.data.negatives import beside_clicks
from metarec_jax.data.protocols import divide
from metarec_jax.train.build import resolve

PUBLIC = ("movielens-100k", "movielens-1m", "movielens-latest", "synthetic")
"""Public data sources."""
MOST = 200
"""Greatest number of users in the list."""


class Person(NamedTuple):
    """A user: an id, a profile, and (item id, rating) pairs, oldest first."""

    id: str
    profile: str
    history: list[tuple[str, float]]


def people_of(config: Config) -> dict[str, Person]:
    """Test users of a run's data by id, whom the model was not trained on; empty where the data is not public or is
    missing."""
    if config.data.source not in ("auto", *PUBLIC):
        return {}
    try:
        data = beside_clicks(load(config.data, seed=config.seed), config)
        if data.layout not in PUBLIC and config.data.source != "synthetic":  # a table, whatever source the config names
            return {}
        tested = divide(data, resolve(config, data), config.seed).scenarios[0].tasks.user
    except MetarecError:
        return {}
    return {person.id: person for person in persons(data, np.unique(tested)[:MOST])}


def persons(data: Interactions, users: np.ndarray) -> list[Person]:
    """Read users of a data set with their ratings.

    Args:
        data: the data set.
        users: int [n], rows of the users.

    Returns:
        The users.
    """
    found = []
    for user in users.tolist():
        rows = np.flatnonzero(data.user == user)
        rows = rows[np.argsort(data.time[rows], kind="stable")]
        ratings = data.scale.decimal(data.rating[rows]).tolist()
        history = [(data.items.ids[i], rating) for i, rating in zip(data.item[rows].tolist(), ratings)]
        profile = data.users.texts[user] if data.users.texts else ""
        found.append(Person(data.users.ids[user], profile, history))
    return found
