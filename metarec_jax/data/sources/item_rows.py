"""The items that a table of interactions names, from a catalogue of more, or of fewer, items."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from metarec_jax.core.errors import MetarecError
from metarec_jax.data.sources.stacked import keep
from metarec_jax.data.values import Table, distinct

pc: Any = pyarrow.compute  # whose functions type checkers do not know


def named_items(ratings: Table) -> pa.Array:
    """Return the distinct ids of the items of a table of interactions, as strings."""
    return pc.cast(pc.unique(ratings.columns["item"]), pa.string())


def complete(items: Table, ratings: Table) -> Table:
    """Select the items of a catalogue that a table of interactions names.

    Args:
        items: columns of strings: item, title, text and details.
        ratings: the interactions.

    Returns:
        The first row of each item that `ratings` names, then a blank row for each that is not in the catalogue, with
        notes.

    Raises:
        MetarecError: the catalogue has none of the items.
    """
    seen = named_items(ratings)
    found = keep(items, pc.is_in(items.columns["item"], seen).to_numpy())
    if not len(found):
        raise MetarecError(f"{items.name} has none of the items of {ratings.name}: give files of the same release")
    one = np.zeros(len(found), bool)
    one[np.unique(distinct(found, "item")[0], return_index=True)[1]] = True
    found = keep(found, one, "repeat an item, the first row of which is read")
    missing = pc.filter(seen, pc.invert(pc.is_in(seen, pc.unique(found.columns["item"]))))
    if not len(missing):
        return found
    blank = pa.array([""] * len(missing), pa.string())
    rows, place = len(found), found.place
    note = f"{found.name}: {len(missing):,} of {len(seen):,} items of the interactions are not in it"
    return dataclasses.replace(
        found,
        columns={
            name: pa.chunked_array([*values.chunks, missing if name == "item" else blank])
            for name, values in found.columns.items()
        },
        place=lambda row: place(row) if row < rows else f"item {row + 1} of the interactions",
        notes=(*found.notes, note),
    )


def sentences(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Join columns of strings row by row, as sentences: "Title. Description."; blank values are left out.

    Args:
        parts: columns of strings without missing values; at least one.

    Returns:
        The texts.
    """
    ended = []
    for part in map(pc.utf8_trim_whitespace, parts):
        stop = pc.if_else(pc.match_substring_regex(part, r"[.!?]$"), " ", ". ")
        ended.append(pc.if_else(pc.equal(part, ""), "", pc.binary_join_element_wise(part, stop, "")))
    return pc.utf8_trim_whitespace(pc.binary_join_element_wise(*ended, ""))
