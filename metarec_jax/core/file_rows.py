"""A matrix in a file, of which only the rows that are asked for are read."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from metarec_jax.core.errors import MetarecError

RESIDENT = 1 << 31
"""Bytes of a matrix up to which it is mapped into memory, where it stays once it was read."""
_BLOCK = 1 << 24


class FileRows:
    """A matrix that stays in its file.

    A small one is mapped into memory. Of a larger one each row is read by itself: the pages of a mapping would count to
    the process, and a system may map megabytes around a page that is read.

    Args:
        path: the file.
        offset: byte at which the matrix begins, with its rows one after the other.
        shape: of the matrix.
        dtype: of its numbers.

    Attributes:
        shape, dtype: as given.

    Raises:
        MetarecError: the file ends before the matrix does.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self._path, self._offset, self._width = path, offset, shape[1] * dtype.itemsize
        if path.stat().st_size < offset + shape[0] * self._width:
            raise self._too_short()
        small = shape[0] * self._width <= RESIDENT
        self._mapped = np.memmap(path, dtype, "r", offset, shape) if small else None
        if not small:
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Shaped[np.ndarray, ...]:
        """Copies of rows by number, array of numbers, slice or mask.

        Raises:
            IndexError: there is no such row.
            MetarecError: the file was made shorter.
        """
        if self._mapped is not None:
            return np.array(self._mapped[rows])
        first, last, step = rows.indices(len(self)) if isinstance(rows, slice) else (0, 0, 0)
        if step == 1:
            found = np.empty((max(0, last - first), self.shape[1]), self.dtype)
            self._read(found.reshape(-1).view(np.uint8).data, first)
            return found
        wanted = np.arange(first, last, step) if step else np.asarray(rows)
        wanted = np.flatnonzero(wanted) if wanted.dtype == bool else wanted
        outside = (wanted < -len(self)) | (wanted >= len(self))
        if outside.any():
            raise IndexError(f"row {wanted[outside][0]} of {self._path}, which has {len(self):,} rows")
        found = np.empty((wanted.size, self.shape[1]), self.dtype)
        bytes_, width = found.reshape(-1).view(np.uint8).data, self._width
        for place, row in enumerate((wanted.ravel() % len(self)).tolist()):
            self._read(bytes_[place * width : (place + 1) * width], row)
        return found.reshape(*wanted.shape, self.shape[1])

    def blocks(self) -> Iterator[Shaped[np.ndarray, "some columns"]]:
        """Yield all rows in order, some at a time."""
        step = max(1, _BLOCK // max(1, self._width))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def _read(self, into: memoryview, row: int) -> None:
        """Fill `into` with the bytes of the rows from `row` on."""
        place = self._offset + row * self._width
        while into:
            count = os.preadv(self._file, (into,), place)
            if not count:
                raise self._too_short()
            into, place = into[count:], place + count

    def _too_short(self) -> MetarecError:
        return MetarecError(f"{self._path} ends before its matrix of {len(self):,} rows does: restore it from a copy")
