"""A CSV or Parquet file with one row per interaction, and optionally a second file with one row per item."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions, Kind
from metarec_jax.data import values, vectors
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.columns import read_parquet, read_text
from metarec_jax.data.sources.folder import read_file
from metarec_jax.data.sources.source import register_source
from metarec_jax.data.values import Table

_TEXTS = ("text", "title", "name", "description")  # usual names of a column of item texts, the first that is there
_TITLES = ("title", "name")

_ABSENT = {  # the option for a file that has no such column
    "time": ", or '' where there is none",
    "rating": ", or '' and --data.kind click where every row is a click",
}


@register_source("table")
def load(config: DataConfig, seed: int = 0) -> Interactions:
    """Read the table at ``config.path`` with the columns that ``config.columns`` names.

    Args:
        config: paths and columns.
        seed: not used.

    Returns:
        The data set.

    Raises:
        MetarecError: a file or column is missing or not valid.
    """
    path, columns = Path(config.path).expanduser(), config.columns
    named = interaction_columns(columns, config.kind, "--data.columns.{}")
    if config.items_path:
        named.pop("item_text", None)
    if (config.vectors or columns.item_vector) and not config.items_path:
        raise MetarecError("vectors of items need a file with one row an item: give --data.items-path FILE")
    ratings = _table(path, "--data.path", named)
    items = _items(Path(config.items_path).expanduser(), config) if config.items_path else None
    source = f"the table {path}" + (f" with the items of {config.items_path}" if config.items_path else "")
    return build(ratings, items=items, kind=config.kind, source=source)


def load_users(path: Path, columns: Columns, kind: Kind, low: float, high: float) -> Interactions:
    """Read interactions of new users with a trained model: their ratings need not have levels, nor differ.

    Args:
        path: a CSV or Parquet file with one row per interaction.
        columns: names of its columns; texts of items are not read.
        kind: "rating" or "click".
        low, high: least and greatest rating of the model's scale.

    Returns:
        The data set, whose items are those of the file.

    Raises:
        MetarecError: the file or a column is missing, or a value is not valid.
    """
    named = interaction_columns(columns, kind, "--data.columns.{}", trained=True)
    named.pop("item_text", None)
    return build(_table(path, "--users", named), kind=kind, scale=values.Scale((), low, high), source=str(path))


def interaction_columns(columns: Columns, kind: Kind, option: str, *, trained: bool = False) -> dict[str, str]:
    """Choose the columns of a table of interactions.

    Args:
        columns: their names.
        kind: "rating" or "click".
        option: how a user names the column ``{}``, for messages.
        trained: whether `kind` is that of a trained model, which no option changes.

    Returns:
        Column of `build` -> its name in the table; without those that the table does not have.

    Raises:
        MetarecError: a column that is needed has no name.
    """
    named = {
        "user": columns.user,
        "item": columns.item,
        "rating": columns.rating,
        "time": columns.time,
        "user_text": columns.user_text,
        "item_text": columns.item_text,
    }
    for needed in ("user", "item"):
        if not named[needed]:
            raise MetarecError(f"{option.format(needed)} is empty: name the column that holds the {needed}'s id")
    if not columns.rating and kind == "rating":
        remedy = "these are ratings: name the column" + ("" if trained else ", or say --data.kind click too")
        raise MetarecError(f"{option.format('rating')} is empty, so every row is a click, but {remedy}")
    return {column: name for column, name in named.items() if name}


def _table(
    path: Path, option: str, columns: dict[str, str], *, choosable: Collection[str] = (), rest: bool = False
) -> Table:
    options = {column: f"--data.columns.{column.replace('_', '-')} {{}}" for column in choosable or columns}
    for column, absent in _ABSENT.items():
        if column in options and (column, option) != ("rating", "--users"):
            options[column] += absent
    if not path.exists():
        raise MetarecError(f"{option} {path}: there is no such file")
    file = read_file(path)
    if path.suffix.lower() == ".parquet":
        return read_parquet(file, columns, options=options, rest=rest)
    return read_text(file, columns, quoted=True, options=options, rest=rest)


def _items(path: Path, config: DataConfig) -> Table:
    """The item table of `build`: text, title (or the text again), vector, and all other columns as details."""
    columns = {"item": config.columns.item}
    if config.columns.item_text:
        columns["item_text"] = config.columns.item_text
    if config.columns.item_vector:
        columns["item_vector"] = config.columns.item_vector
    # --data.columns.item names the column in both files, so a message about this file cannot recommend it.
    table = _table(path, "--data.items-path", columns, choosable=("item_text", "item_vector"), rest=True)
    details = {name: values for name, values in table.columns.items() if name not in columns}
    if "item_text" in table.columns:
        text = table.columns["item_text"]
    else:
        name = next((name for name in _TEXTS if name in details), next(iter(details)) if len(details) == 1 else "")
        if not name:
            raise MetarecError(
                f"{path} has no column called {' or '.join(_TEXTS)}; it has {', '.join(table.labels.values())}: name "
                "the one that the encoder reads with --data.columns.item-text NAME"
            )
        text = details[name]
    title = next((details[name] for name in _TITLES if name in details), text)
    reserved = ("item", "title", "text", "item_vector")  # names that have another meaning in `build`
    shown = {n: v for n, v in details.items() if v is not text and v is not title and n not in reserved}
    shown |= {"item": table.columns["item"], "title": title, "text": text}
    if config.columns.item_vector:
        shown["item_vector"] = vectors.from_column(table, "item_vector")
    if config.vectors:
        shown["item_vector"] = vectors.from_file(config.vectors, len(table))
    return dataclasses.replace(table, columns=shown)
