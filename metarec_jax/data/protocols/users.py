"""New users: training, validation and test users are disjoint, drawn at random.

This is the user cold-start protocol of RecBole-MetaRec (https://github.com/RUCAIBox/RecBole-MetaRec), with 13 to 100
ratings per user, 10 of them in the query.
"""

from __future__ import annotations

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.division import (
    Division,
    Scenario,
    drawn_tasks,
    everyone_else,
    register_split,
    rows_of,
)
from metarec_jax.data.splits import split_users


@register_split("users")
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Split the users whose number of interactions is within bounds into training, validation and test users.

    Args:
        data: the data set.
        split: options of the protocol.
        config: options of episodes, and the shares of the parts.
        seed: seed of all draws.

    Returns:
        The division.
    """
    splits = split_users(data, config, seed)
    train_users, train = splits.train, rows_of(data, splits.train)
    if split.everyone:
        train_users, train = everyone_else(data, config, np.concatenate(splits[1:]), splits.train)
    most = f" to {config.max_ratings}" if config.max_ratings else " or more"
    query = f"{config.query} random items" if config.order == "random" else f"the {config.query} latest items"
    return Division(
        train=train,
        train_users=train_users,
        validation=drawn_tasks(data, splits.validation, config, seed),
        scenarios=(Scenario("new users", "users without training rows", drawn_tasks(data, splits.test, config, seed)),),
        description=(
            f"users with {config.min_ratings}{most} ratings, split at random into training, validation "
            f"({config.validation:.0%}) and test ({config.test:.0%}) users; query = {query} of each user, support = "
            f"the rest (at most {config.max_support})"
            + ("; all users that are neither validation nor test users train" if split.everyone else "")
        ),
    )
