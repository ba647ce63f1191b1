"""The forms in which callers give a history: pairs, mappings, series and tables of items and ratings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from metarec_jax.core.arguments import with_type
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.errors import InputError

_IDS, _NAMES = ("item_id",), ("item", "title")
"""Names of the column of items in a table: by id, and by title or id."""
FORMS = (
    'a list of pairs (item, rating), a mapping such as {"Heat (1995)": 5}, or a table with the columns item_id (or '
    "title) and rating"
)


def pairs_of(history: Any, *, click: bool) -> list[tuple[Any, Any]]:
    """Read a history in any form.

    Args:
        history: pairs, a mapping or a pandas series from items to ratings, or a table (pandas, polars, pyarrow). For a
            run of clicks also a list of items, all of which were clicked.
        click: whether ratings are clicks.

    Returns:
        Items and ratings, unchecked, in the order of `history`.

    Raises:
        MetarecError: another form.
    """
    if isinstance(history, Mapping):
        return list(history.items())
    if hasattr(history, "__arrow_c_stream__") and hasattr(history, "columns"):
        return _of_table(history, click)
    if hasattr(history, "index") and hasattr(history, "items"):
        if type(history.index).__name__ == "RangeIndex":
            raise MetarecError(
                "the history is a series that is numbered from 0: its index must be the items, and its values the "
                "ratings"
            )
        return list(history.items())
    if isinstance(history, str | bytes) or not isinstance(history, Iterable):
        raise MetarecError(f"the history is {with_type(history)}; pass {FORMS}")
    return [_pair(entry, place, click) for place, entry in enumerate(history)]


def _pair(entry: Any, place: int, click: bool) -> tuple[Any, Any]:
    if not isinstance(entry, str | bytes | Mapping | set) and hasattr(entry, "__len__") and len(entry) == 2:
        item, rating = entry
        return item, rating
    if (click and not hasattr(entry, "__len__")) or (click and isinstance(entry, str)):
        return entry, 1.0
    raise InputError(
        f"entry {place} of the history is {with_type(entry)}, and no pair (item, rating): pass {FORMS}", place
    )


def _of_table(table: Any, click: bool) -> list[tuple[Any, Any]]:
    import pyarrow as pa

    try:
        read = pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise MetarecError(f"the history is a table that cannot be read ({str(error)[:200]}): pass {FORMS}") from error
    names = read.column_names
    item = next((name for name in (*_IDS, *_NAMES) if name in names), None)
    if item is None or ("rating" not in names and not click):
        raise MetarecError(
            f"the history is a table with the columns {', '.join(names)[:200]}: name the column of items item_id (or "
            "title), and that of ratings rating"
        )
    items = read.column(item).to_pylist()
    if item in _IDS:
        items = [f"id:{value}" if isinstance(value, str) else value for value in items]
    ratings = read.column("rating").to_pylist() if "rating" in names else [1.0] * len(items)
    return list(zip(items, ratings))
