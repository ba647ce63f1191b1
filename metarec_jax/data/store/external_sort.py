"""A sort of more rows than memory holds, by user, then time, then item.

Rows come in any order, and the order of users is known only when all have come. So rows are first appended to one file.
Then they are dealt to files of consecutive users, each small enough to be sorted in memory. Both passes read and write
files from their beginning to their end, so the time for a row does not grow with their number.

pyarrow reads the batches and NumPy sorts them. DuckDB would sort as well, but the rules of ids, scales and repeats are
those of this package, and need the rows as codes in batches in any case, so a further dependency would save little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from metarec_jax.core.row_ranges import runs
from metarec_jax.core.stored_columns import blocks
from metarec_jax.data.interactions import row_order

ROW = np.dtype([("user", "<i4"), ("item", "<i4"), ("rating", "<i4"), ("time", "<i8")])
"""A row between the passes, 20 bytes: numbers of user and item, code of the rating, and time."""
BUCKET = 1 << 21
"""Rows that are sorted in memory at a time, about; a user's rows are sorted together."""
_MOST_BUCKETS = 4096
_AT_ONCE = 1 << 20


class Spill:
    """Rows in a temporary file, in the order in which they came.

    Args:
        folder: an existing folder for temporary files, on a disk with room for 40 bytes a row.

    Attributes:
        rows: number of rows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self.rows = folder, folder / "rows", 0
        self._count = np.zeros(0, np.int64)
        self._path.touch()

    def add(self, user: np.ndarray, item: np.ndarray, rating: np.ndarray, time: np.ndarray) -> None:
        """Append rows.

        Args:
            user, item, rating: int32 [rows], numbers that `sorted_rows` maps.
            time: int64 [rows].
        """
        found = np.empty(len(user), ROW)
        for name, column in (("user", user), ("item", item), ("rating", rating), ("time", time)):
            found[name] = column
        with open(self._path, "ab") as file:
            file.write(found.data)
        self.rows += len(found)
        count = np.bincount(user, minlength=len(self._count))
        count[: len(self._count)] += self._count
        self._count = count

    def multiply_times(self, factor: int) -> None:
        """Multiply the times of all rows so far.

        Args:
            factor: what they are multiplied by.
        """
        rows = np.memmap(self._path, ROW, "r+") if self.rows else np.empty(0, ROW)
        for some in blocks(len(rows), _AT_ONCE):
            rows["time"][some] *= factor

    def counts(self, user_rows: np.ndarray, users: int) -> np.ndarray:
        """Count the rows of each user.

        Args:
            user_rows: int32 [n], the user that each number stands for.
            users: number of users.

        Returns:
            int64 [users].
        """
        count = np.zeros(users, np.int64)
        np.add.at(count, user_rows[: len(self._count)], self._count)
        return count

    def sorted_rows(
        self,
        offsets: np.ndarray,
        user_rows: np.ndarray,
        item_rows: np.ndarray,
        merge: Callable[[np.ndarray], np.ndarray],
    ) -> Iterator[np.ndarray]:
        """Sort the rows; the file is removed on the way.

        Args:
            offsets: int64 [users + 1], the first row of each user, and the number of rows.
            user_rows, item_rows: int32 [n], the user and the item that each number stands for.
            merge: function of all rows of some users, in the order in which they came, to those that are kept.

        Yields:
            Rows (`ROW`) by user, then time, then item, whose user and item are rows of the data set; each user's in one
            block.
        """
        size = max(BUCKET, -(-self.rows // _MOST_BUCKETS))
        bucket_of = (offsets[:-1] // size).astype(np.int32)
        paths = [self._folder / f"bucket-{n}" for n in range(int(bucket_of[-1]) + 1)]
        for block in _read(self._path):
            block["user"], block["item"] = user_rows[block["user"]], item_rows[block["item"]]
            wanted = bucket_of[block["user"]]
            order = np.argsort(wanted, kind="stable")
            block, wanted = block[order], wanted[order]
            for start, stop in zip(*runs(wanted)):
                with open(paths[wanted[start]], "ab") as file:
                    file.write(block[start:stop].data)
        self._path.unlink()
        for path in paths:
            if path.exists():
                rows = merge(np.fromfile(path, ROW))
                path.unlink()
                yield rows[row_order(rows["user"], rows["time"], rows["item"])]


def _read(path: Path) -> Iterator[np.ndarray]:
    rows = path.stat().st_size // ROW.itemsize
    with open(path, "rb") as file:
        for some in blocks(rows, _AT_ONCE):
            yield np.fromfile(file, ROW, some.stop - some.start)
