"""The next item, liked or not: the protocol of TALLRec (Bao et al., RecSys 2023, arXiv 2305.00447).

A task is a window of a user's rows by time: the support is ten previous items, as liked or disliked, and the query is
the next one; liked is a rating above 3 of 5. The published test rows of MovieLens-100K are the last thousand of these
windows, with users in the order of their first line in u.data (the authors' preprocess_movie.py): the windows of 16
users, without some of the first user's.

Differences from the paper: all rows of the test users are held out of training, also those that the authors trained on,
and all other rows train, not 16 to 256 of them. Rows of equal time are ordered by item, not by line of the file.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.division import (
    Division,
    Scenario,
    drawn_tasks,
    everyone_else,
    register_split,
    require_ratings,
    require_times,
    rows_by_time,
)
from metarec_jax.data.splits import counts_of, deal
from metarec_jax.data.tasks import make_tasks

PUBLISHED_USERS = (
    *("934", "933", "935", "938", "940", "888", "925", "942"),
    *("937", "926", "943", "939", "936", "930", "920", "941"),
)
"""Ids of MovieLens-100K, in the order of u.data."""
PUBLISHED_WINDOWS = 1000
NEUTRAL = 3.0
"""On the standard scale; an item with a rating above it is liked, by this protocol's own definition."""


@register_split("tallrec")
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Two scenarios with the same queries: the support of the authors, and all rows of the user before the query.

    Args:
        data: the data set.
        split: options of the protocol.
        config: options of episodes, and the shares of the parts.
        seed: seed of all draws.

    Returns:
        The division.

    Raises:
        MetarecError: the data holds clicks, has no times, or has too few users with enough rows.
    """
    require_ratings(data, "tallrec")
    require_times(data, "tallrec")
    least = max(config.min_ratings, split.history + 1)
    eligible = np.flatnonzero(counts_of(data) >= least)
    bounds = f"{least} rows or more"
    published = split.test_users == "auto" and is_published(data)
    if published:
        place = {name: row for row, name in enumerate(data.users.ids)}
        test = np.array([place[name] for name in PUBLISHED_USERS], np.int32)
        validation, train_users = deal(
            data, np.setdiff1d(eligible, test), {"validation": config.validation}, seed, bounds
        )
    else:
        validation, test, train_users = deal(
            data, eligible, {"validation": config.validation, "test": config.test}, seed, bounds
        )
    train_users, train = everyone_else(data, config, np.concatenate([validation, test]), train_users)

    user, past, query = [], [], []
    for u, rows in zip(test, rows_by_time(data, test)):
        for place in range(split.history, len(rows)):
            user.append(u)
            past.append(rows[max(0, place - config.max_support) : place])
            query.append(rows[place : place + 1])
    if published:
        user, past, query = (part[-PUBLISHED_WINDOWS:] for part in (user, past, query))
    window = make_tasks(user, [rows[-split.history :] for rows in past], query)
    shown = as_liked(data, data.rating[window.support], data.rating[train])
    whose = (
        "the 16 published test users" if published else f"{len(test)} test users drawn at random ({config.test:.0%})"
    )
    return Division(
        train=train,
        train_users=train_users,
        validation=drawn_tasks(data, validation, config, seed),
        scenarios=(
            Scenario(
                f"{split.history} previous items, liked or not",
                f"support = the {split.history} items before, given only as liked or not liked",
                dataclasses.replace(window, shown=shown),
            ),
            Scenario(
                "the whole past, with stars",
                f"support = all rows of the user before (at most {config.max_support})",
                make_tasks(user, past, query),
            ),
        ),
        description=(
            f"the next item of a user, by time, from the {split.history + 1}th on; liked is a rating above "
            f"{data.scale.decimal(NEUTRAL):g}; {whose}, {len(query)} questions; everyone who is neither validation nor "
            "test user trains. AUC over all questions mostly compares users with each other: read the AUC of each user "
            "beside it"
        ),
    )


def is_published(data: Interactions) -> bool:
    """Whether this is the data set of the published test users."""
    return data.source.startswith("MovieLens-100K") and set(PUBLISHED_USERS) <= set(data.users.ids)


def as_liked(data: Interactions, rating: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Reduce ratings to liked or not liked.

    A model of ratings needs a rating, so each is replaced by the mean of the training rows' ratings that are liked, or
    are not liked, as it is itself; rounded to the nearest level where ratings have levels.

    Args:
        data: the data set.
        rating: float [rows], the ratings, on the standard scale.
        trained: float [training rows], those of the training rows.

    Returns:
        float32 [rows], two different values at most.
    """
    levels, means = data.scale.standardised().levels, []
    for side in (trained[trained <= NEUTRAL], trained[trained > NEUTRAL]):
        mean = float(side.mean()) if len(side) else NEUTRAL
        means.append(min(levels, key=lambda level: abs(level - mean)) if levels else mean)
    return np.where(rating > NEUTRAL, means[1], means[0]).astype(np.float32)
