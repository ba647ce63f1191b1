"""The log of a service as columns: the items that were shown to users, and the users' actions."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import numpy as np

from metarec_jax.recommender.filters import Filters
from metarec_jax.serving.database import decoded


class Log(NamedTuple):
    """One row for every place of every list, ordered by time.

    Attributes:
        list: int64 [n], number of the list.
        user: int64 [n], number of the user.
        arm: str [n], name of the model that chose the item.
        item: str [n], id of the item.
        place: int64 [n], rank in the list; 1 is the first.
        propensity: float64 [n], probability of the item at this place; NaN for interleaved lists.
        own_place: int64 [n], rank of the item in the model's own list.
        explore: float64 [n], probability that the list was drawn at random.
        pool: int64 [n], number of items that a random list is drawn from.
        interleaved: bool [n].
        time: float64 [n], seconds since 1970.
        clicked: bool [n], by the user in this list.
        purchased: bool [n], by the user in this list.
        rating: float64 [n], the last one given in this list; NaN if there is none.
    """

    list: np.ndarray
    user: np.ndarray
    arm: np.ndarray
    item: np.ndarray
    place: np.ndarray
    propensity: np.ndarray
    own_place: np.ndarray
    explore: np.ndarray
    pool: np.ndarray
    interleaved: np.ndarray
    time: np.ndarray
    clicked: np.ndarray
    purchased: np.ndarray
    rating: np.ndarray

    def of(self, rows: np.ndarray) -> Log:
        """Return some of the rows; `rows` is a mask or indices."""
        return Log(*(column[rows] for column in self))


class Request(NamedTuple):
    """The request that a list answers.

    Attributes:
        number: number of the list, as in `Log`.
        history: (item id, rating) pairs.
        filters: conditions on the items; excluded items are ids.
        exclude_seen: whether items of the history were left out.
    """

    number: int
    history: list[tuple[str, float]]
    filters: Filters
    exclude_seen: bool


def read(database: sqlite3.Connection) -> Log:
    """Return the log of a store's database."""
    rows = database.execute(
        "SELECT s.list, l.user, s.arm, s.item, s.place, s.propensity, s.own_place, l.explore, l.pool, l.mode, l.time "
        "FROM shown s JOIN lists l ON l.id = s.list ORDER BY l.time, s.list, s.place"
    ).fetchall()
    columns = list(zip(*rows)) if rows else [()] * 11
    lists, users, arms, items, places, propensities, own, explore, pool, mode, time = columns
    of_place = {(shown, item): n for n, (shown, item) in enumerate(zip(lists, items))}
    clicked, purchased = np.zeros((2, len(rows)), bool)
    rating = np.full(len(rows), np.nan)
    for shown, item, kind, value in database.execute(
        "SELECT list, item, kind, value FROM events WHERE list IS NOT NULL ORDER BY number"
    ):
        n = of_place.get((shown, item))
        if n is None:
            continue
        if kind == "rating":
            rating[n] = value
        elif kind == "forget":
            rating[n] = np.nan
        else:
            clicked[n] = True
            purchased[n] |= kind == "purchase"
    number = {shown: n for n, shown in enumerate(dict.fromkeys(lists))}
    who = {user: n for n, user in enumerate(dict.fromkeys(users))}
    return Log(
        list=np.array([number[shown] for shown in lists], np.int64),
        user=np.array([who[user] for user in users], np.int64),
        arm=np.array(arms, str),
        item=np.array(items, str),
        place=np.array(places, np.int64),
        propensity=np.array([np.nan if p is None else p for p in propensities], np.float64),
        own_place=np.array(own, np.int64),
        explore=np.array(explore, np.float64),
        pool=np.array(pool, np.int64),
        interleaved=np.array([m == "interleave" for m in mode], bool),
        time=np.array(time, np.float64),
        clicked=clicked,
        purchased=purchased,
        rating=rating,
    )


def requests(database: sqlite3.Connection) -> list[Request]:
    """Return the request of each list, in the order of `Log.list`."""
    rows = database.execute(
        "SELECT l.history, l.filters FROM lists l WHERE EXISTS (SELECT 1 FROM shown s WHERE s.list = l.id) "
        "ORDER BY l.time, l.id"
    )
    found = []
    for number, (history, filters) in enumerate(rows):
        asked = decoded(filters)
        exclude_seen = asked.pop("exclude_seen")
        pairs = [(item, float(rating)) for item, rating in decoded(history)]
        found.append(Request(number, pairs, Filters(**asked), exclude_seen))
    return found
