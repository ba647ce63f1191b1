"""A matrix in a file, of which only the rows that are asked for are read."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

RESIDENT = 1 << 31
"""Bytes of pages that are kept in this process, about; a smaller file stays in memory once it was read."""
_AROUND = 1 << 16
"""Bytes that the system maps around a page that is read."""
_BLOCK = 1 << 24


class MappedRows:
    """A matrix that is mapped into memory; its pages count to the process only for a while after they were read.

    Args:
        path: the file.
        offset: byte at which the matrix begins, with its rows one after the other.
        shape: of the matrix.
        dtype: of its numbers.

    Attributes:
        shape, dtype: as given.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self._rows = np.memmap(path, dtype, "r", offset, shape)
        self._touched = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Shaped[np.ndarray, ...]:
        """Copies of rows by number or slice."""
        found = np.array(self._rows[rows])
        self._touched += found.nbytes
        if not isinstance(rows, slice):
            self._touched += found.size // self.shape[1] * _AROUND
        if self._touched > RESIDENT and self._rows.nbytes > RESIDENT:
            self._touched = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self._rows._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined] # the pages stay in the file
        return found

    def blocks(self) -> Iterator[Shaped[np.ndarray, "some columns"]]:
        """Yield all rows in order, some at a time."""
        step = max(1, _BLOCK // max(1, self.shape[1] * self.dtype.itemsize))
        for start in range(0, len(self), step):
            yield self[start : start + step]
