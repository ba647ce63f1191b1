"""`Interactions` from the raw columns of a reader, with all checks of the data.

A reader (sources/) maps the columns of its files to the names that `build` expects. All checks are here (those of a
single column in `values`), so that errors of every layout have the same message: file, line, value, remedy.

The result does not depend on the order of lines in a file: users and items are in the order of their ids (numbers by
value), rows by user, then time, then item. The same content in two layouts gives the same splits and episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import CLICKS, Kind, Scale
from metarec_jax.core.types import Interactions, Items, Users
from metarec_jax.data import values
from metarec_jax.data.values import Table


def build(
    ratings: Table,
    *,
    items: Table | None = None,
    users: Table | None = None,
    kind: Kind = "rating",
    scale: Scale | None = None,
    source: str,
    citation: str = "",
) -> Interactions:
    """Check raw columns, and build `Interactions` from them.

    Args:
        ratings: columns user and item, and optionally rating (otherwise every row is a click of 1), time (otherwise 0),
            item_text and user_text, which must be equal in all rows of an id.
        items: columns item, title and text, and optionally item_vector (an array); other columns become details. None
            takes the items that have ratings.
        users: columns user and text. None takes the users that have ratings.
        kind: "rating" or "click".
        scale: the ratings that are allowed; None derives it from the ratings.
        source: origin of the rows, as a sentence.
        citation: publication to cite.

    Returns:
        The data set.

    Raises:
        MetarecError: a value is not valid.
    """
    if len(ratings) == 0:
        raise MetarecError(f"{ratings.name} holds no interaction: give a file with one row for each rating or click")
    user_code, user_seen = values.ids(ratings, "user")
    item_code, item_seen = values.ids(ratings, "item")

    if items is None:
        item_texts = _texts(ratings, "item_text", item_code, item_seen)
        catalogue = _catalogue(item_seen, item_texts or item_seen, item_texts or item_seen, {})
    else:
        catalogue = _item_file(items)
    if users is None:
        order = _by_id(user_seen)
        user_texts = _texts(ratings, "user_text", user_code, user_seen)
        people = Users(_take(user_seen, order), None if user_texts is None else _take(user_texts, order))
    else:
        people = _user_file(users)

    user = _rows(ratings, "user", user_code, user_seen, people.ids, users)
    item = _rows(ratings, "item", item_code, item_seen, catalogue.ids, items)
    _refuse_repeats(ratings, user, item, people.ids, catalogue.ids)
    if kind == "click":
        rating, scale = values.clicks(ratings), CLICKS
    else:
        rating, scale = values.ratings(ratings, scale)
    time = values.times(ratings)

    order = _order(user, time, item)
    return Interactions(
        user=user[order],
        item=item[order],
        rating=rating[order],
        time=time[order],
        users=people,
        items=catalogue,
        scale=scale,
        source=source,
        citation=citation,
    )


# Ids


def _by_id(ids: list[str]) -> list[int]:
    """The order of `ids`: whole numbers by value, then all others as strings."""

    def key(i: int) -> tuple[int, int, str]:
        text = ids[i]
        number = text.isascii() and text.isdigit() and len(text) <= 18
        return (0, int(text), text) if number else (1, 0, text)

    return sorted(range(len(ids)), key=key)


def _take(column: Any, order: list[int]) -> tuple[str, ...]:
    return tuple(column[i] for i in order)


def _order(user: np.ndarray, time: np.ndarray, item: np.ndarray) -> np.ndarray:
    """The order of rows by user, then time, then item; several times as fast as `np.lexsort`."""
    start = int(time.min())
    span = int(time.max()) - start + 1
    if (int(user.max()) + 1) * span >= 2**63:
        return np.lexsort((item, time, user))
    key = user * np.int64(span) + (time - start)
    order = np.argsort(key)
    sorted_key = key[order]
    same = sorted_key[1:] == sorted_key[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    rows = order[tied]
    order[tied] = rows[np.lexsort((item[rows], key[rows]))]
    return order


def _unique_ids(table: Table, column: str) -> list[str]:
    """The ids of a file that has one row for each id."""
    code, seen = values.ids(table, column)
    if len(seen) < len(code):
        first, second = _first_repeat(code.astype(np.int64))
        raise table.refuse(
            second,
            f"{column} {seen[code[second]]!r} is already in {table.place(first)}: this file must have one row "
            f"for each {column}, so remove one of the two",
        )
    return [seen[c] for c in code]


def _rows(
    table: Table, column: str, code: np.ndarray, seen: list[str], known: tuple[str, ...], file: Table | None
) -> np.ndarray:
    """The index in `known` of each row's id, int32 [rows]; `code` and `seen` are from `values.ids`."""
    position = {identity: row for row, identity in enumerate(known)}
    row_of = np.array([position.get(identity, -1) for identity in seen], np.int32)
    row = row_of[code]
    if file is not None and (row_of < 0).any():
        bad = np.flatnonzero(row < 0)[0]
        raise table.refuse(
            bad,
            f"{column} {seen[code[bad]]!r} is not in {file.name}: add it there, or remove the rows that name it",
        )
    return row


def _first_repeat(key: np.ndarray) -> tuple[int, int]:
    """The two rows of the first repeated key: the repeat whose second row comes first in the file."""
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[order][1:] == key[order][:-1])
    which = again[np.argmin(order[again + 1])]
    return int(order[which]), int(order[which + 1])


def _refuse_repeats(
    table: Table, user: np.ndarray, item: np.ndarray, users: tuple[str, ...], items: tuple[str, ...]
) -> None:
    key = user.astype(np.int64) * len(items) + item
    ordered = np.sort(key)
    if (ordered[1:] != ordered[:-1]).all():
        return
    first, second = _first_repeat(key)
    raise table.refuse(
        second,
        f"user {users[user[second]]!r} and item {items[item[second]]!r} are already in {table.place(first)}: "
        "a user has one row for an item, so keep one of the two (the later one, say)",
    )


# Texts


def _texts(table: Table, column: str, code: np.ndarray, seen: list[str]) -> list[str] | None:
    """The text of each distinct id, from a column of the ratings file; None without that column."""
    if column not in table.columns:
        return None
    text, words = values.distinct(table, column)
    first = np.empty(len(seen), np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    other = np.flatnonzero(text[first[code]] != text)
    if len(other):
        row = other[0]
        before = first[code[row]]
        raise table.refuse(
            row,
            f"{table.label(column)} of {column.removesuffix('_text')} {seen[code[row]]!r} is {words[text[row]]!r}, but "
            f"{words[text[before]]!r} in {table.place(before)}: one id must have one text",
        )
    texts = [words[text[row]] for row in first]
    if column == "item_text":
        _refuse_empty(table, seen, texts, first)
    return texts


def _refuse_empty(table: Table, ids: list[str], texts: list[str], rows: Any) -> None:
    for identity, text, row in zip(ids, texts, rows):
        if not text.strip():
            raise table.refuse(
                row,
                f"item {identity!r} has no text, so the encoder has nothing to read: write some, or remove the item",
            )


def _catalogue(
    ids: list[str], titles: Any, texts: Any, details: Mapping[str, Any], vectors: np.ndarray | None = None
) -> Items:
    order = _by_id(ids)
    return Items(
        ids=_take(ids, order),
        titles=_take(titles, order),
        texts=_take(texts, order),
        details={name: _take(column, order) for name, column in details.items()},
        vectors=None if vectors is None else vectors[order],
    )


def _strings(column: Any) -> list[str]:
    listed = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column
    return ["" if value is None else str(value) for value in listed]


def _item_file(table: Table) -> Items:
    if len(table) == 0:
        raise MetarecError(f"{table.name} holds no item: give one row for each item")
    ids = _unique_ids(table, "item")
    texts = _strings(table.columns["text"])
    _refuse_empty(table, ids, texts, range(len(ids)))
    vectors = table.columns.get("item_vector")
    details = {n: _strings(v) for n, v in table.columns.items() if n not in ("item", "title", "text", "item_vector")}
    return _catalogue(ids, _strings(table.columns["title"]), texts, details, vectors)


def _user_file(table: Table) -> Users:
    if len(table) == 0:
        raise MetarecError(f"{table.name} holds no user: give one row for each user")
    ids = _unique_ids(table, "user")
    order = _by_id(ids)
    return Users(_take(ids, order), _take(_strings(table.columns["text"]), order))
