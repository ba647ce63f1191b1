"""A CSV or Parquet file with one row per interaction, and optionally a second file with one row per item."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Interactions
from metarec_jax.data import vectors
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.columns import read_parquet, read_text
from metarec_jax.data.sources.folder import read_file
from metarec_jax.data.sources.source import register_source
from metarec_jax.data.values import Table

_TEXTS = ("text", "title", "name", "description")  # usual names of a column of item texts, the first that is there
_TITLES = ("title", "name")


@register_source("table")
def load(config: DataConfig, seed: int = 0) -> Interactions:
    """`read` the table of a config; `seed` is not used."""
    return read(config)


def read(config: DataConfig, scale: Scale | None = None) -> Interactions:
    """Read the table at ``config.path`` as ``config.columns`` says.

    Args:
        config: of the table.
        scale: the ratings that are allowed; None derives it from the ratings.

    Returns:
        The interactions.

    Raises:
        MetarecError: a file or column is missing or not valid.
    """
    path, columns = Path(config.path).expanduser(), config.columns
    named = {
        "user": columns.user,
        "item": columns.item,
        "rating": columns.rating,
        "time": columns.time,
        "user_text": columns.user_text,
    }
    if not config.items_path:
        named["item_text"] = columns.item_text
    for needed in ("user", "item"):
        if not named[needed]:
            raise MetarecError(f"--data.columns.{needed} is empty: name the column that holds the {needed}'s id")
    if not columns.rating and config.kind == "rating":
        raise MetarecError(
            "--data.columns.rating is empty, so every row is a click: say --data.kind click too, or name the column"
        )
    if (config.vectors or columns.item_vector) and not config.items_path:
        raise MetarecError("vectors of items need a file with one row an item: give --data.items-path FILE")
    ratings = _table(path, "--data.path", {column: name for column, name in named.items() if name})
    items = _items(Path(config.items_path).expanduser(), config) if config.items_path else None
    source = f"the table {path}" + (f" with the items of {config.items_path}" if config.items_path else "")
    return build(ratings, items=items, kind=config.kind, scale=scale, source=source)


def _table(
    path: Path, option: str, columns: dict[str, str], *, choosable: Collection[str] = (), rest: bool = False
) -> Table:
    options = {column: f"--data.columns.{column.replace('_', '-')}" for column in choosable or columns}
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
