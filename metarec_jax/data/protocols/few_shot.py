"""New users after their first few ratings: error as a function of the number of ratings.

Support = a user's first k ratings by time, for each k; query = the ratings after the greatest k, at most 50. The query
is the same for every k. Validation users get the same tasks, so that hyper-parameters are chosen for short supports.
"""

from __future__ import annotations

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.division import (
    Division,
    Scenario,
    everyone_else,
    register_split,
    require_times,
    rows_by_time,
)
from metarec_jax.data.splits import counts_of, deal
from metarec_jax.data.tasks import Tasks, joined, make_tasks

MOST_QUERY = 50


@register_split("few-shot")
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Split the users at random; each test user gets a task for every k.

    Args:
        data: the data set.
        split: options of the protocol.
        config: options of episodes, and the shares of the parts.
        seed: seed of all draws.

    Returns:
        The division.

    Raises:
        MetarecError: the greatest k exceeds the last of ``config.buckets``, or too few users have enough rows.
    """
    require_times(data, "few-shot")
    last = split.supports[-1]
    if last > config.max_support:
        raise MetarecError(
            f"split.supports ends at {last}, but episodes.buckets at {config.max_support}: let it end at {last}"
        )
    least = max(config.min_ratings, last + 1)
    eligible = np.flatnonzero(counts_of(data) >= least)
    bounds = f"{least} rows or more (the longest support of {last} and a query)"
    validation, test, train_users = deal(
        data, eligible, {"validation": config.validation, "test": config.test}, seed, bounds
    )
    train_users, train = everyone_else(data, config, np.concatenate([validation, test]), train_users)
    return Division(
        train=train,
        train_users=train_users,
        validation=joined([after(data, validation, k, last) for k in split.supports]),
        scenarios=tuple(
            Scenario(f"k = {k}", f"after the user's first {k} ratings", after(data, test, k, last))
            for k in split.supports
        ),
        description=(
            f"users with {least} rows or more, split at random into training, validation ({config.validation:.0%}) and "
            f"test ({config.test:.0%}) users; everyone who is neither validation nor test user trains; support = the "
            f"first k rows by time, query = the rows after the first {last} (at most {MOST_QUERY}), the same for all k"
        ),
    )


def after(data: Interactions, users: np.ndarray, k: int, last: int) -> Tasks:
    """Make a task for each user from the first rows by time.

    Args:
        data: the data set.
        users: int [users], rows of its users.
        k: number of support rows.
        last: number of rows before the query, which has up to `MOST_QUERY` rows.

    Returns:
        The tasks.
    """
    rows = rows_by_time(data, users)
    return make_tasks(users, [r[:k] for r in rows], [r[last : last + MOST_QUERY] for r in rows])
