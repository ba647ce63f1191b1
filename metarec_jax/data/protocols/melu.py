"""Four scenarios of known and new users and items: the protocol of MeLU (Lee et al., KDD 2019, arXiv 1908.00413).

Items released after a given year are new, and so is a random share of the users, which divides the rows into four
partitions. In each, users with 13 to 100 rows of the partition are kept; 10 of these rows are the query and the rest is
the support, so that the support of a new-item task has only new items. The rows of known users and known items train.
The first scenario has the tasks that train, as in the paper: its metrics measure training performance.

Difference from the paper: some of the known users are held out as validation users.
"""

from __future__ import annotations

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.division import (
    Division,
    Scenario,
    drawn_tasks,
    everyone_else,
    register_split,
    require_ratings,
    rows_of,
)
from metarec_jax.data.splits import counts_of, deal, within

PUBLISHED_YEAR = 1997  # for MovieLens-1M
LEAST_NEW = 0.15
"""Least share of the rated items that are new, where the config names no year."""

NAMES = ("warm (training users)", "new users", "new items", "new users and items")


@register_split("melu")
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Divide users and items into known and new ones, and the rows into four partitions.

    Args:
        data: the data set.
        split: options of the protocol.
        config: options of episodes, and the shares of the parts.
        seed: seed of all draws.

    Returns:
        The division.

    Raises:
        MetarecError: the year leaves no known or no new items, or a scenario has no task.
    """
    require_ratings(data, "melu")
    years = item_years(data)
    year = split.year or chosen_year(data, years)
    new_item = (years > year)[data.item]
    if new_item.all() or not new_item.any():
        raise MetarecError(
            f"split.year is {year}, and {'all' if new_item.all() else 'none'} of the rated items are of a later year: "
            f"choose one between {years[data.item].min()} and {years[data.item].max() - 1}"
        )
    test, known = deal(data, np.arange(len(data.users)), {"test": config.test}, seed, "any number of rows")
    kept = known[within(counts_of(data, ~new_item), config)[known]]
    bounds = f"{config.min_ratings} to {config.max_ratings or 'any number of'} ratings of known items"
    validation, train_users = deal(data, kept, {"validation": config.validation}, seed, bounds)
    train = rows_of(data, train_users, ~new_item)
    chosen = train_users
    if split.everyone:
        held_out = np.concatenate([test, validation])
        chosen, train = everyone_else(data, config, held_out, train_users, ~new_item)

    def tasks(name: str, users: np.ndarray, allowed: np.ndarray):
        enough = users[within(counts_of(data, allowed), config)[users]]
        if not len(enough):
            raise MetarecError(
                f"protocol melu: of {len(users)} users, none has {config.min_ratings} to {config.max_ratings} ratings "
                f"in the scenario {name!r} (items after {year} are new): choose another --split.year"
            )
        return drawn_tasks(data, enough, config, seed, allowed)

    warm, users, items, both = NAMES
    known = np.setdiff1d(known, validation)
    share = (years[np.unique(data.item)] > year).mean()
    return Division(
        train=train,
        train_users=chosen,
        validation=drawn_tasks(data, validation, config, seed, ~new_item),
        scenarios=(
            Scenario(
                warm,
                "the tasks that trained: known users, known items",
                tasks(warm, train_users, ~new_item),
                held_out=False,
            ),
            Scenario(users, "users without training rows, known items", tasks(users, test, ~new_item)),
            Scenario(items, "known users, items without training rows", tasks(items, known, new_item)),
            Scenario(both, "users and items without training rows", tasks(both, test, new_item)),
        ),
        description=(
            f"MeLU's four scenarios: items after {year} are new ({share:.0%} of the rated ones), and of the users "
            f"{config.test:.0%}, drawn at random; in each scenario users with {config.min_ratings} to "
            f"{config.max_ratings} ratings there, query = {config.query} random ones, support = the rest; "
            f"{config.validation:.0%} of the known users are validation users"
        ),
    )


def item_years(data: Interactions) -> np.ndarray:
    """int64 [items], the release year of each item; 0 for items without one, which makes them known items.

    Raises:
        MetarecError: the data has no years.
    """
    texts = data.items.details.get("year", ())
    years = np.array([int(text) if text.strip().isdecimal() else 0 for text in texts], np.int64)
    if not len(years) or not years.any():
        raise MetarecError(
            f"protocol melu goes by the year of each item, and {data.source} has no column 'year' of items: use a data "
            "set that has (MovieLens has), or another protocol"
        )
    return years


def chosen_year(data: Interactions, years: np.ndarray) -> int:
    """The year that divides items: the published one for MovieLens-1M, else one chosen from the data.

    Args:
        data: the data set.
        years: int [items], release year of each item.

    Returns:
        The published year, or the latest year that leaves at least `LEAST_NEW` of the rated items new.
    """
    if data.source.startswith("MovieLens-1M"):
        return PUBLISHED_YEAR
    rated = years[np.unique(data.item)]
    return next(
        int(year) for year in np.unique(rated)[::-1] if (rated > year).mean() >= LEAST_NEW or year == rated.min()
    )
