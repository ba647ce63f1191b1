"""The rows of users, and the draw that divides them into support and query."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from metarec_jax.core.row_ranges import Ranges, Selection, expand, where
from metarec_jax.core.stored_columns import OwnerColumn, rows_of
from metarec_jax.core.types import Column, Interactions
from metarec_jax.data.random_streams import random_at
from metarec_jax.data.splits import counts_of


class Histories(NamedTuple):
    """The rows of some users, grouped by user and ordered by time.

    Attributes:
        users: int32 [users], rows of the user table.
        start: int64 [users], the first row of each user.
        count: int64 [users], number of rows of each user.
        item: int32 [rows].
        rating: float32 [rows].
        time: int64 [rows].
        row: int64 [rows], the row of the data set.

    Of a data set in a row store, item, rating and time stay in its files, and rows are ranges.
    """

    users: np.ndarray
    start: np.ndarray
    count: np.ndarray
    item: Column
    rating: Column
    time: Column
    row: Selection


def histories(data: Interactions, users: np.ndarray, allowed: Column | None = None) -> Histories:
    """The rows of some users, in the order in which the users are given.

    Args:
        data: the data set.
        users: int [users], rows of its users.
        allowed: bool [rows], which of its rows to take; None takes all.

    Returns:
        The rows.
    """
    if isinstance(data.user, OwnerColumn):  # sorted by user and time
        first = np.asarray(data.user.offsets)[users]
        count = np.asarray(data.user.offsets)[np.asarray(users) + 1] - first
        rows: Selection = Ranges(first, count)
        if allowed is not None:
            rows, count = where(rows, lambda some: allowed[some]), counts_of(data, allowed)[users]
    else:
        place = np.full(len(data.users), -1, np.int64)
        place[users] = np.arange(len(users))
        rows = np.flatnonzero(place[data.user] >= 0 if allowed is None else (place[data.user] >= 0) & allowed)
        rows = rows[np.lexsort((rows, data.time[rows], place[data.user[rows]]))]
        count = np.bincount(place[data.user[rows]], minlength=len(users))
    return Histories(
        users=np.asarray(users, np.int32),
        start=np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64),
        count=count.astype(np.int64),
        item=rows_of(data.item, rows),
        rating=rows_of(data.rating, rows),
        time=rows_of(data.time, rows),
        row=rows,
    )


def draw_rows(
    own: Histories,
    order: Literal["random", "time"],
    seed: int,
    draw: int = 0,
    members: np.ndarray | None = None,
) -> np.ndarray:
    """Draw support and query: order each user's rows so that the query comes first and the support follows it.

    Args:
        own: the rows of the users.
        order: "random", or "time": latest first, so that the query is later than the support.
        seed: seed of the draw.
        draw: number of the draw; each one gives another random order.
        members: int [n], which users of `own`; None takes all. A user's order is the same beside any others.

    Returns:
        int64 [rows], rows of `own`, user after user.
    """
    start, count = (own.start, own.count) if members is None else (own.start[members], own.count[members])
    rows, owner = expand(start, count), np.repeat(np.arange(len(count)), count)
    key = random_at([seed, 1, draw], start, count) if order == "random" else -rows
    return rows[np.lexsort((key, owner))]
