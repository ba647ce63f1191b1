"""What a protocol comes to, and what protocols have in common: dealing users, drawing queries, asking for columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.episodes import histories
from metarec_jax.data.tasks import Tasks, make_tasks


class Scenario(NamedTuple):
    """Tasks of one kind.

    Attributes:
        name: what tables call it.
        definition: a sentence.
        tasks: what is asked.
        held_out: whether no query row is among the training rows. Where it is not, figures are training performance.
    """

    name: str
    definition: str
    tasks: Tasks
    held_out: bool = True


class Division(NamedTuple):
    """A data set, divided.

    Attributes:
        train: int64 [rows], the rows of the data set that training may read, ascending.
        train_users: int32 [users], whose training rows are cut into episodes.
        validation: what hyper-parameters and the end of training are chosen by.
        scenarios: what the final tables are about; at least one.
        description: the protocol in a sentence.
    """

    train: np.ndarray
    train_users: np.ndarray
    validation: Tasks
    scenarios: tuple[Scenario, ...]
    description: str


def check(division: Division, data: Interactions) -> None:
    """Sees that nothing held out is among the training rows, whatever the protocol did.

    Raises:
        ValueError: it is, which is a mistake in the protocol.
    """
    trained = np.zeros(len(data), bool)
    trained[division.train] = True
    held_out = [scenario.tasks for scenario in division.scenarios if scenario.held_out]
    for tasks in (division.validation, *held_out):
        if trained[tasks.query].any():
            raise ValueError("a query row is among the training rows")
    tested = np.zeros(len(data), bool)
    for tasks in held_out:
        tested[tasks.query] = True
    if tested[division.validation.query].any():
        raise ValueError("a query row of a test is among those of validation")


def deal(users: np.ndarray, shares: Sequence[float], seed: int, bounds: str) -> list[np.ndarray]:
    """Deals `users` [n] at random into parts of these shares, and the rest as the last part; int32 each.

    Raises:
        MetarecError: a part would be empty; `bounds` says which users these are.
    """
    sizes = [round(len(users) * share) for share in shares]
    if min(*sizes, len(users) - sum(sizes)) < 1:
        raise MetarecError(
            f"{len(users)} users have {bounds}: too few for parts of {', '.join(f'{share:.0%}' for share in shares)} "
            "and the rest; lower --episodes.min-ratings (and --episodes.query), or bring more data"
        )
    order = np.random.default_rng([seed, 0]).permutation(np.asarray(users, np.int32))
    return np.split(order, np.cumsum(sizes))


def counts_of(data: Interactions, allowed: np.ndarray | None = None) -> np.ndarray:
    """int64 [users], rows of each user (among those `allowed`, bool [rows])."""
    return np.bincount(data.user if allowed is None else data.user[allowed], minlength=len(data.users))


def within(count: np.ndarray, config: EpisodeConfig) -> np.ndarray:
    """bool [users], whether the numbers of rows lie within the config's bounds."""
    return (count >= config.min_ratings) & (count <= (config.max_ratings or np.iinfo(np.int64).max))


def rows_of(data: Interactions, users: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """int64 [rows], the rows of `users` (among those `allowed`), ascending."""
    chosen = np.isin(data.user, users)
    return np.flatnonzero(chosen if allowed is None else chosen & allowed)


def rows_by_time(data: Interactions, users: np.ndarray) -> list[np.ndarray]:
    """The rows of each of `users` by time, int64 [rows] each."""
    found = histories(data, users)
    return np.split(found.row, np.cumsum(found.count)[:-1])


def drawn_tasks(
    data: Interactions, users: np.ndarray, config: EpisodeConfig, seed: int, allowed: np.ndarray | None = None
) -> Tasks:
    """A task for each of `users`: ``config.query`` rows are the query, the rest (at most ``max_support``) the support.

    The query is drawn at random, or is the latest part of the user's rows, as ``config.order`` says.
    """
    found = histories(data, users, allowed)
    owner = np.repeat(np.arange(len(users)), found.count)
    if config.order == "random":
        order = np.lexsort((np.random.default_rng([seed, 1, 0]).random(len(owner)), owner))
    else:
        order = np.lexsort((-np.arange(len(owner)), owner))
    rows = [found.row[order[start : start + count]] for start, count in zip(found.start, found.count)]
    last = config.query + config.max_support
    return make_tasks(users, [r[config.query : last] for r in rows], [r[: config.query] for r in rows])


def require_times(data: Interactions, protocol: str) -> None:
    """Refuses data without times."""
    if len(data) == 0 or data.time.min() == data.time.max():
        raise MetarecError(
            f"protocol {protocol} goes by times, and {data.source} has none (all are "
            f"{data.time[0] if len(data) else 'missing'}): name their column with --data.columns.time, or take another "
            "protocol"
        )


def require_ratings(data: Interactions, protocol: str) -> None:
    """Refuses clicks."""
    if data.kind == "click":
        raise MetarecError(
            f"protocol {protocol} is about ratings, and {data.source} holds clicks: use --protocol few-shot or time, "
            "or data with ratings"
        )
