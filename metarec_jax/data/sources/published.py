"""Published data sets that are tables: read by a description of their files and columns.

A publisher ships a data set in several forms (years, formats). The first form whose files are in the folder and have
its columns is read; files of the same form are read as one table.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.core.scale import Kind, Scale
from metarec_jax.core.types import Interactions
from metarec_jax.data.ids import MISSING
from metarec_jax.data.interactions import build
from metarec_jax.data.repeats import Rule
from metarec_jax.data.sources.dialect import Format
from metarec_jax.data.sources.encodings import UTF8_OR_LATIN1
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.item_rows import complete, named_items, sentences
from metarec_jax.data.sources.json_lines import JsonLines
from metarec_jax.data.sources.stacked import keep, stack
from metarec_jax.data.sources.text import TextTable
from metarec_jax.data.values import Table

pc: Any = pyarrow.compute  # whose functions type checkers do not know

_MOST_LITERAL = 1 << 20
"""Longest line of a Python literal, in bytes."""


class Form(NamedTuple):
    """A form in which a publisher ships a table.

    Attributes:
        files: names of its files, or patterns.
        columns: the file's names of its columns, by their names in `metarec_jax.data.interactions.build`. Those of
            items other than item and title become details.
        text: of items, columns that the encoder reads after the title.
        separator: separator of the values of a text table; "" for JSON lines.
        header: of a text table without a header line, the names of its columns.
        quoted: whether values of a text table stand in double quotes.
        skip: whether lines with more or fewer values than the header are left out, as a few are published.
        numeric: whether ids of a text table are whole numbers, which are read several times faster.
        time: form of the times, as for `time.strptime`; "" for numbers and ISO 8601.
        item_ids: a file that maps ids of items to those of the item file, and its columns of both; () if they are the
            same.
    """

    files: tuple[str, ...]
    columns: Mapping[str, str]
    text: tuple[str, ...] = ()
    separator: str = ""
    header: tuple[str, ...] = ()
    quoted: bool = False
    skip: bool = False
    numeric: bool = False
    time: str = ""
    item_ids: tuple[str, ...] = ()


class Published(NamedTuple):
    """A published data set of tables.

    Attributes:
        interactions: forms of the file of interactions.
        items: forms of the file of items, the first that is there is read; () where the data set has none.
        scale: scale of the ratings; None derives it from the ratings.
        unrated: the rating that means that there is none; None if every row has one.
        repeats: what becomes of ratings that repeat a user and an item, if the user does not say.
        citation: what to cite.
    """

    interactions: tuple[Form, ...]
    items: tuple[Form, ...] = ()
    scale: Scale | None = None
    unrated: float | None = None
    repeats: Rule = "auto"
    citation: str = ""


def read(published: Published, folder: Folder, source: str, kind: Kind, repeats: Rule) -> Interactions:
    """Read a published data set of tables.

    Args:
        published: description of the data set.
        folder: the files.
        source: value of `Interactions.source`.
        kind: "rating", or "click" to make every row a click.
        repeats: rule of rows that repeat a user and an item; "auto" takes the data set's own for ratings.

    Returns:
        The data set. Its items are those that rows name, with the id as the text of one that the item file has not.

    Raises:
        MetarecError: a file or column is missing or not valid.
    """
    of_items = folder.matching([pattern for form in published.items for pattern in form.files])
    ratings = _interactions(published, folder, of_items)
    ratings = _with_ids(ratings)
    if kind == "click":
        ratings = dataclasses.replace(ratings, columns={n: v for n, v in ratings.columns.items() if n != "rating"})
    elif "rating" in ratings.columns:
        ratings = _rated(ratings, published.unrated)
    rule: Rule = published.repeats if repeats == "auto" and kind == "rating" else repeats
    if kind == "rating" and "rating" not in ratings.columns and rule != "sum":
        raise MetarecError(
            f"{ratings.name} has no ratings, but data.repeats is {repeats!r}: say --data.kind click, or --data.repeats "
            "sum, which counts the rows of a user and an item"
        )
    items = read_items(published.items, folder, ratings) if of_items else None
    scale = None if rule in ("mean", "sum") else published.scale
    return build(ratings, items=items, kind=kind, scale=scale, source=source, citation=published.citation, repeats=rule)


def _interactions(published: Published, folder: Folder, of_items: Sequence[str]) -> Table:
    forms = published.interactions
    fits, tried = _fits(folder, forms, excluded=of_items)
    if not fits:
        known = "; or ".join(f"{' or '.join(form.files)} with {', '.join(form.columns.values())}" for form in forms)
        found = tried or f"it holds {listed(folder.names)}"
        raise MetarecError(f"{folder.path} holds no interactions in a form that is published: {known}; {found}")
    first = min(forms.index(form) for _, form in fits)
    tables = [
        _mapped(opened.read(form.columns, options={}, numeric=form.numeric), form, folder)
        for opened, form in fits
        if form == forms[first]
    ]
    return stack(f"{folder.path}", tables)


def _fits(
    folder: Folder, forms: Sequence[Form], excluded: Sequence[str] = (), required: Sequence[str] = ()
) -> tuple[list[tuple[TextTable | JsonLines, Form]], str]:
    """Open the files of some forms.

    Args:
        folder: the files.
        forms: forms of a table.
        excluded: names of files of other tables.
        required: columns that need to be there; () requires all columns of a form.

    Returns:
        Each file with the form that most of its columns fit, and the columns of the first files that fit none.
    """
    fits, tried = [], []
    for name in folder.matching([pattern for form in forms for pattern in form.files]):
        named = [form for form in forms if any(fnmatchcase(name, pattern) for pattern in form.files)]
        for file in folder.read_all(name) if name not in excluded else ():
            best: tuple[int, TextTable | JsonLines, Form] | None = None
            for opened, form in _opened(file, named):
                missing = [column for column, label in form.columns.items() if label not in opened.names]
                if not set(missing) & set(required or form.columns) and (
                    best is None or len(form.columns) - len(missing) > best[0]
                ):
                    best = len(form.columns) - len(missing), opened, form
                elif best is None:
                    tried.append(f"{file.name} has the columns {listed(opened.names) or 'none'}")
            fits += [best[1:]] if best else []
    return fits, "; ".join(list(dict.fromkeys(tried))[:3])


def _opened(file: File, forms: Sequence[Form]) -> Iterator[tuple[TextTable | JsonLines, Form]]:
    """Open a file in each of some forms; JSON lines, which are parsed when they are opened, once for all."""
    in_json = [form for form in forms if not form.separator]
    if in_json:
        fields = {label for form in in_json for label in form.columns.values()}
        lines = JsonLines(_as_json(file, fields), "auto", fields)
        yield from ((lines, form) for form in in_json)
    for form in forms:
        if form.separator:
            quoting, header = "double" if form.quoted else "none", "no" if form.header else "yes"
            table = TextTable(file, Format(form.separator, header, quoting, encoding=UTF8_OR_LATIN1), skip=form.skip)
            table.names = list(form.header) if len(form.header) == len(table.names) else table.names
            yield table, form


def _as_json(file: File, fields: Collection[str]) -> File:
    """Convert lines of Python literals (Amazon of 2014) to JSON lines with some fields."""
    if not bytes(file.data[:256]).lstrip().startswith(b"{'"):
        return file
    lines = []
    for number, line in enumerate(bytes(file.data).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = ast.literal_eval(line.decode()) if len(line) <= _MOST_LITERAL else None
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            row = None
        if not isinstance(row, dict):
            raise MetarecError(
                f"{file.name}, line {number}: {shown(line[:100].decode('utf-8', 'replace'))} is no Python literal of "
                f"an object in at most {_MOST_LITERAL:,} bytes: correct it, or remove the line"
            )
        lines.append(json.dumps({name: row[name] for name in fields if name in row}, default=str))
    return File(file.name, "\n".join(lines).encode())


def _mapped(table: Table, form: Form, folder: Folder) -> Table:
    """Convert times that are written in a form of their own, and the ids of items to those of the item file."""
    columns = dict(table.columns)
    if form.time and "time" in columns:
        columns["time"] = as_times(table, form.time)
    if form.item_ids:
        name, from_id, to_id = form.item_ids
        known = TextTable(folder.read(name), Format(",", "yes"))
        ids = known.read({"from": from_id, "to": to_id}, options={}).columns
        columns["item"] = pc.cast(columns["item"], pa.string())
        row = pc.index_in(columns["item"], ids["from"])
        missing = np.flatnonzero(row.is_null().to_numpy())
        if len(missing):
            raise table.refuse(missing[0], f"item {shown(columns['item'][missing[0]].as_py())} is not in {known.name}")
        columns["item"] = ids["to"].take(row)
    return dataclasses.replace(table, columns=columns)


def as_times(table: Table, form: str) -> pa.ChunkedArray:
    """Parse the column of times of a table.

    Args:
        table: the file.
        form: form of the times, as for `time.strptime`.

    Returns:
        Timestamps in seconds.

    Raises:
        MetarecError: a time is not written so.
    """
    times = pc.strptime(table.columns["time"], format=form, unit="s", error_is_null=True)
    bad = np.flatnonzero(times.is_null().to_numpy())
    if len(bad):
        value = table.columns["time"][int(bad[0])].as_py()
        raise table.refuse(
            bad[0], f"the time ({table.label('time')}) is {shown(value)}: write it in the form {form!r}, as published"
        )
    return times


def _with_ids(table: Table) -> Table:
    """The rows that name a user and an item: published logs have some that do not."""
    named = np.ones(len(table), bool)
    for column in ("user", "item"):
        values = table.columns[column]
        if pa.types.is_string(values.type):
            blank = pc.is_in(pc.utf8_trim_whitespace(values), pa.array([None, "", *sorted(MISSING)]))
            named &= ~blank.to_numpy()
    return keep(table, named, "name no user or no item")


def _rated(table: Table, unrated: float | None) -> Table:
    if unrated is None:
        return table
    rating = pc.cast(table.columns["rating"], pa.string())
    none = pc.is_in(rating, pa.array([f"{unrated:g}", f"{unrated:.1f}"]))
    what = f"have no rating ({table.label('rating')} is {unrated:g}; --data.kind click reads them)"
    return keep(table, ~none.to_numpy(), what)


def read_items(forms: Sequence[Form], folder: Folder, ratings: Table) -> Table:
    """Read the items that a table of interactions names.

    Args:
        forms: forms of the item file; the first that is there is read.
        folder: the files.
        ratings: the interactions.

    Returns:
        The item table of `metarec_jax.data.interactions.build`: the first row of each item, and a row without title and
        text for an item that is in no file.

    Raises:
        MetarecError: no file has such columns, or none of the items is in one.
    """
    fits, tried = _fits(folder, forms, required=("item", "title"))
    if not fits:
        raise MetarecError(f"{folder.path} holds no item file in a form that is published: {tried}")
    seen = named_items(ratings)
    tables = [_item_table(opened, form, seen) for opened, form in fits]
    return complete(stack(f"{folder.path}", tables), ratings)


def _item_table(opened: TextTable | JsonLines, form: Form, seen: pa.Array) -> Table:
    there = {column: name for column, name in form.columns.items() if name in opened.names}
    # Lists of words are details, which the readers join.
    table = opened.read({"item": there["item"]}, options={}, rest=True)
    item = pc.cast(table.columns["item"], pa.string())
    wanted = {"item": item}
    for column, name in there.items():
        if column != "item" and name in table.columns:
            wanted[column] = pc.fill_null(pc.cast(table.columns[name], pa.string()), "")
    table = keep(dataclasses.replace(table, columns=wanted), pc.is_in(item, seen).to_numpy())
    empty = pa.chunked_array([pa.array([""] * len(table), pa.string())])
    columns = {column: table.columns.get(column, empty) for column in form.columns if column not in form.text}
    text = sentences([table.columns[column] for column in ("title", *form.text) if column in there])
    return dataclasses.replace(table, columns={**columns, "text": text})
