"""Some rows of a data set as ranges of consecutive rows, in memory that grows with the ranges and not with the rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metarec_jax.core.stored_columns import OwnerColumn, StoredColumn, blocks


class Ranges(StoredColumn):
    """Row numbers, int64, one range after the other.

    Args:
        first: int [ranges], the first row of each range.
        count: int [ranges], its number of rows; empty ranges are left out.
    """

    def __init__(self, first: np.ndarray, count: np.ndarray) -> None:
        kept = np.asarray(count) > 0
        self._first, self._count = (np.asarray(part, np.int64)[kept] for part in (first, count))
        self._range = OwnerColumn(np.append(0, np.cumsum(self._count)))
        self._shift = self._first - self._range.offsets[:-1]
        super().__init__(len(self._range), np.int64, self._rows)

    def _rows(self, places: slice | np.ndarray) -> np.ndarray:
        return self._shift[self._range[places]] + _numbers(places)

    def holds(self, rows: int) -> StoredColumn:
        """Whether each row of a table is in a range; the ranges must be ascending, and none may overlap.

        Args:
            rows: number of rows of the table.

        Returns:
            The answers, bool [rows].
        """
        first, last = self._first, self._first + self._count

        def held(some: slice | np.ndarray) -> np.ndarray:
            number = _numbers(some)
            return np.searchsorted(first, number, "right") > np.searchsorted(last, number, "right")

        return StoredColumn(rows, bool, held)


Selection = np.ndarray | Ranges
"""Row numbers, int64: an array, or of a data set in files ranges."""


def _numbers(rows: slice | np.ndarray) -> np.ndarray:
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


def expand(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Number the rows of ranges.

    Args:
        first: int [ranges], the first row of each range.
        count: int [ranges], its number of rows.

    Returns:
        int64 [sum of `count`], one range after the other.

    >>> expand(np.array([7, 2]), np.array([2, 3]))
    array([7, 8, 2, 3, 4])
    """
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(int(np.sum(count)))


def runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last (exclusive) index of each run of equal values; none of an empty array.

    >>> runs(np.array([5, 5, 2]))
    (array([0, 2]), array([2, 3]))
    """
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
    return starts, np.append(starts[1:], len(values))[: len(starts)]


def holds(rows: Selection, total: int) -> np.ndarray | StoredColumn:
    """Whether each row of a table is selected.

    Args:
        rows: the selected rows, ascending.
        total: number of rows of the table.

    Returns:
        bool [total].
    """
    if isinstance(rows, Ranges):
        return rows.holds(total)
    found = np.zeros(total, bool)
    found[rows] = True
    return found


def where(rows: Selection, keep: Callable[[np.ndarray], np.ndarray]) -> Selection:
    """Keep some of the selected rows.

    Args:
        rows: row numbers.
        keep: function of row numbers, int64 [n], to bool [n].

    Returns:
        The kept ones in their order, as an array of an array and as ranges of ranges.
    """
    if not isinstance(rows, Ranges):
        return rows[keep(rows)]
    first, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for some in blocks(len(rows)):
        found = rows[some]
        found = found[keep(found)]
        begin, end = runs(found - np.arange(len(found)))
        first.append(found[begin])
        count.append(end - begin)
    return Ranges(np.concatenate(first), np.concatenate(count))
