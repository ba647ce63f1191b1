"""Rows of ratings, grouped by their owner (a user or an item) into dense batches of static shape.

The rows of an owner are cut into pieces of 512, 64 and 8 rows, the last one padded. The batches of all pieces of a
length have one shape, so that few programs are compiled. Owners are divided among devices and then into blocks, so that
sums of each owner are kept for one block at a time (Mehta et al. 2021, "ALX: Large scale matrix factorization on TPUs",
section 4.3, "dense batching").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from metarec_jax.core.global_arrays import host
from metarec_jax.core.scratch import Scratch
from metarec_jax.core.stored_columns import Column, blocks, computed, count_values
from metarec_jax.factors.sorted_rows import sort_by_owner

LENGTHS = (512, 64, 8)
"""Rows of a piece."""
MOST_OWNERS = 4096
"""Greatest number of owners of a block."""
KINDS = 24
"""Kinds of owners by their number of rows: one kind for each power of 2."""
_FLOATS_AT_ONCE = 1 << 22
"""Greatest number of elements of the outer products of one batch."""
_ROWS_AT_ONCE = 1 << 16
_LEAST_WHOLE = 4
"""Least length of a piece that has all rows of an owner."""


class Layout(NamedTuple):
    """Where the rows of a table of users or items lie.

    The table has the shape [devices, each, columns]. Number ``n`` is in row ``n // devices`` of device ``n % devices``.

    Attributes:
        number: users or items.
        devices: devices that share the table.
        block: owners of a block.
    """

    number: int
    devices: int
    block: int

    @property
    def blocks(self) -> int:
        """Blocks of each device."""
        return -(-self.number // (self.devices * self.block))

    @property
    def each(self) -> int:
        """Rows of each device, with padding."""
        return self.blocks * self.block

    def place(self, numbers: np.ndarray) -> np.ndarray:
        """Compute the row of users or items in the table, if its devices' parts are joined."""
        return numbers % self.devices * self.each + numbers // self.devices

    def spread(self, values: np.ndarray, padding: float = 0.0) -> np.ndarray:
        """Lay out the values of users or items as a table.

        Args:
            values: [number, ...].
            padding: value of the rows that are nobody's.

        Returns:
            [devices, each, ...].
        """
        table = np.full((self.devices * self.each, *values.shape[1:]), padding, values.dtype)
        table[self.place(np.arange(self.number))] = values
        return table.reshape(self.devices, self.each, *values.shape[1:])

    def joined(self, table: ArrayLike) -> np.ndarray:
        """Return the values [number, ...] of a table."""
        table = np.asarray(host(table))
        return table.reshape(-1, *table.shape[2:])[self.place(np.arange(self.number))]


def layout(number: int, devices: int, most: int = MOST_OWNERS) -> Layout:
    """Lay out a table of users or items.

    Args:
        number: users or items.
        devices: devices that share the table.
        most: greatest number of owners of a block, a power of 2.

    Returns:
        The layout; a block has a power of 2 of owners.
    """
    each = max(-(-number // devices), 1)
    return Layout(number, devices, min(1 << int(np.ceil(np.log2(each))), most))


class Batch(NamedTuple):
    """Pieces of one length, for each device.

    Attributes:
        owner: int32 [devices, pieces], place of the owner in its block; the size of a block for padding.
        other: int32 [devices, pieces, length], place of each row's other side in its table; ``-1 - place`` for a row
            that is held out.
        value: float32 [devices, pieces, length], the rating; NaN for padding.
    """

    owner: np.ndarray | jax.Array
    other: np.ndarray | jax.Array
    value: np.ndarray | jax.Array


class KeptBatches(Sequence[Batch]):
    """Batches in memory or in a file, which are read one at a time.

    Args:
        scratch: keeps them.
        batches: the batches.
    """

    def __init__(self, scratch: Scratch, batches: Iterable[Batch]) -> None:
        self._kept = [tuple(scratch.keep(np.asarray(part)) for part in batch) for batch in batches]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, number: Any) -> Any:
        """The batch with a number."""
        return Batch(*(part.read() for part in self._kept[number]))


class Rows(NamedTuple):
    """Rows by owner.

    Attributes:
        layout: of the owners.
        count: int64 [owners], number of rows of each owner that are not held out.
        batches: batches of each block.
        whole: for each block, whether it has a single batch, in which piece ``n`` has all rows of owner ``n``.
    """

    layout: Layout
    count: np.ndarray
    batches: Sequence[Sequence[Batch]]
    whole: Sequence[bool]


def rows_by_owner(
    owner: Column,
    other: Column,
    value: Column,
    held: np.ndarray,
    owners: Layout,
    others: Layout,
    width: int,
    *,
    lengths: Sequence[int] = LENGTHS,
    most_whole: int = 0,
    watch: Callable[[int], None] = lambda block: None,
    scratch: Scratch | None = None,
) -> Rows:
    """Group rows by owner.

    Args:
        owner, other: int [rows], owner and other side of each row.
        value: float [rows], ratings.
        held: bool [rows], whether a row is held out.
        owners, others: layouts of both sides.
        width: columns of a row in the computation, which limit the size of a batch.
        lengths: rows of a piece, descending.
        most_whole: blocks of owners with at most so many rows each have a piece for each owner; 0 for none.
        watch: called after each block with the number of blocks that are grouped.
        scratch: keeps the rows; None keeps them in memory.

    Returns:
        The rows.
    """
    scratch = Scratch() if scratch is None else scratch
    count, trained = count_values(owner, owners.number), np.zeros(owners.number, np.int64)
    for some in blocks(len(owner)):
        trained += np.bincount(owner[some][~held[some]], minlength=owners.number)
    start = np.concatenate([[0], np.cumsum(count)])
    rows = sort_by_owner(owner, computed(other, others.place, np.int32), value, held, start, scratch)
    batches, whole = [], []
    for block in range(owners.blocks):
        first = block * owners.block * owners.devices
        members = np.arange(first, min(first + owners.block * owners.devices, owners.number))
        whole.append(most_whole > 0 and bool(count[members].max() <= most_whole))
        if whole[-1]:
            found: Iterable[Batch] = [_whole(members, start, count, rows, owners)]
        else:
            found = _batches(members, start, count, rows, owners, width, lengths)
        batches.append(KeptBatches(scratch, found))
        watch(block + 1)
    return Rows(owners, trained, batches, whole)


def _whole(members: np.ndarray, start: np.ndarray, count: np.ndarray, sorted_rows: np.ndarray, owners: Layout) -> Batch:
    """The batch of a block that has a piece for each owner, whose length is a power of 2."""
    length = 1 << int(np.ceil(np.log2(max(count[members].max(), _LEAST_WHOLE))))
    device, local = members % owners.devices, members // owners.devices % owners.block
    owner = np.full((owners.devices, owners.block), owners.block, np.int32)
    other = np.zeros((owners.devices, owners.block, length), np.int32)
    values = np.full((owners.devices, owners.block, length), np.nan, np.float32)
    real = np.arange(length) < count[members, None]
    rows = np.where(real, start[members, None] + np.arange(length), 0)
    owner[device, local] = local
    found = sorted_rows[rows]
    other[device, local] = np.where(real, found["other"], 0)
    values[device, local] = np.where(real, found["value"], np.nan)
    return Batch(owner, other, values)


def _batches(
    members: np.ndarray,
    start: np.ndarray,
    count: np.ndarray,
    sorted_rows: np.ndarray,
    owners: Layout,
    width: int,
    lengths: Sequence[int],
) -> Iterator[Batch]:
    """Batches of the owners of one block."""
    at, left = start[members], count[members]
    device, local = members % owners.devices, members // owners.devices % owners.block
    for length in lengths:
        whole = left // length if length != lengths[-1] else -(-left // length)
        piece = np.repeat(np.arange(len(members)), whole)
        number = np.arange(len(piece)) - np.repeat(np.cumsum(whole) - whole, whole)
        first = at[piece] + number * length
        size = np.minimum(left[piece] - number * length, length)
        yield from _filled(device[piece], local[piece], first, size, length, sorted_rows, owners, width)
        at, left = at + whole * length, np.maximum(left - whole * length, 0)


def _filled(
    device: np.ndarray,
    local: np.ndarray,
    first: np.ndarray,
    size: np.ndarray,
    length: int,
    sorted_rows: np.ndarray,
    owners: Layout,
    width: int,
) -> Iterator[Batch]:
    """Batches of the pieces of one length."""
    at_once = max(min(_ROWS_AT_ONCE // length, _FLOATS_AT_ONCE // width**2, owners.block), 1)
    of_device = [np.flatnonzero(device == d) for d in range(owners.devices)]
    for begin in range(0, max(map(len, of_device), default=0), at_once):
        owner = np.full((owners.devices, at_once), owners.block, np.int32)
        other = np.zeros((owners.devices, at_once, length), np.int32)
        values = np.full((owners.devices, at_once, length), np.nan, np.float32)
        for d, pieces in enumerate(of_device):
            some = pieces[begin : begin + at_once]
            real = np.arange(length) < size[some, None]
            rows = np.where(real, first[some, None] + np.arange(length), 0)
            owner[d, : len(some)] = local[some]
            found = sorted_rows[rows]
            other[d, : len(some)] = np.where(real, found["other"], 0)
            values[d, : len(some)] = np.where(real, found["value"], np.nan)
        yield Batch(owner, other, values)


def kinds(count: np.ndarray) -> np.ndarray:
    """Compute the kind of each owner from its number of rows; 0 for an owner without rows."""
    return np.minimum(np.ceil(np.log2(count + 1)).astype(np.int32), KINDS - 1)


def count_by_kind(owner: Column, other_kind: Column, owners: Layout, left_out: np.ndarray | None = None) -> np.ndarray:
    """Count the rows of each owner by the kind of their other side.

    Args:
        owner: int [rows].
        other_kind: int [rows], kind of each row's other side.
        owners: layout of the owners.
        left_out: bool [rows], rows that are not counted; None counts all.

    Returns:
        float32 [devices, each, KINDS].
    """
    counted = np.zeros(owners.devices * owners.each * KINDS, np.int32)
    for some in blocks(len(owner)):
        place = owners.place(owner[some]).astype(np.int64) * KINDS + other_kind[some]
        np.add.at(counted, place if left_out is None else place[~left_out[some]], 1)
    return counted.astype(np.float32).reshape(owners.devices, owners.each, KINDS)
