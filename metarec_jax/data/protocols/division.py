"""The result of a protocol, and functions that protocols share: registration, row selection, tasks, data checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import SPLITS
from metarec_jax.core.row_ranges import Selection, holds, runs
from metarec_jax.core.types import Column, Interactions
from metarec_jax.data.histories import draw_rows, histories
from metarec_jax.data.splits import counts_of, rows_of_users
from metarec_jax.data.tasks import Tasks, make_tasks

_ROWS_AT_ONCE = 1 << 20
"""Rows of the users whose tasks are drawn at a time, about."""


class Scenario(NamedTuple):
    """Test tasks of one kind.

    Attributes:
        name: name in tables.
        definition: one-line definition.
        tasks: the tasks.
        held_out: whether no query row is among the training rows. If False, metrics measure training performance.
    """

    name: str
    definition: str
    tasks: Tasks
    held_out: bool = True


class Division(NamedTuple):
    """A division of a data set into training rows and tasks.

    Attributes:
        train: int64 [rows], the rows of the data set that training may read, ascending.
        train_users: int32 [users], users whose training rows become episodes.
        validation: tasks that choose hyper-parameters and the end of training.
        scenarios: test tasks of the final tables; at least one scenario.
        description: the protocol in one sentence.
        candidates: bool [items], items of which lists are made, where the tasks are judged by lists over the catalogue:
            query rows are then the targets, and all candidates that are not in the support are ranked. None where
            the ratings of the query rows are predicted.
        for_new_items: whether the targets of lists are items without training clicks.
    """

    train: Selection
    train_users: np.ndarray
    validation: Tasks
    scenarios: tuple[Scenario, ...]
    description: str
    candidates: np.ndarray | None = None
    for_new_items: bool = False


Divide = Callable[[Interactions, SplitConfig, EpisodeConfig, int], Division]
"""A protocol: (data, split, episodes, seed) -> division."""


def register_split(name: str) -> Callable[[Divide], Divide]:
    """A decorator that registers a protocol under the `name` that ``split.kind`` selects."""
    return SPLITS.register(name)


def check(division: Division, data: Interactions) -> None:
    """Check that no held-out row is among the training rows.

    Args:
        division: the division.
        data: the data set.

    Raises:
        ValueError: a held-out row is a training row, which is a mistake in the protocol.
    """
    trained = holds(division.train, len(data))
    held_out = [scenario.tasks for scenario in division.scenarios if scenario.held_out]
    for tasks in (division.validation, *held_out):
        if trained[tasks.query].any():
            raise ValueError("a query row is among the training rows")
    if any(np.isin(division.validation.query, tasks.query).any() for tasks in held_out):
        raise ValueError("a query row of a test is among those of validation")


def rows_of(data: Interactions, users: np.ndarray, allowed: Column | None = None) -> Selection:
    """The rows of some users.

    Args:
        data: the data set.
        users: int [n], rows of its users.
        allowed: bool [rows], which rows to take; None takes all.

    Returns:
        The rows, ascending.
    """
    chosen = np.zeros(len(data.users), bool)
    chosen[users] = True
    return rows_of_users(data, chosen, allowed)


def rows_by_time(data: Interactions, users: np.ndarray) -> list[np.ndarray]:
    """The rows of each of some users, in order of time.

    Args:
        data: the data set.
        users: int [n], rows of its users.

    Returns:
        int64 [rows] for each user.
    """
    found = histories(data, users)
    return np.split(found.row, np.cumsum(found.count)[:-1])


def everyone_else(
    data: Interactions,
    config: EpisodeConfig,
    held_out: np.ndarray,
    first: np.ndarray,
    allowed: Column | None = None,
) -> tuple[np.ndarray, Selection]:
    """Training users and training rows if all users train that are not held out.

    Args:
        data: the data set.
        config: ``min_ratings`` is the number of rows that a user needs for an episode.
        held_out: int [users], users who do not train.
        first: int [users], training users that come first, in this order.
        allowed: bool [rows], which rows may train; None allows all.

    Returns:
        int32 [users], the users whose rows become episodes, and the rows of all users who train, ascending.
    """
    training = np.ones(len(data.users), bool)
    training[held_out] = False
    rows = rows_of_users(data, training, allowed)
    enough = np.flatnonzero(training & (counts_of(data, allowed) >= config.min_ratings))
    return np.concatenate([first, np.setdiff1d(enough, first)]).astype(np.int32), rows


def drawn_tasks(
    data: Interactions, users: np.ndarray, config: EpisodeConfig, seed: int, allowed: Column | None = None
) -> Tasks:
    """A task for each user, with support and query from the first draw of `metarec_jax.data.histories.draw_rows`.

    Args:
        data: the data set.
        users: int [tasks], rows of its users.
        config: ``order``, ``query`` and ``buckets`` are read.
        seed: seed of the draw.
        allowed: bool [rows], which rows the tasks may have; None allows all.

    Returns:
        The tasks, in the order of `users`.
    """
    found = histories(data, users, allowed)
    support, query, last = [], [], config.query + config.max_support
    for first, end in zip(*runs(found.start // _ROWS_AT_ONCE)):
        rows = found.row[draw_rows(found, config.order, seed, members=np.arange(first, end))]
        for own in np.split(rows, np.cumsum(found.count[first:end])[:-1]):
            query.append(own[: config.query].copy())
            support.append(own[config.query : last].copy())
    return make_tasks(users, support, query)


def require_times(data: Interactions, protocol: str) -> None:
    """Refuse data without times.

    Args:
        data: the data set.
        protocol: name of the protocol, for the message.

    Raises:
        MetarecError: all times are equal.
    """
    if len(data) == 0 or data.time.min() == data.time.max():
        raise MetarecError(
            f"protocol {protocol} goes by times, and {data.source} has none (all are "
            f"{data.time[0] if len(data) else 'missing'}): name their column with --data.columns.time, or choose "
            "another protocol"
        )


def require_ratings(data: Interactions, protocol: str) -> None:
    """Refuse clicks.

    Args:
        data: the data set.
        protocol: name of the protocol, for the message.

    Raises:
        MetarecError: the data holds clicks.
    """
    if data.kind == "click":
        raise MetarecError(
            f"protocol {protocol} is about ratings, and {data.source} holds clicks: use --protocol few-shot or time, "
            "or data with ratings"
        )
