"""`Interactions` from the raw columns of a reader, with all checks of the data.

A reader (sources/) maps the columns of its files to the names that `build` expects. All checks are here (those of a
single column in `values`), so that errors of every layout have the same message: file, line, value, remedy.

The result does not depend on the order of lines in a file: users and items are in the order of their ids (numbers by
value), rows by user, then time, then item. The same content in two layouts gives the same splits and episodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.scale import CLICKS, Kind, Scale
from metarec_jax.core.types import Interactions, Items, Strings, Users
from metarec_jax.data import values
from metarec_jax.data.ids import ids
from metarec_jax.data.repeats import Rows, Rule, first_repeat, merge
from metarec_jax.data.text import beginning
from metarec_jax.data.times import times
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
    layout: str = "",
    repeats: Rule = "refuse",
) -> Interactions:
    """Check raw columns, and build `Interactions` from them.

    Args:
        ratings: columns user and item, and optionally rating (otherwise every row is a click of 1), time (otherwise 0),
            item_text and user_text, which must be equal in all rows of an id.
        items: columns item, title and text, and optionally item_vector (an array) and item_picture (a sequence); other
            columns become details. None takes the items that have ratings.
        users: columns user and text. None takes the users that have ratings.
        kind: "rating" or "click".
        scale: the ratings that are allowed; None derives it from the ratings.
        source: where the rows came from, as a sentence.
        citation: what to cite.
        layout: how the files are written.
        repeats: what becomes of rows of the same user and item (`metarec_jax.data.repeats`).

    Returns:
        The data set.

    Raises:
        MetarecError: a value is not valid.
    """
    if len(ratings) == 0:
        raise MetarecError(f"{ratings.name} holds no interaction: give a file with one row for each rating or click")
    people, user = user_rows(ratings, users)
    catalogue, item, notes = item_rows(ratings, items)
    time, unit = times(ratings)
    ratings, user, item, time = merge(Rows(ratings, user, item, time), repeats, kind, people.ids, catalogue.ids)
    if kind == "click":
        rating, scale = values.clicks(ratings), CLICKS
    else:
        rating, scale = values.ratings(ratings, scale)

    order = row_order(user, time, item)
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
        time_unit=unit,
        layout=layout,
        notes=(*ratings.notes, *notes),
    )


# Ids


def user_rows(ratings: Table, users: Table | None) -> tuple[Users, np.ndarray]:
    """The users of a table of interactions, and the row of each one's id.

    Args:
        ratings: column user, and optionally user_text.
        users: columns user and text; None takes the users of `ratings`.

    Returns:
        The users, and int32 [rows], the row of the user of each row of `ratings`.

    Raises:
        MetarecError: an id is missing, or not in `users`, or one user has two texts.
    """
    code, seen = ids(ratings, "user")
    if users is None:
        order = _by_id(seen)
        texts = _texts(ratings, "user_text", code, seen)
        people = Users(_take(seen, order), None if texts is None else _take(texts, order))
    else:
        people = _user_file(users)
    return people, _rows(ratings, "user", code, seen, people.ids, users)


def item_rows(ratings: Table, items: Table | None) -> tuple[Items, np.ndarray, tuple[str, ...]]:
    """The items of a table of interactions, and the row of each one's id.

    Args:
        ratings: column item, and optionally item_text.
        items: as for `build`; None takes the items of `ratings`.

    Returns:
        The catalogue; int32 [rows], the row of the item of each row of `ratings`; and remarks.

    Raises:
        MetarecError: an id is missing, or not in `items`, or one item has two texts.
    """
    code, seen = ids(ratings, "item")
    if items is None:
        texts, notes = _filled(ratings, "item", seen, _texts(ratings, "item_text", code, seen) or seen, {})
        catalogue = _catalogue(seen, texts, texts, {})
    else:
        catalogue, notes = _item_file(items)
    return catalogue, _rows(ratings, "item", code, seen, catalogue.ids, items), notes


def _by_id(ids: list[str]) -> list[int]:
    """The order of `ids`: whole numbers by value, then all others as strings."""

    def key(i: int) -> tuple[int, int, str]:
        text = ids[i]
        number = text.isascii() and text.isdigit() and len(text) <= 18
        return (0, int(text), text) if number else (1, 0, text)

    return sorted(range(len(ids)), key=key)


def _take(column: Any, order: list[int]) -> tuple[str, ...]:
    return tuple(column[i] for i in order)


def row_order(user: np.ndarray, time: np.ndarray, item: np.ndarray) -> np.ndarray:
    """The order of rows by user, then time, then item; several times as fast as `np.lexsort`.

    Args:
        user: int32 [rows], at least one row.
        time: int64 [rows].
        item: int32 [rows].

    Returns:
        int64 [rows].
    """
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
    """The ids of a file that has one row for each."""
    code, seen = ids(table, column)
    if len(seen) < len(code):
        first, second = first_repeat(code.astype(np.int64))
        raise table.refuse(
            second,
            f"{column} {shown(seen[code[second]])} is already in {table.place(first)}: this file must have one row "
            f"for each {column}, so remove one of the two",
        )
    return [seen[c] for c in code]


def _rows(
    table: Table, column: str, code: np.ndarray, seen: list[str], known: Strings, file: Table | None
) -> np.ndarray:
    """The index in `known` of each row's id, int32 [rows]; `code` and `seen` are from `values.ids`."""
    position = {identity: row for row, identity in enumerate(known)}
    row_of = np.array([position.get(identity, -1) for identity in seen], np.int32)
    row = row_of[code]
    if file is not None and (row_of < 0).any():
        bad = np.flatnonzero(row < 0)[0]
        raise table.refuse(
            bad,
            f"{column} {shown(seen[code[bad]])} is not in {file.name}: add it there, or remove the rows that name it",
        )
    return row


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
            f"{table.label(column)} of {column.removesuffix('_text')} {shown(seen[code[row]])} is "
            f"{shown(words[text[row]])}, but {shown(words[text[before]])} in {table.place(before)}: one id must have "
            "one text",
        )
    return [words[text[row]] for row in first]


def _filled(
    table: Table, column: str, names: list[str], texts: list[str], others: Mapping[str, list[str]]
) -> tuple[list[str], tuple[str, ...]]:
    """Texts, with another one in place of blank ones: that of the first other column that is not blank, or the id.

    Args:
        table: the file.
        column: whose texts these are: "item".
        names: the ids.
        texts: of each id.
        others: further columns of words, the best first.

    Returns:
        The texts, and a remark if one was blank.
    """
    filled, used = list(texts), Counter[str]()
    for n, text in enumerate(texts):
        if not text.strip():
            used_column, filled[n] = next(((c, o[n]) for c, o in others.items() if o[n].strip()), ("the id", names[n]))
            used[used_column] += 1
    if not used:
        return filled, ()
    first = next(names[n] for n, text in enumerate(texts) if not text.strip())
    instead = " or ".join(used)
    count = "1 text is" if used.total() == 1 else f"{used.total():,} texts are"
    return filled, (f"{table.name}: {count} blank ({column} {shown(first)} first); {instead} is read instead",)


def _catalogue(
    ids: list[str],
    titles: Any,
    texts: Any,
    details: Mapping[str, Any],
    vectors: np.ndarray | None = None,
    pictures: Sequence[bytes | None] | None = None,
) -> Items:
    order = _by_id(ids)
    return Items(
        ids=_take(ids, order),
        titles=_take(titles, order),
        texts=_take(texts, order),
        details={name: _take(column, order) for name, column in details.items()},
        vectors=None if vectors is None else vectors[order],
        pictures=None if pictures is None else tuple(pictures[row] for row in order),
    )


def _strings(column: Any) -> list[str]:
    listed = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column
    return ["" if value is None else str(value) for value in listed]


def _item_file(table: Table) -> tuple[Items, tuple[str, ...]]:
    if len(table) == 0:
        raise MetarecError(f"{table.name} holds no item: give one row for each item")
    names = _unique_ids(table, "item")
    columns = {n: _strings(v) for n, v in table.columns.items() if n not in ("item", "item_vector", "item_picture")}
    titles, texts = columns.pop("title"), columns.pop("text")
    # The remark on blank texts speaks for items without either.
    blank = sum(not title.strip() and bool(text.strip()) for title, text in zip(titles, texts))
    words = {name: columns[name] for name in ("name", "description", *columns) if _is_words(columns.get(name, []))}
    texts, notes = _filled(table, "item", names, texts, {"title": titles, **words})
    shown_titles = [
        title if title.strip() else beginning(text) or name for title, text, name in zip(titles, texts, names)
    ]
    if blank:
        count = "1 title is" if blank == 1 else f"{blank:,} titles are"
        notes = (*notes, f"{table.name}: {count} blank; the beginning of the item's text is shown instead")
    catalogue = _catalogue(
        names, shown_titles, texts, columns, table.columns.get("item_vector"), table.columns.get("item_picture")
    )
    return catalogue, (*table.notes, *notes)


def _is_words(column: list[str]) -> bool:
    """Whether most values of a column hold a letter."""
    return sum(any(c.isalpha() for c in value) for value in column) * 2 > len(column)


def _user_file(table: Table) -> Users:
    if len(table) == 0:
        raise MetarecError(f"{table.name} holds no user: give one row for each user")
    names = _unique_ids(table, "user")
    order = _by_id(names)
    return Users(_take(names, order), _take(_strings(table.columns["text"]), order))
