"""New users of whose clicks some are shown, and the others are searched for in the whole catalogue.

The protocol of Liang et al. 2018 ("Variational autoencoders for collaborative filtering", section 4.2): training,
validation and test users are disjoint; a random 80 % of the clicks of a validation or test user are shown, and all
items that are not shown are ranked. Items are those with training clicks.
"""

from __future__ import annotations

import math

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.catalogue_lists import clicked_items, clicks_of, list_tasks, training_rows
from metarec_jax.data.protocols.division import Division, Scenario, register_split
from metarec_jax.data.splits import counts_of, deal, within
from metarec_jax.data.tasks import Tasks

NAME = "strong-generalisation"


@register_split(NAME)
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Split the users at random, and the clicks of each held-out user at random into shown ones and targets.

    Args:
        data: the data set.
        split: options of the protocol.
        config: bounds of a user's clicks, and the shares of the parts.
        seed: seed of all draws.

    Returns:
        The division.
    """
    eligible = np.flatnonzero(within(counts_of(data, clicks_of(data)), config))
    most = f" to {config.max_ratings}" if config.max_ratings else " or more"
    bounds = f"{config.min_ratings}{most} clicks"
    shares = {"validation": config.validation, "test": config.test}
    validation, test, others = deal(data, eligible, shares, seed, bounds)
    train_users, train = training_rows(data, split, config, others, np.concatenate([validation, test]))
    candidates = clicked_items(data, train)

    def choose(user: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = rows[candidates[data.item[rows]]]
        if len(rows) < config.min_ratings:
            return rows, rows[:0]
        drawn = np.random.default_rng([seed, 8, user]).permutation(rows)
        shown = min(max(math.floor(split.shown * len(rows) + 1e-9), 1), len(rows) - 1)
        return drawn[:shown], drawn[shown:]

    def tasks(users: np.ndarray, part: str) -> Tasks:
        return list_tasks(data, users, candidates, choose, protocol=NAME, part=part)

    return Division(
        train=train,
        train_users=train_users,
        validation=tasks(validation, "validation"),
        scenarios=(Scenario("new users", "users without training rows", tasks(test, "test")),),
        description=(
            f"users with {bounds}, split at random into training, validation ({config.validation:.0%}) and test "
            f"({config.test:.0%}) users; a random {split.shown:.0%} of a user's clicks is shown, the others are the "
            "targets, ranked among all items that have training clicks and are not shown; users "
            f"with fewer than {config.min_ratings} clicks on these items are left out"
            + ("; all users that are neither validation nor test users train" if split.everyone else "")
        ),
        candidates=candidates,
    )
