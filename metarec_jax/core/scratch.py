"""Large temporary arrays, in memory or in files that are gone when the process is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.atomic_files import explained


class Scratch:
    """Makes temporary arrays.

    Args:
        folder: where files are made, without a name; it is created. None keeps all arrays in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept = None
        self._bytes = 0
        if folder is not None:
            with self._file() as file:
                self._kept = _Descriptor(file.fileno())

    def _file(self) -> Any:
        assert self._folder is not None
        with explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=self._folder)

    def empty(self, rows: int, dtype: np.dtype) -> np.ndarray:
        """Make an array that is to be filled.

        Args:
            rows: its length.
            dtype: of its numbers.

        Returns:
            The array, [rows]; a mapped one lasts until nothing refers to it.

        Raises:
            MetarecError: there is no room for the file.
        """
        if self._folder is None or not rows:
            return np.empty(rows, dtype)
        with explained(self._folder), self._file() as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and not a signal when a page is written
                os.posix_fallocate(file.fileno(), 0, rows * dtype.itemsize)
            return np.memmap(file, dtype, "r+", shape=(rows,))

    def keep(self, array: np.ndarray) -> Kept:
        """Keep the content of an array.

        Args:
            array: an array, which is not to be changed afterwards.

        Returns:
            Where it is kept.

        Raises:
            MetarecError: the file cannot be written.
        """
        if self._kept is None:
            return Kept(array)
        array = np.ascontiguousarray(array)
        with explained(self._folder or Path()):
            written = os.pwrite(self._kept.number, array.data, self._bytes)
            while written < array.nbytes:
                written += os.pwrite(self._kept.number, array.view(np.uint8).data[written:], self._bytes + written)
        found = Kept(np.empty(0, array.dtype), self._kept, self._bytes, array.shape)
        self._bytes += array.nbytes
        return found


class _Descriptor:
    """A descriptor of an open file, which is closed when nothing refers to it."""

    def __init__(self, number: int) -> None:
        self.number = os.dup(number)

    def __del__(self) -> None:
        os.close(self.number)


class Kept:
    """An array that is kept in memory or in a file.

    Args:
        array: the array, or an empty one of its dtype.
        file: descriptor of the file; None where the array is in memory.
        place: its first byte in the file.
        shape: its shape.
    """

    def __init__(
        self, array: np.ndarray, file: _Descriptor | None = None, place: int = 0, shape: tuple[int, ...] = ()
    ) -> None:
        self._array, self._file, self._place, self._shape = array, file, place, shape

    def read(self) -> np.ndarray:
        """Read the array."""
        if self._file is None:
            return self._array
        found = np.empty(self._shape, self._array.dtype)
        if found.nbytes and os.preadv(self._file.number, [found.data], self._place) != found.nbytes:
            raise OSError(f"{found.nbytes:,} bytes of a temporary file cannot be read back")
        return found
