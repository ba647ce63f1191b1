"""A date divides the rows: what came before trains, what came after is asked for.

Users and items that are first seen after the date are the cold ones. A task is a user with rows after the date: the
query is the latest of them, the support whatever of the user came before the query, before the date or after it. Item
statistics, like everything that is trained, are of rows before the date.
"""

from __future__ import annotations

import datetime

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols.division import (
    Division,
    Scenario,
    counts_of,
    deal,
    drawn_tasks,
    require_times,
    rows_by_time,
)
from metarec_jax.data.protocols.users import everyone_else
from metarec_jax.data.tasks import Tasks, make_tasks

BEFORE = 0.8
"""Share of the rows that come before the date, where the config names none."""


def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """One scenario of all tasks, and one for each kind of user and item that there is."""
    require_times(data, "time")
    date = date_of(data, split.date)
    before = data.time < date
    if before.all() or not before.any():
        first, last = data.time.min(), data.time.max()
        raise MetarecError(
            f"split.date is {_shown(date)}, and {'all' if before.all() else 'no'} rows come before it: choose one "
            f"between {_shown(first + 1)} and {_shown(last)}"
        )
    earlier, later = counts_of(data, before), counts_of(data, ~before)
    enough = np.flatnonzero(earlier >= config.min_ratings)
    bounds = f"{config.min_ratings} rows or more before {_shown(date)}"
    validation, train_users = deal(enough, [config.validation], seed, bounds)
    train_users, train = everyone_else(data, config, validation, train_users, before)

    candidates = np.setdiff1d(np.flatnonzero((later >= config.query) & (earlier + later > config.query)), validation)
    if not len(candidates):
        raise MetarecError(
            f"no user has {config.query} rows from {_shown(date)} on, and one before those: choose an earlier "
            "--split.date, or lower --episodes.query"
        )
    support, query = [], []
    for rows in rows_by_time(data, candidates):
        support.append(rows[: -config.query][-config.max_support :])
        query.append(rows[-config.query :])
    tasks = make_tasks(candidates, support, query)
    return Division(
        train=train,
        train_users=train_users,
        validation=drawn_tasks(data, validation, config, seed, before),
        scenarios=tuple(_scenarios(data, tasks, before)),
        description=(
            f"rows before {_shown(date)} train ({before.mean():.0%} of all, but those of the validation users, who are "
            f"{config.validation:.0%} of the users with {config.min_ratings} rows or more there); a task for each user "
            f"with {config.query} rows or more after it: query = the {config.query} latest, support = what the user "
            f"did before them (the latest {config.max_support}); cold users and items have no row before the date"
        ),
    )


def _scenarios(data: Interactions, tasks: Tasks, before: np.ndarray) -> list[Scenario]:
    cold_user, cold_item = counts_of(data, before) == 0, np.bincount(data.item[before], minlength=len(data.items)) == 0
    found = [Scenario("everything after the date", "all users, all items", tasks)]
    for user in ("warm", "cold"):
        for item in ("warm", "cold"):
            part = _of_items(tasks, cold_user[tasks.user] == (user == "cold"), cold_item[data.item], item == "cold")
            if len(part):
                name = f"{user} users, {item} items"
                found.append(Scenario(name, f"what the queries of {user} users ask about {item} items", part))
    return found


def _of_items(tasks: Tasks, chosen: np.ndarray, cold: np.ndarray, wanted: bool) -> Tasks:
    """The `chosen` tasks (bool [tasks]), with those query rows whose items are cold (bool [rows]) as `wanted`."""
    ends = [np.cumsum(count)[:-1] for count in (tasks.supports, tasks.queries)]
    parts = zip(tasks.user, np.split(tasks.support, ends[0]), np.split(tasks.query, ends[1]), chosen)
    kept = [(user, support, query[cold[query] == wanted]) for user, support, query, yes in parts if yes]
    kept = [task for task in kept if len(task[2])]
    user, support, query = zip(*kept) if kept else ((), (), ())
    return make_tasks(user, support, query)


def date_of(data: Interactions, text: str) -> int:
    """`text` in the unit of the data's times.

    Raises:
        MetarecError: neither a date nor a whole number.
    """
    if not text:
        return int(np.sort(data.time)[int(len(data) * BEFORE)])
    try:
        if text.lstrip("-").isdecimal():
            return int(text)
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise MetarecError(
            f"split.date is {text!r}; write a date such as 1998-03-01, or a whole number in the unit of the times"
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def _shown(moment: int) -> str:
    """A time for people: as a date where it can be one."""
    try:
        return f"{datetime.datetime.fromtimestamp(int(moment), datetime.UTC):%Y-%m-%d %H:%M} ({int(moment)})"
    except (OverflowError, ValueError, OSError):
        return str(int(moment))
