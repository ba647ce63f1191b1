"""Any data set in RecBole's layout: NAME.inter and (if it is there) NAME.item, tab separated.

Layout: https://recbole.io/docs/user_guide/data/atomic_files.html. The header writes ``name:type``, of the types token,
token_seq, float and float_seq. Interactions may be in NAME.train.inter, NAME.valid.inter and NAME.test.inter.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from metarec_jax.core.errors import MetarecError, listed
from metarec_jax.core.scale import Kind
from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.repeats import Rule
from metarec_jax.data.sources import movielens_recbole
from metarec_jax.data.sources.dialect import Format
from metarec_jax.data.sources.encodings import UTF8_OR_LATIN1
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.item_rows import complete, sentences
from metarec_jax.data.sources.source import register_layout
from metarec_jax.data.sources.stacked import stack
from metarec_jax.data.sources.text import TextTable
from metarec_jax.data.values import Table

_FILMS = {"movie_title", "release_year"}
"""Columns of the items of MovieLens."""


@register_layout("recbole", title="RecBole", marks=("*.inter",), options=("kind", "repeats"))
def read(folder: Folder, *, source: str, kind: Kind, repeats: Rule) -> Interactions:
    """Read atomic files of RecBole.

    Args:
        folder: the files.
        source: value of `Interactions.source`.
        kind: "rating" for the column rating; "click" for the column label or rating, of 0 and 1, or, without one, for
            every row.
        repeats: rule of rows of the same user and item.

    Returns:
        The data set.

    Raises:
        MetarecError: the files have no such columns, or a value is not valid.
    """
    stem = movielens_recbole.data_set(folder)
    catalogue = _open(folder.read(f"{stem}.item")) if f"{stem}.item" in folder else None
    if catalogue and set(catalogue[0].names) >= _FILMS and (kind, repeats) == ("rating", "auto"):
        return movielens_recbole.read(folder, source=source)
    names = [name for name in folder.names if name.startswith(f"{stem}.") and name.endswith(".inter")]
    opened = [_open(folder.read(name))[0] for name in names]
    ratings = stack(f"{folder.path}", [_interactions(one, kind, repeats) for one in opened])
    items = complete(_items(*catalogue, ratings.label("item")), ratings) if catalogue else None
    return build(ratings, items=items, kind=kind, source=source, repeats=repeats)


def _open(file: File) -> tuple[TextTable, dict[str, str]]:
    """Open an atomic file; also return the type of each column."""
    opened = TextTable(file, Format("\t", "yes", "none", encoding=UTF8_OR_LATIN1))
    untyped = [name for name in opened.names if ":" not in name]
    if untyped:
        raise MetarecError(
            f"{file.name}, line 1: {listed(untyped)} has no type: write name:type, such as user_id:token, between tabs"
        )
    types = dict(name.rsplit(":", 1) for name in opened.names)
    opened.names = [name.rsplit(":", 1)[0] for name in opened.names]
    return opened, types


def _interactions(opened: TextTable, kind: Kind, repeats: Rule) -> Table:
    wanted = {"user": "user_id", "item": _item_of(opened.names)}
    rating = next((name for name in ("label", "rating") if name in opened.names and kind == "click"), "rating")
    if rating in opened.names:
        wanted["rating"] = rating
    elif kind == "rating" and repeats != "sum":
        raise MetarecError(
            f"{opened.name} has no column rating:float; it has {listed(opened.names)}: say --data.kind click if its "
            "rows are clicks, or --data.repeats sum to count them"
        )
    if "timestamp" in opened.names:
        wanted["time"] = "timestamp"
    return opened.read(wanted, options={})


def _item_of(names: list[str]) -> str:
    """The column of items of a file: item_id, or the other id, such as artist_id, that follows the user's."""
    if "item_id" in names:
        return "item_id"
    return next((name for name in names if name.endswith("_id") and name != "user_id"), "item_id")


def _items(opened: TextTable, types: dict[str, str], key: str) -> Table:
    """The item table of `build`: the title, then other texts (token_seq); columns of token and float are details."""
    item = key if key in opened.names else _item_of(opened.names)
    kept = [name for name in opened.names if name != item and types[name] != "float_seq"]
    table = opened.read({"item": item, **{f"{n} ": n for n in kept}}, options={})
    values = {name: pc.fill_null(table.columns[f"{name} "], "") for name in kept}
    words = [name for name in kept if types[name].startswith("token")]
    named = [name for name in words if name.lower().endswith(("title", "name"))]
    texts = [name for name in words if types[name] == "token_seq"]
    title = next(iter([*named, *texts]), "")
    blank = pa.chunked_array([pa.array([""] * len(table), pa.string())])
    texts = [title, *(name for name in texts if name != title)] if title else []
    columns = {name: column for name, column in values.items() if name not in (title, "title", "text", "item")}
    columns |= {"item": table.columns["item"], "title": values.get(title, blank)}
    columns["text"] = sentences([values[name] for name in texts]) if texts else blank
    left_out = [name for name in opened.names if types[name] == "float_seq"]
    notes = (f"{opened.name}: left out, since they are lists of numbers: {listed(left_out)}",) if left_out else ()
    return dataclasses.replace(table, columns=columns, notes=(*table.notes, *notes))
