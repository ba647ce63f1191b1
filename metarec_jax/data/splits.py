"""Division into training, validation and test users, and item statistics of the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.row_ranges import Ranges, Selection, where
from metarec_jax.core.stored_columns import OwnerColumn, blocks
from metarec_jax.core.types import Column, Interactions


class Splits(NamedTuple):
    """Rows of the user table, int32, disjoint; each part in random order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Statistics(NamedTuple):
    """Statistics of each item's ratings among the training rows.

    Attributes:
        total: float32 [items], sum of the ratings.
        count: float32 [items], their number.
        beliefs: float32 [items, columns], the posterior of each item's factors (see `metarec_jax.factors`); None
            without item factors.
    """

    total: np.ndarray
    count: np.ndarray
    beliefs: np.ndarray | None = None


class Folded(NamedTuple):
    """Cross-fitted item factors: those of a training user's episodes are fitted to ratings of other users alone.

    Attributes:
        tables: float32 [folds, items, columns], posteriors of item factors, fitted to the ratings of all other folds.
        fold: int32 [users], the fold of every user of the data set; 0 for users who do not train.
        as_new: dropout of item factors in training; None where there is none.
    """

    tables: np.ndarray
    fold: np.ndarray
    as_new: AsNew | None = None


def split_users(data: Interactions, config: EpisodeConfig, seed: int) -> Splits:
    """Split the users at random into training, validation and test users.

    Args:
        data: the interactions.
        config: bounds of the number of a user's interactions, and the shares of the parts.
        seed: seed of the draw; equal seeds give equal splits.

    Returns:
        The users of each part.

    Raises:
        MetarecError: too few users are left for three parts.
    """
    eligible = np.flatnonzero(within(counts_of(data), config))
    bounds = f"at least {config.min_ratings}" + (f" and at most {config.max_ratings}" if config.max_ratings else "")
    shares = {"validation": config.validation, "test": config.test}
    validation, test, train = deal(data, eligible, shares, seed, f"{bounds} interactions")
    return Splits(train, validation, test)


def deal(
    data: Interactions, users: np.ndarray, shares: Mapping[str, float], seed: int, bounds: str
) -> list[np.ndarray]:
    """Split users at random into parts of given shares and a last part of all others.

    Args:
        data: the data set.
        users: int [n], rows of its users.
        shares: shares of each part, by its name.
        seed: seed of the draw.
        bounds: condition that these users meet, for the message: "13 ratings or more".

    Returns:
        int32 [part] for each part: those of `shares` in order, then the part of all other users.

    Raises:
        MetarecError: a part would be empty.
    """
    sizes = [round(len(users) * share) for share in shares.values()]
    if min(*sizes, len(users) - sum(sizes)) < 1:
        parts = ", ".join(f"{name} ({share:g})" for name, share in shares.items())
        raise MetarecError(
            f"{len(users)} of {len(data.users)} users have {bounds}: too few to split into {parts} and training users; "
            "lower --episodes.min-ratings (and --episodes.query), raise --episodes.max-ratings, or bring more data"
        )
    order = np.random.default_rng([seed, 0]).permutation(np.asarray(users, np.int32))
    return np.split(order, np.cumsum(sizes))


def counts_of(data: Interactions, allowed: Column | None = None) -> np.ndarray:
    """Count the rows of each user.

    Args:
        data: the data set.
        allowed: bool [rows], which rows to count; None counts all.

    Returns:
        int64 [users].
    """
    if allowed is None and isinstance(data.user, OwnerColumn):
        return np.diff(data.user.offsets)
    count = np.zeros(len(data.users), np.int64)
    for some in blocks(len(data)):
        user = data.user[some]
        count += np.bincount(user if allowed is None else user[allowed[some]], minlength=len(count))
    return count


def rows_of_users(data: Interactions, chosen: np.ndarray, allowed: Column | None = None) -> Selection:
    """Select the rows of some users.

    Args:
        data: the data set.
        chosen: bool [users], which users.
        allowed: bool [rows], which rows to take; None takes all.

    Returns:
        The rows, ascending.
    """
    if not isinstance(data.user, OwnerColumn):
        mine = chosen[data.user]
        return np.flatnonzero(mine if allowed is None else mine & allowed)
    begin, end = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8))).reshape(-1, 2).T
    first = np.asarray(data.user.offsets)[begin]
    rows = Ranges(first, np.asarray(data.user.offsets)[end] - first)
    return rows if allowed is None else where(rows, lambda some: allowed[some])


def within(count: np.ndarray, config: EpisodeConfig) -> np.ndarray:
    """Test whether numbers of rows are within ``config.min_ratings`` and ``config.max_ratings``.

    Args:
        count: int [users], numbers of rows.
        config: the bounds.

    Returns:
        bool [users].
    """
    return (count >= config.min_ratings) & (count <= (config.max_ratings or np.iinfo(np.int64).max))


def item_statistics(data: Interactions, users: np.ndarray) -> Statistics:
    """Sum and number of the ratings that some users gave each item; rows of other users are not read.

    Args:
        data: the data set.
        users: int [n], rows of its users.

    Returns:
        The statistics, without item factors.
    """
    chosen = np.zeros(len(data.users), bool)
    chosen[users] = True
    return row_statistics(data, rows_of_users(data, chosen))


def row_statistics(data: Interactions, rows: Selection) -> Statistics:
    """Sum and number of each item's ratings among some rows; other rows are not read.

    Args:
        data: the data set.
        rows: int [n], its rows.

    Returns:
        The statistics, without item factors.
    """
    total, count = np.zeros(len(data.items)), np.zeros(len(data.items), np.int64)
    for some in blocks(len(rows)):
        item = data.item[rows[some]]
        np.add.at(total, item, data.rating[rows[some]].astype(np.float64))  # in the order of rows, as one sum is
        count += np.bincount(item, minlength=len(count))
    return Statistics(total=total.astype(np.float32), count=count.astype(np.float32))


class AsNew(NamedTuple):
    """Dropout of item factors: some rows of an episode get the factors of an item that nobody has rated.

    Attributes:
        table: float32 [folds, items, columns], what each fold predicts of an item from its features alone.
        share: of the rows that get it.
    """

    table: np.ndarray
    share: float

    def drop(self, fold: np.ndarray, item: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose the rows whose factors are dropped.

        Args:
            fold: int [...], of each row's user.
            item: int [...], each row's item.
            uniform: float [...], drawn uniformly between 0 and 1.

        Returns:
            Which rows these are, bool [...], and what they get, float32 [..., columns].
        """
        return uniform < self.share, self.table[fold, item]
