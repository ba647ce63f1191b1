"""Rows of tables: those of several files as one table, and those that are kept, with the place of each in its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from metarec_jax.data.values import Table


def stack(name: str, tables: Sequence[Table]) -> Table:
    """Concatenate tables.

    Args:
        name: name of the folder of the tables' files, for messages about more than one.
        tables: tables with the same columns; at least one.

    Returns:
        One table. Places of its rows name their files if there is more than one.
    """
    if len(tables) == 1:
        return tables[0]
    starts = np.cumsum([0, *(len(table) for table in tables)])

    def place(row: int) -> str:
        n = int(np.searchsorted(starts, row, "right")) - 1
        return f"{tables[n].name}, {tables[n].place(row - int(starts[n]))}"

    kinds = {column: {table.columns[column].type for table in tables} for column in tables[0].columns}
    columns = {}
    for column, types in kinds.items():
        parts = [table.columns[column] for table in tables]
        if len(types) > 1:
            parts = [part.cast(pa.string()) for part in parts]
        columns[column] = pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
    notes = tuple(note for table in tables for note in table.notes)
    return dataclasses.replace(tables[0], name=name, columns=columns, place=place, notes=notes)


def keep(table: Table, kept: np.ndarray, note: str = "") -> Table:
    """Keep some rows of a table.

    Args:
        table: the table, of pyarrow columns.
        kept: bool [rows], the rows that stay.
        note: why others are left out, after "7 of 10 rows"; "" for no note.

    Returns:
        The rows; a row's place is that in the file.
    """
    if kept.all():
        return table
    rows, place = np.flatnonzero(kept), table.place
    mask = pa.array(kept)
    left_out = f"{table.name}: {len(kept) - len(rows):,} of {len(kept):,} rows {note}: they are left out"
    return dataclasses.replace(
        table,
        columns={column: values.filter(mask) for column, values in table.columns.items()},
        place=lambda row: place(int(rows[row])),
        notes=(*table.notes, left_out) if note else table.notes,
    )
