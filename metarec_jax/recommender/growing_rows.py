"""Rows of a table that stays where it is, such as in a file, followed by rows that were appended in memory."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int


@runtime_checkable
class Source(Protocol):
    """Rows that are read by number."""

    shape: tuple[int, ...]

    def __getitem__(self, rows: Any) -> np.ndarray: ...


class GrowingRows:
    """A table whose first rows are read from a source when they are asked for.

    Args:
        source: [first, width], of any type of float; it is never copied as a whole.
    """

    def __init__(self, source: Source):
        self._source, self._first = source, source.shape[0]
        self._tail = np.zeros((0, source.shape[1]), np.float32)

    def __len__(self) -> int:
        return self._first + len(self._tail)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and their width."""
        return len(self), self._tail.shape[1]

    def __getitem__(self, rows: Int[np.ndarray, ...] | slice) -> Float[np.ndarray, ...]:
        """Rows by number, float32."""
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step > 0 and last <= self._first:
                return np.asarray(self._source[first:last:step], np.float32)
            rows = np.arange(first, last, step)
        rows = np.asarray(rows)
        appended = rows >= self._first
        if not appended.any():
            return np.asarray(self._source[rows], np.float32)
        found = np.asarray(self._source[np.where(appended, 0, rows)], np.float32)
        found[appended] = self._tail[rows[appended] - self._first]
        return found

    def append(self, rows: Float[np.ndarray, "new width"]) -> None:
        """Append rows. Readers in other threads find either all of them or none."""
        self._tail = np.concatenate([self._tail, np.asarray(rows, np.float32)])

    def replace(self, rows: Int[np.ndarray, " changed"], values: Float[np.ndarray, "changed width"]) -> None:
        """Replace appended rows.

        Args:
            rows: their numbers.
            values: float32 [changed, width].

        Raises:
            ValueError: a row was not appended.
        """
        if (rows < self._first).any():
            raise ValueError(f"row {rows.min()} was not appended, and only appended rows can change")
        tail = self._tail.copy()
        tail[rows - self._first] = values
        self._tail = tail
