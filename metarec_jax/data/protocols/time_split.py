"""A date divides the rows: rows before it train, and queries are of rows after it.

Users and items without a row before the date are cold. A task is a user with rows after the date: the query is the
latest of them, and the support is the user's rows before the query, on either side of the date. Item statistics and
everything that is trained use rows before the date alone.
"""

from __future__ import annotations

import datetime

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.stored_columns import blocks
from metarec_jax.core.types import Column, Interactions, TimeUnit
from metarec_jax.data.protocols.division import (
    Division,
    Scenario,
    drawn_tasks,
    everyone_else,
    register_split,
    require_times,
    rows_by_time,
)
from metarec_jax.data.splits import counts_of, deal
from metarec_jax.data.tasks import Tasks, make_tasks
from metarec_jax.data.times import PER_SECOND

BEFORE = 0.8
"""Share of the rows before the date, where the config names none."""
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@register_split("time")
def divide(data: Interactions, split: SplitConfig, config: EpisodeConfig, seed: int) -> Division:
    """Divide by date into one scenario of all tasks, and one per combination of warm or cold users and items.

    Args:
        data: the data set.
        split: options of the protocol.
        config: options of episodes, and the share of validation users.
        seed: seed of all draws.

    Returns:
        The division; combinations without a query row are left out.

    Raises:
        MetarecError: all rows, or none, come before the date, or no user has enough rows.
    """
    require_times(data, "time")
    date = date_of(data, split.date)
    cut, before = _shown(date, data.time_unit), data.time < date
    if before.all() or not before.any():
        first, last = data.time.min(), data.time.max()
        raise MetarecError(
            f"split.date is {cut}, and {'all' if before.all() else 'no'} rows come before it: choose one "
            f"between {_shown(first + 1, data.time_unit)} and {_shown(last, data.time_unit)}"
        )
    earlier, later = counts_of(data, before), counts_of(data, ~before)
    enough = np.flatnonzero(earlier >= config.min_ratings)
    bounds = f"{config.min_ratings} rows or more before {cut}"
    validation, train_users = deal(data, enough, {"validation": config.validation}, seed, bounds)
    train_users, train = everyone_else(data, config, validation, train_users, before)

    candidates = np.setdiff1d(np.flatnonzero((later >= config.query) & (earlier + later > config.query)), validation)
    if not len(candidates):
        raise MetarecError(
            f"no user has {config.query} rows from {cut} on, and one before those: choose an earlier "
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
            f"rows before {cut} train ({before.mean():.0%} of all, but those of the validation users, who are "
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
                found.append(Scenario(name, f"query rows of {user} users and {item} items", part))
    return found


def _of_items(tasks: Tasks, chosen: np.ndarray, cold: np.ndarray, wanted: bool) -> Tasks:
    """Restrict the `chosen` tasks (bool [tasks]) to query rows where `cold` (bool [rows]) equals `wanted`.

    Tasks without such a row are left out.
    """
    ends = [np.cumsum(count)[:-1] for count in (tasks.supports, tasks.queries)]
    parts = zip(tasks.user, np.split(tasks.support, ends[0]), np.split(tasks.query, ends[1]), chosen)
    kept = [(user, support, query[cold[query] == wanted]) for user, support, query, yes in parts if yes]
    kept = [task for task in kept if len(task[2])]
    user, support, query = zip(*kept) if kept else ((), (), ())
    return make_tasks(user, support, query)


def date_of(data: Interactions, text: str) -> int:
    """Convert a date to the unit of the data's times.

    Args:
        data: the data set.
        text: a date such as 1998-03-01, or a whole number in that unit; "" is the time of the row that `BEFORE` of the
            rows precede.

    Returns:
        The date.

    Raises:
        MetarecError: `text` is neither a date nor a whole number.
    """
    if not text:
        return _at_place(data.time, int(len(data) * BEFORE))
    try:
        if text.lstrip("-").isdecimal():
            return int(text)
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise MetarecError(
            f"split.date is {text!r}; write a date such as 1998-03-01, or a whole number in the unit of the times"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1) * PER_SECOND[data.time_unit] // 10**6


def _at_place(times: Column, place: int) -> int:
    """The time at a place in ascending order, found by halving the span of times: no copy of them is sorted."""
    low, high = int(times.min()), int(times.max())
    while low < high:
        middle = (low + high) // 2
        before = sum(int(np.count_nonzero(times[some] <= middle)) for some in blocks(len(times)))
        low, high = (low, middle) if before > place else (middle + 1, high)
    return low


def _shown(moment: int, unit: TimeUnit) -> str:
    """A time for messages: as a date, if it can be one, and as a number."""
    try:
        date = _EPOCH + datetime.timedelta(seconds=int(moment) // PER_SECOND[unit])
        return f"{date:%Y-%m-%d %H:%M} ({int(moment)})"
    except OverflowError:
        return str(int(moment))
