"""Columns of a data set that are kept in files, and decoded where rows are asked for.

A `StoredColumn` takes the place of a NumPy array of one dimension: it is indexed as one, NumPy's functions accept it
(they read all of it), and comparisons and arithmetic run over it in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BLOCK = 1 << 20
"""Rows that are decoded at a time."""


def blocks(rows: int, size: int = 0) -> Iterator[slice]:
    """Cut a number of rows into slices.

    Args:
        rows: number of rows.
        size: rows of a slice, of which the last may have fewer; 0 is `BLOCK`.

    Yields:
        The slices, in order.

    >>> list(blocks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    size = size or BLOCK
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


class StoredColumn(np.lib.mixins.NDArrayOperatorsMixin):
    """A column whose values are computed for the rows that are asked for.

    Args:
        length: number of rows.
        dtype: of the values.
        take: function of a slice of step 1, or of an int64 array of rows of any shape, to the values of these rows.

    Attributes:
        dtype: of the values.
        shape: the number of rows, as a tuple of one.
    """

    ndim = 1

    def __init__(self, length: int, dtype: Any, take: Callable[[Any], np.ndarray]) -> None:
        self.dtype, self.shape, self._take = np.dtype(dtype), (length,), take

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self)

    def __getitem__(self, rows: Any) -> Any:
        """The values of some rows: a number, a slice, a mask or an array of rows, as for an array."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._take(slice(start, max(start, stop)) if step == 1 else np.arange(start, stop, step))
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != self.shape:
                raise IndexError(f"a mask of shape {index.shape} for {len(self)} rows")
            index = np.flatnonzero(index)
        index = index.astype(np.int64, copy=False)
        if index.size and (index.min() < -len(self) or index.max() >= len(self)):
            raise IndexError(f"rows {index.min()} to {index.max()} of {len(self)}")
        if index.size and index.min() < 0:
            index = np.where(index < 0, index + len(self), index)
        return self._take(index.reshape(-1)).reshape(index.shape) if index.ndim else self._take(index.reshape(1))[0]

    def __iter__(self) -> Iterator[Any]:
        for some in blocks(len(self)):
            yield from self[some]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("values of a stored column are computed, so there is no array of them without a copy")
        found = np.empty(len(self), dtype or self.dtype)
        for some in blocks(len(self)):
            found[some] = self[some]
        return found

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply an elementwise function in blocks; others get arrays."""
        inputs = tuple(x if isinstance(x, np.ndarray | StoredColumn) else np.asarray(x) for x in inputs)
        in_blocks = all(x.shape in ((), self.shape) for x in inputs)
        if method != "__call__" or options or ufunc.nout != 1 or ufunc.signature or not in_blocks or not len(self):
            arrays = (np.asarray(x) if isinstance(x, StoredColumn) else x for x in inputs)
            return getattr(ufunc, method)(*arrays, **options)
        found = None
        for some in blocks(len(self)):
            part = ufunc(*(x[some] if x.shape else x for x in inputs))
            if found is None:
                found = np.empty(len(self), part.dtype)
            found[some] = part
        return found

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        """Return all values as an array.

        Args:
            dtype: of the array.
            copy: not used; the array is always a new one.

        Returns:
            The values.
        """
        return np.asarray(self, dtype)

    def tolist(self) -> list[Any]:
        """Return all values as numbers of Python."""
        return np.asarray(self).tolist()

    def min(self) -> Any:
        """Return the least value."""
        return min(self[some].min() for some in blocks(len(self)))

    def max(self) -> Any:
        """Return the greatest value."""
        return max(self[some].max() for some in blocks(len(self)))

    def any(self) -> bool:
        """Whether a value is not 0."""
        return any(bool(self[some].any()) for some in blocks(len(self)))

    def all(self) -> bool:
        """Whether no value is 0."""
        return all(bool(self[some].all()) for some in blocks(len(self)))


Column = np.ndarray | StoredColumn
"""A column of a data set: in memory, or in a file (`metarec_jax.data.store`)."""


class OwnerColumn(StoredColumn):
    """The owner of each row, where rows are sorted by owner.

    Args:
        offsets: int64 [owners + 1], the first row of each owner, and the number of rows.

    Attributes:
        offsets: as given.
    """

    def __init__(self, offsets: np.ndarray) -> None:
        self.offsets = np.asarray(offsets)
        super().__init__(int(self.offsets[-1]), np.int32, self._owners)

    def of(self, rows: np.ndarray) -> OwnerColumn:
        """Return the owners of some rows (int64 [n], ascending), as a column of `n` rows."""
        return OwnerColumn(np.searchsorted(rows, self.offsets))

    def _owners(self, rows: Any) -> np.ndarray:
        if not isinstance(rows, slice):
            return self._owners_of(rows)
        if rows.start == rows.stop:
            return np.empty(0, np.int32)
        first, last = np.searchsorted(self.offsets, [rows.start, rows.stop - 1], "right") - 1
        count = np.diff(np.clip(self.offsets[first : last + 2], rows.start, rows.stop))
        return np.repeat(np.arange(first, last + 1, dtype=np.int32), count)

    def _owners_of(self, rows: np.ndarray) -> np.ndarray:
        """The owners of rows in any order; of many ascending ones, found by their borders."""
        if len(rows) > 1 and (rows[1:] >= rows[:-1]).all():
            first, last = np.searchsorted(self.offsets, rows[[0, -1]], "right") - 1
            if last - first < len(rows):
                edges = np.searchsorted(rows, self.offsets[first + 1 : last + 1])
                count = np.diff(np.concatenate([[0], edges, [len(rows)]]))
                return np.repeat(np.arange(first, last + 1, dtype=np.int32), count)
        return (np.searchsorted(self.offsets, rows, "right") - 1).astype(np.int32)


def coded(codes: np.ndarray, values: np.ndarray) -> StoredColumn:
    """A column of small codes into a table of values.

    Args:
        codes: uint8 [rows].
        values: [n], the value of each code.

    Returns:
        The column, of the dtype of `values`.
    """
    return StoredColumn(len(codes), values.dtype, lambda rows: values[codes[rows]])


def widened(narrow: np.ndarray, dtype: Any) -> StoredColumn:
    """A column that is stored in a smaller type.

    Args:
        narrow: [rows].
        dtype: of the values that readers get.

    Returns:
        The column.
    """
    return StoredColumn(len(narrow), dtype, lambda rows: np.asarray(narrow[rows]).astype(dtype))


def computed(column: Column, function: Callable[[np.ndarray], np.ndarray], dtype: Any) -> StoredColumn:
    """A column whose values are a function of those of another one.

    Args:
        column: the other one.
        function: function of values [n] to values [n].
        dtype: of the results.

    Returns:
        The column, of the same length.
    """
    return StoredColumn(len(column), dtype, lambda rows: np.asarray(function(np.asarray(column[rows])), dtype))


def picked(column: Column, rows: Column) -> StoredColumn:
    """Some rows of a column, which are read when they are asked for.

    Args:
        column: the column.
        rows: int64 [n], its rows.

    Returns:
        The column of `n` rows.
    """
    return StoredColumn(len(rows), column.dtype, lambda some: np.asarray(column[rows[some]]))


def rows_of(column: Column, rows: Column) -> Column:
    """Some rows of a column: a copy of those of an array in memory, and otherwise a column that reads them.

    Args:
        column: the column.
        rows: int64 [n], its rows.

    Returns:
        The column of `n` rows.
    """
    if isinstance(column, np.ndarray) and not isinstance(column, np.memmap):
        return column[rows]
    return picked(column, rows)


def count_values(column: Column, least: int = 0) -> np.ndarray:
    """Count how often each number is in a column, as `np.bincount` does.

    Args:
        column: int [rows], not negative.
        least: least length of the result.

    Returns:
        int64 [greatest number + 1, or `least` if that is more].
    """
    count = np.zeros(least, np.int64)
    for some in blocks(len(column)):
        found = np.bincount(column[some], minlength=len(count))
        found[: len(count)] += count
        count = found
    return count


def mean_and_deviation(column: Column) -> tuple[float, float]:
    """Mean and standard deviation of a column, in float64.

    Sums are taken in the pairs in which NumPy adds an array, so the result does not depend on where the column is.

    Args:
        column: float [rows].

    Returns:
        Mean and standard deviation; zeros without rows.
    """
    rows = len(column)
    if not rows:
        return 0.0, 0.0
    mean = _total(lambda some: np.asarray(column[some], np.float64), 0, rows) / rows
    return mean, float(np.sqrt(_total(lambda some: np.square(column[some] - np.array([mean])), 0, rows) / rows))


def _total(values: Callable[[slice], np.ndarray], first: int, rows: int) -> float:
    if rows <= BLOCK:
        return float(np.add.reduce(values(slice(first, first + rows))))
    half = rows // 2
    half -= half % 8
    return _total(values, first, half) + _total(values, first + half, rows - half)
