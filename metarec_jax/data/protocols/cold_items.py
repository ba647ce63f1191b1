"""Items that nobody clicked in training are searched for in the whole catalogue, for new users.

A share of the items, drawn or the latest to appear, is held out of training; another share of equal size is held out
for validation. The targets of a user are the clicks on them, what is shown are the clicks on all other items, and every
item of the catalogue that is not shown is ranked.
"""

from __future__ import annotations

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.catalogue_lists import clicked_items, clicks_of, list_tasks, training_rows
from metarec_jax.data.protocols.division import Division, Scenario, register_split, require_times
from metarec_jax.data.splits import counts_of, deal, within
from metarec_jax.data.tasks import Tasks

NAME = "cold-items"


@register_split(NAME)
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Split users and items into those of training, of validation and of test.

    Args:
        data: the data set.
        split: options of the protocol.
        config: bounds of a user's clicks, and the shares of the users.
        seed: seed of all draws.

    Returns:
        The division.

    Raises:
        MetarecError: too few items, or users, for three parts, or items are held out by time and the data has none.
    """
    clicked = clicks_of(data)
    order = _last_to_hold_out(data, split, clicked, seed)
    number = round(split.cold * len(order))
    if not 1 <= number < len(order) / 2:
        raise MetarecError(
            f"split.cold is {split.cold:g}, which leaves {max(len(order) - 2 * number, 0)} of {len(order)} items to "
            f"train and {number} to test: raise it, lower it, or bring more data"
        )
    part = np.zeros(len(data.items), np.int8)  # 1: of the test, 2: of validation
    part[order[-number:]] = 1
    part[order[-2 * number : -number]] = 2

    eligible = np.flatnonzero(within(counts_of(data, clicked), config))
    most = f" to {config.max_ratings}" if config.max_ratings else " or more"
    bounds = f"{config.min_ratings}{most} clicks"
    shares = {"validation": config.validation, "test": config.test}
    validation, test, others = deal(data, eligible, shares, seed, bounds)
    held_out = np.concatenate([validation, test])
    train_users, train = training_rows(data, split, config, others, held_out, (part == 0)[data.item])
    known = clicked_items(data, train)

    def tasks(users: np.ndarray, which: int, name: str) -> Tasks:
        def choose(user: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return rows, rows[part[data.item[rows]] == which]

        return list_tasks(data, users, known, choose, protocol=NAME, part=name)

    chosen = "drawn at random" if split.cold_by == "random" else "the latest to appear"
    return Division(
        train=train,
        train_users=train_users,
        validation=tasks(validation, 2, "validation"),
        scenarios=(
            Scenario(
                "cold items",
                f"new users' clicks on {number} items without training clicks",
                tasks(test, 1, "test"),
            ),
        ),
        description=(
            f"users with {bounds}, split at random into training, validation ({config.validation:.0%}) and test "
            f"({config.test:.0%}) users; {split.cold:.0%} of the items ({number}, {chosen}) are held out for the test, "
            "and as many for validation; targets = a user's clicks on these, ranked among all items of the catalogue "
            "that are not shown; shown are all clicks on items with training clicks"
            + ("; all users that are neither validation nor test users train" if split.everyone else "")
        ),
        candidates=np.ones(len(data.items), bool),
        for_new_items=True,
    )


def _last_to_hold_out(data: Interactions, split: SplitConfig, clicked: np.ndarray, seed: int) -> np.ndarray:
    """int [clicked items], in an order of which the last are held out."""
    items = np.unique(data.item[clicked])
    drawn = np.random.default_rng([seed, 9]).permutation(items)
    if split.cold_by == "random":
        return drawn
    require_times(data, NAME)
    first = np.full(len(data.items), np.iinfo(np.int64).max)
    np.minimum.at(first, data.item[clicked], data.time[clicked])
    return drawn[np.argsort(first[drawn], kind="stable")]
