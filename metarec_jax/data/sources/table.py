"""Data source that reads a table with one row per interaction, and optionally one with one row per item."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, overload

from metarec_jax.config.data import SEPARATORS, Columns, DataConfig
from metarec_jax.core.errors import MetarecError, listed
from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Interactions
from metarec_jax.data import vectors
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.dialect import Format
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.folder import read_table_file
from metarec_jax.data.sources.frame import FrameTable
from metarec_jax.data.sources.json_lines import JsonLineBatches, JsonLines
from metarec_jax.data.sources.parquet import MAGIC, ParquetTable
from metarec_jax.data.sources.source import register_source
from metarec_jax.data.sources.text import TextTable
from metarec_jax.data.store.batches import Batches
from metarec_jax.data.values import Table

OpenTable = TextTable | JsonLines | ParquetTable | FrameTable
_TEXTS = ("text", "title", "name", "description")  # usual names of the column of item texts, in order of preference
_TITLES = ("title", "name")
_USUAL = Columns()
_IMAGE = {"item_image": "--data.columns.image {}"}
_ORDER = {"user": "1", "item": "2", "rating": "3", "time": "4"}
"""Numbers of the columns in a table without a header, in the order of MovieLens and of most published tables."""


@register_source("table")
def load(config: DataConfig, seed: int = 0) -> Interactions:
    """Read the table of a config.

    Args:
        config: options of the data.
        seed: not used.

    Returns:
        The interactions.

    Raises:
        MetarecError: a file or column is missing or not valid.
    """
    return read(config)


def load_frame(frame: Any, config: DataConfig, items: Any = None) -> Interactions:
    """Read a table in memory.

    Args:
        frame: a table that `FrameTable` reads.
        config: options of the data; ``config.path`` is not used.
        items: a table with one row per item, in memory; None reads ``config.items_path``, if it is given.

    Returns:
        The interactions.

    Raises:
        MetarecError: the table cannot be read, or a column is missing or not valid.
    """
    opened = FrameTable(frame)
    named = named_columns(config, "the entry {!r} of columns", items=items is not None)
    absent = {"time": " (or '' if there is none)", "user_text": " (or '')", "rating": " (or '', with kind='click')"}
    options = {column: f"columns={{{{{column!r}: '{{}}'}}}}{absent.get(column, '')}" for column in named}
    ratings = read_ratings(opened, named, config, options)
    of_items = FrameTable(items, "the table of items") if items is not None else _items_file(config)
    table = None if of_items is None else _items(of_items, config)
    return build(
        ratings, items=table, kind=config.kind, source=opened.sentence, layout=opened.sentence, repeats=config.repeats
    )


def read(config: DataConfig, scale: Scale | None = None, option: str = "--data.path") -> Interactions:
    """Read the columns that ``config.columns`` names from the table at ``config.path``.

    Args:
        config: options of the data.
        scale: scale of the ratings of a trained model; None derives it from the ratings.
        option: command-line option that names the file, for messages.

    Returns:
        The interactions.

    Raises:
        MetarecError: a file or column is missing or not valid.
    """
    path = Path(config.path).expanduser()
    named = named_columns(config, "--data.columns.{}", trained=scale is not None)
    opened = open_table(read_table_file(path, option), text_format(config), list(named.values()))
    ratings = read_ratings(opened, named, config, _options(named, trained=scale is not None))
    return build(ratings, kind=config.kind, scale=scale, repeats=config.repeats, **_beside(opened, config))


def batches(config: DataConfig) -> Batches | None:
    """The table at ``config.path`` in batches, for a row store.

    Args:
        config: options of the data.

    Returns:
        The batches; None if the table has to be read as a whole.

    Raises:
        MetarecError: a file or column is missing or not valid. `read` names the place.
    """
    named = named_columns(config, "--data.columns.{}")
    if {"item_text", "user_text"} & set(named):
        return None
    file = read_table_file(Path(config.path).expanduser(), "--data.path")
    opened = open_table(file, text_format(config), list(named.values()), in_batches=True)
    named, notes = _present(opened, named, config)
    tables, done = opened.batches(named)
    return Batches(
        tables, opened.size, done, kind=config.kind, repeats=config.repeats, notes=notes, **_beside(opened, config)
    )


def _beside(opened: OpenTable | JsonLineBatches, config: DataConfig) -> dict[str, Any]:
    """The arguments of `build` beside the ratings: the items, and sentences on the files."""
    items, layout = None, f"{opened.name}: {opened.sentence}"
    if of_items := _items_file(config):
        items, layout = _items(of_items, config), f"{layout}; {of_items.name}: {of_items.sentence}"
    path = Path(config.path).expanduser()
    source = f"the table {path}" + (f" with the items of {config.items_path}" if config.items_path else "")
    return {"items": items, "layout": layout, "source": source}


def text_format(config: DataConfig) -> Format:
    """Known properties of the text table that a config describes."""
    return Format(
        SEPARATORS.get(config.separator, config.separator),
        config.header,
        config.quoting,
        config.escape,
        config.encoding,
        config.decimal,
    )


def _items_file(config: DataConfig) -> OpenTable | None:
    """Open the item file of a config: its separator is detected, and it has a header; None if there is none."""
    if not config.items_path:
        return None
    file = read_table_file(Path(config.items_path).expanduser(), "--data.items-path")
    return open_table(file, text_format(config)._replace(separator="", header="yes"))


@overload
def open_table(
    file: File, known: Format, wanted: Collection[str] = ..., *, in_batches: Literal[True]
) -> TextTable | JsonLineBatches | ParquetTable: ...


@overload
def open_table(file: File, known: Format, wanted: Collection[str] = ...) -> OpenTable: ...


def open_table(
    file: File, known: Format, wanted: Collection[str] = (), *, in_batches: bool = False
) -> OpenTable | JsonLineBatches:
    """Open a table in any supported format, which is detected from the first bytes or the suffix ".parquet".

    Args:
        file: content of the file.
        known: known properties of a text table.
        wanted: names of the columns that are read, if not all are.
        in_batches: whether the table is to be read in batches, and not as a whole.

    Returns:
        The open table.

    Raises:
        MetarecError: the file is one JSON array, or is not valid in its format.
    """
    if file.data[:4] == MAGIC or file.name.lower().endswith(".parquet"):
        return ParquetTable(file)
    start = re.match(rb"\s*(\{|\[\s*\{)", re.sub(rb"[\0\xef\xbb\xbf\xfe\xff]", b"", file.data[:256]))
    if start and start.group(1) != b"{":
        raise MetarecError(
            f"{file.name} is one JSON array: write one object a line (df.to_json(orient='records', lines=True) does)"
        )
    if start and in_batches:
        return JsonLineBatches(file, known.encoding, wanted)
    return JsonLines(file, known.encoding, wanted=wanted) if start else TextTable(file, known, list(wanted))


def named_columns(config: DataConfig, option: str, *, trained: bool = False, items: bool = False) -> dict[str, str]:
    """Return the columns of a table of interactions.

    Args:
        config: options of the data.
        option: how a user names the column ``{}``, for messages.
        trained: whether the kind is that of a trained model, which no option changes.
        items: whether there is a table of items without a path.

    Returns:
        Column of `build` -> its name in the table, for the columns that have a name.

    Raises:
        MetarecError: a required column has no name.
    """
    columns = config.columns
    for column, name in (("user", columns.user), ("item", columns.item)):
        if not name:
            raise MetarecError(f"{option.format(column)} is empty: name the column that holds the {column}'s id")
    if not columns.rating and config.kind == "rating" and config.repeats != "sum":
        remedy = (
            "these are ratings: name the column"
            if trained
            else "say --data.kind click too, or name the column (--data.repeats sum counts the rows of a user and an "
            "item as the rating)"
        )
        raise MetarecError(f"{option.format('rating')} is empty, so every row is a click: {remedy}")
    if (config.vectors or columns.item_vector or columns.image) and not (config.items_path or items):
        what = "pictures" if columns.image else "vectors"
        raise MetarecError(f"{what} of items need a file with one row an item: give --data.items-path FILE")
    named = {
        "user": columns.user,
        "item": columns.item,
        "rating": columns.rating,
        "time": columns.time,
        "user_text": columns.user_text,
    }
    if not (config.items_path or items):
        named["item_text"] = columns.item_text
    return {column: name for column, name in named.items() if name}


def read_ratings(opened: OpenTable, named: dict[str, str], config: DataConfig, options: Mapping[str, str]) -> Table:
    """Read the columns of interactions from an open table.

    Args:
        opened: the table.
        named: result of `named_columns`.
        config: options of the data.
        options: how a user names each column, for messages, as for `metarec_jax.data.sources.columns.select`.

    Returns:
        The columns, with notes on columns that are missing.

    Raises:
        MetarecError: a column is missing, or cannot be read.
    """
    named, notes = _present(opened, named, config)
    ratings = opened.read(named, options=options)
    return dataclasses.replace(ratings, notes=(*notes, *ratings.notes))


def _present(
    opened: OpenTable | JsonLineBatches, named: dict[str, str], config: DataConfig
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the columns to read, without missing ones of default names, and a note on each changed column."""
    columns, clicks = config.columns, config.kind == "click" or config.repeats == "sum"
    if not opened.header and (columns.user, columns.item) == (_USUAL.user, _USUAL.item):
        usual = {c: n for c, n in named.items() if c in _ORDER and n == getattr(_USUAL, c)}
        if not 2 <= len(opened.names) <= 4:
            raise MetarecError(
                f"{opened.name} has no header line and {len(opened.names)} columns: say which they are by their "
                "numbers, as --data.columns.user 1 --data.columns.item 2 --data.columns.rating 3 --data.columns.time 4 "
                "('' for one that is not there), or --data.header yes if its first line names them"
            )
        found = {c: _ORDER[c] if c in usual else n for c, n in named.items()}
        # Times and clicks may be missing; where ratings are, they are asked for.
        found = {c: n for c, n in found.items() if n in opened.names or not (c == "time" or (c == "rating" and clicks))}
        note = f"{opened.name} has no header: its columns are taken for {', '.join(c for c in _ORDER if c in found)}"
        named, notes = found, (f"{note} (--data.columns.user 1 and the like name others)",)
    else:
        notes = ()
    for column, usual_name, may in (("time", _USUAL.time, True), ("rating", _USUAL.rating, clicks)):
        if may and named.get(column) == usual_name and usual_name not in opened.names:
            named = {c: n for c, n in named.items() if c != column}
            without = "rows have no times" if column == "time" else "every row counts as 1"
            note = f"{opened.name} has no column {usual_name!r}, so {without} (--data.columns.{column} names one)"
            notes = (*notes, note)
    return named, notes


def _options(columns: Collection[str], *, trained: bool = False) -> dict[str, str]:
    """Return the command-line option of each column, with {} for its name, and what to write if there is none."""
    absent = {"time": ", or '' where there is none", "user_text": ", or '' where there is none"}
    if not trained:
        absent["rating"] = ", or '' and --data.kind click where every row is a click"
    return {c: f"--data.columns.{c.replace('_', '-')} {{}}{absent.get(c, '')}" for c in columns}


def _items(opened: OpenTable, config: DataConfig) -> Table:
    """Read the item table for `build`: text, title (by default the text), vector, and other columns as details."""
    # Columns of ratings without a header are named by numbers; the item table always has a header.
    columns = {"item": _USUAL.item if config.columns.item.isdecimal() else config.columns.item}
    if config.columns.item in opened.names:
        columns["item"] = config.columns.item
    if config.columns.item_text:
        columns["item_text"] = config.columns.item_text
    if config.columns.item_vector:
        columns["item_vector"] = config.columns.item_vector
    if config.columns.image:
        columns["item_image"] = config.columns.image
    # --data.columns.item names the column in both files, so a message about this file cannot recommend it.
    table = opened.read(columns, options=_options(("item_text", "item_vector")) | _IMAGE, rest=True)
    details = {name: values for name, values in table.columns.items() if name not in columns}
    if "item_text" in table.columns:
        text = table.columns["item_text"]
    else:
        name = next((name for name in _TEXTS if name in details), next(iter(details)) if len(details) == 1 else "")
        if not name:
            raise MetarecError(
                f"{opened.name} has no column called {' or '.join(_TEXTS)}; it has {listed(opened.names)}: name the "
                "one that the encoder reads with --data.columns.item-text NAME"
            )
        text = details[name]
    title = next((details[name] for name in _TITLES if name in details), text)
    reserved = ("item", "title", "text", "item_vector", "item_picture")  # names that have another meaning in `build`
    kept = {n: v for n, v in details.items() if v is not text and v is not title and n not in reserved}
    kept |= {"item": table.columns["item"], "title": title, "text": text}
    if config.columns.item_vector:
        kept["item_vector"] = vectors.from_column(table, "item_vector")
    if config.vectors:
        kept["item_vector"] = vectors.from_file(config.vectors, len(table))
    if config.columns.image:
        from metarec_jax.data.sources import item_pictures  # imported here because JAX is slow to import

        found = item_pictures.read(table, "item_image", config)
        kept |= {"item_vector": found.vectors, "item_picture": found.small}
    return dataclasses.replace(table, columns=kept)
