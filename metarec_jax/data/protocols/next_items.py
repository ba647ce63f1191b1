"""The last clicks of each user by time are searched for in the whole catalogue.

With one target this is leave-one-out evaluation. Test users are new, or known: then their earlier rows train. Items are
those with training clicks.
"""

from __future__ import annotations

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.catalogue_lists import clicked_items, clicks_of, list_tasks, training_rows
from metarec_jax.data.protocols.division import Division, Scenario, register_split, require_times, rows_by_time
from metarec_jax.data.splits import counts_of, deal, within
from metarec_jax.data.tasks import Tasks

NAME = "next-items"


@register_split(NAME)
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Split the users at random; the last ``config.query`` clicks of each held-out user are the targets.

    Args:
        data: the data set.
        split: options of the protocol.
        config: bounds of a user's clicks, the number of targets, and the shares of the parts.
        seed: seed of all draws.

    Returns:
        The division.

    Raises:
        MetarecError: the data has no times, or too few users have enough clicks.
    """
    require_times(data, NAME)
    clicked = clicks_of(data)
    eligible = np.flatnonzero(within(counts_of(data, clicked), config))
    most = f" to {config.max_ratings}" if config.max_ratings else " or more"
    bounds = f"{config.min_ratings}{most} clicks"
    shares = {"validation": config.validation, "test": config.test}
    validation, test, others = deal(data, eligible, shares, seed, bounds)
    held_out = np.concatenate([validation, test])
    train_users, train = training_rows(data, split, config, others, held_out)
    if split.known_users:
        earlier = []
        for rows in rows_by_time(data, held_out):
            first = rows[clicked[rows]][-config.query]
            before = data.time[rows] < data.time[first]
            earlier.append(rows[before | (clicked[rows] & (np.arange(len(rows)) < np.flatnonzero(rows == first)[0]))])
        enough = [user for user, rows in zip(held_out, earlier) if len(rows) > config.query]
        train = np.sort(np.concatenate([train, *earlier]))
        train_users = np.concatenate([train_users, np.asarray(enough, np.int32)])
    candidates = clicked_items(data, train)

    def choose(user: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        targets = rows[-config.query :]
        return rows[: -config.query], targets[candidates[data.item[targets]]]

    def tasks(users: np.ndarray, part: str) -> Tasks:
        return list_tasks(data, users, candidates, choose, protocol=NAME, part=part)

    kind, about = ("known", "rows before the targets train") if split.known_users else ("new", "no training rows")
    targets = f"last {config.query} clicks" if config.query > 1 else "last click"
    return Division(
        train=train,
        train_users=train_users,
        validation=tasks(validation, "validation"),
        scenarios=(Scenario(f"{kind} users", f"the user's {targets}; {about}", tasks(test, "test")),),
        description=(
            f"users with {bounds}, split at random into training, validation ({config.validation:.0%}) and test "
            f"({config.test:.0%}) users; targets = the {targets} by time of a user who is no training user, ranked "
            "among all items that have training clicks and were not clicked before by this user; "
            + ("the rows before the targets train, too" if split.known_users else "these users do not train")
            + ("; all users that are neither validation nor test users train" if split.everyone else "")
        ),
        candidates=candidates,
    )
