"""Rows of ratings in the order of their owners, sorted in parts that fit in memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np

from metarec_jax.core.row_ranges import runs
from metarec_jax.core.scratch import Scratch
from metarec_jax.core.stored_columns import Column, blocks

SORTED = np.dtype([("owner", "<i4"), ("other", "<i4"), ("value", "<f4")])
"""A row, 12 bytes: owner, other side (``-1 - place`` of a row that is held out), and rating."""
IN_FILES = 1 << 23
"""Rows from which on they are grouped in files and not in memory."""
_PART = 1 << 21
"""Rows that are sorted in memory at a time, about; an owner's rows are sorted together."""


def scratch_for(rows: int, folder: Path | None) -> Scratch:
    """Choose where rows are grouped.

    Args:
        rows: number of rows.
        folder: folder of files; None, or one that cannot be written, takes the one for temporary files.

    Returns:
        In memory for fewer than `IN_FILES` rows, and otherwise in files.
    """
    if rows < IN_FILES:
        return Scratch()
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return Scratch(folder)
    return Scratch(Path(tempfile.gettempdir()))


def sort_by_owner(
    owner: Column, other: Column, value: Column, held: np.ndarray, start: np.ndarray, scratch: Scratch
) -> np.ndarray:
    """Sort rows by owner, those of an owner in the order in which they come.

    Rows are dealt to parts of consecutive owners, and each part is sorted. Both steps read and write from the beginning
    of each part to its end, so that a file that does not fit in memory does well.

    Args:
        owner: int32 [rows].
        other: int32 [rows], place of the other side in its table.
        value: float32 [rows].
        held: bool [rows], whether a row is held out.
        start: int64 [owners + 1], the first row of each owner in the result, and the number of rows.
        scratch: makes the result.

    Returns:
        [rows] of `SORTED`.
    """
    rows = scratch.empty(len(owner), SORTED)
    part_of = start[:-1] // _PART
    parts = int(part_of[-1]) + 1 if len(part_of) else 0
    edges = start[np.searchsorted(part_of, np.arange(parts + 1))]
    at = edges.copy()
    for some in blocks(len(owner)):
        found = np.empty(some.stop - some.start, SORTED)
        found["owner"], found["value"] = owner[some], value[some]
        place = other[some]
        found["other"] = np.where(held[some], -1 - place, place)
        part = part_of[found["owner"]]
        order = np.argsort(part, kind="stable")
        found, part = found[order], part[order]
        for begin, end in zip(*runs(part)):
            to = at[part[begin]]
            rows[to : to + end - begin] = found[begin:end]
            at[part[begin]] += end - begin
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist()):
        some_rows = rows[first:last]
        some_rows[:] = some_rows[np.argsort(some_rows["owner"], kind="stable")]
    return rows
