"""Several rows of one user and item: refused, or merged into one."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from metarec_jax.core.errors import shown
from metarec_jax.core.types import Kind, Strings
from metarec_jax.data import values
from metarec_jax.data.values import Table

Rule = Literal["auto", "refuse", "latest", "first", "mean", "sum"]


class Rows(NamedTuple):
    """Rows of a table, at most one of each user and item.

    Attributes:
        table: the file; its column of ratings has a number for each row.
        user: int32 [rows].
        item: int32 [rows].
        time: int64 [rows].
    """

    table: Table
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray


def merge(rows: Rows, rule: Rule, kind: Kind, users: Strings, items: Strings) -> Rows:
    """Merge rows of the same user and item.

    Args:
        rows: of a file.
        rule: what becomes of them: the latest or first one (of equal times, by their order in the file), or the mean
            or sum of their ratings, at the latest time. "auto" refuses them for ratings; of clicks, the greatest
            counts, at the latest time. A sum without a rating column is their number, for all rows.
        kind: of the ratings.
        users: ids of the users.
        items: ids of the items.

    Returns:
        The rows that remain, in the order of the file.

    Raises:
        MetarecError: rows repeat, and `rule` refuses it.
    """
    table, user, item, time = rows
    counted = rule == "sum" and kind == "rating" and "rating" not in table.columns
    key = user.astype(np.int64) * len(items) + item
    ordered = np.sort(key)
    if (ordered[1:] != ordered[:-1]).all() and not counted:
        return rows
    if rule == "refuse" or (rule == "auto" and kind == "rating"):
        first, second = first_repeat(key)
        raise table.refuse(
            second,
            f"user {shown(users[user[second]])} and item {shown(items[item[second]])} are already in "
            f"{table.place(first)}: a user has one row for an item; keep one of the two"
            + (", or say which counts with --data.repeats latest (or first, mean, sum)" if rule == "auto" else ""),
        )
    order = np.lexsort((time, key))  # stable: rows of equal times stay in the order of the file
    starts = np.flatnonzero(np.append(True, key[order][1:] != key[order][:-1]))
    ends = np.append(starts[1:], len(order))
    kept = order[starts] if rule == "first" else order[ends - 1]
    truths = values.TRUTHS if kind == "click" else {}
    rating = np.ones(len(table)) if "rating" not in table.columns else np.array(values.numbers(table, "rating", truths))
    if kind == "click" and rule not in ("first", "latest"):
        values.clicks(table)  # checked row by row
        rating[kept] = np.maximum.reduceat(rating[order], starts)
    elif rule in ("mean", "sum"):
        total = np.add.reduceat(rating[order], starts)
        rating[kept] = total / (ends - starts) if rule == "mean" else total
    kept = np.sort(kept)
    merged = len(table) - len(kept)
    note = remark(table.name, merged, len(table), rule, kind)
    columns = {"user": table.columns["user"], "rating": pa.chunked_array([pa.array(rating[kept])])}
    place = table.place
    return Rows(
        dataclasses.replace(
            table, columns=columns, place=lambda row: place(int(kept[row])), notes=(*table.notes, note)
        ),
        user[kept],
        item[kept],
        time[kept],
    )


def remark(name: str, merged: int, rows: int, rule: Rule, kind: Kind) -> str:
    """The remark on merged rows.

    Args:
        name: name of the file.
        merged: rows that were merged into others.
        rows: rows of the file.
        rule, kind: as for `merge`.

    Returns:
        The remark.
    """
    what = {"auto": "they count as one click", "latest": "the latest counts", "first": "the first counts"}.get(
        rule, f"the {rule} of their ratings counts" if kind == "rating" else "they count as one click"
    )
    return f"{name}: {merged:,} of {rows:,} rows repeat a user and an item; {what}"


def first_repeat(key: np.ndarray) -> tuple[int, int]:
    """Of the repeats of a key (int64 [rows]), the one that ends first in the file: its two rows."""
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[order][1:] == key[order][:-1])
    which = again[np.argmin(order[again + 1])]
    return int(order[which]), int(order[which + 1])
