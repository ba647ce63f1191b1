"""The rows of a fit: which are held out, how they are grouped, and how many there are of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarec_jax.core.progress import Reporter
from metarec_jax.core.stored_columns import Column, blocks, computed, count_values
from metarec_jax.factors.row_batches import Layout, count_by_kind, kinds, rows_by_owner
from metarec_jax.factors.sorted_rows import scratch_for

_HELD_OUT, _LEAST_HELD_OUT, _MOST_HELD_OUT = 0.02, 100, 50_000
"""Share, least and greatest number of the rows that are held out to decide when to stop. With fewer rows none are, and
the noise decides."""


class Counts(NamedTuple):
    """Numbers of the rows that are used.

    Attributes:
        used: all of them.
        user_kind, item_kind: int32 [users] and [items], kind of each by its number of rows.
        of_users, of_items: float32 [devices, each, kinds], rows of each by the kind of their other side.
        seen: bool [items], whether an item has a row.
    """

    used: int
    user_kind: np.ndarray
    item_kind: np.ndarray
    of_users: np.ndarray
    of_items: np.ndarray
    seen: np.ndarray


class FitRows:
    """Rows of ratings, of which some are held out, grouped by user and by item. Columns are read in slices.

    Args:
        user, item: int [rows], numbered from 0 without gaps.
        value: float [rows], ratings.
        users, items: layouts of both sides.
        widths: columns of a row in the sums of users and of items.
        reporter: shows progress.
        label: what is fitted.
        folder: where files are made if there are many rows; None takes the folder for temporary files.

    Attributes:
        by_user, by_item: rows by owner.
        held: bool [rows], which are held out.
    """

    def __init__(
        self,
        user: Column,
        item: Column,
        value: Column,
        users: Layout,
        items: Layout,
        widths: tuple[int, int],
        reporter: Reporter,
        label: str,
        folder: Path | None = None,
    ) -> None:
        rng, self._users, self._items, self._value = np.random.default_rng(2), users, items, value
        moved = rng.permutation(users.number).astype(np.int32)  # so that the first users are a sample of all
        self._user, self._item = computed(user, lambda some: moved[some], np.int32), item
        rows = len(value)
        share = min(_HELD_OUT, _MOST_HELD_OUT / rows) if _HELD_OUT * rows >= _LEAST_HELD_OUT else 0.0
        self.held = np.empty(rows, bool)
        for some in blocks(rows):
            self.held[some] = rng.random(some.stop - some.start, np.float32) < share
        scratch = scratch_for(rows, folder)
        grouped = users.blocks
        with reporter.bar(f"{label}: grouping {rows:,} rows", grouped + items.blocks) as advance:
            sides = (self._user, self._item), (users, items)
            self.by_user = rows_by_owner(
                *sides[0], value, self.held, *sides[1], widths[0], watch=advance, scratch=scratch
            )
            self.by_item = rows_by_owner(
                *sides[0][::-1],
                value,
                self.held,
                *sides[1][::-1],
                widths[1],
                watch=lambda block: advance(grouped + block),
                scratch=scratch,
            )

    def check(self, devices: int) -> tuple[np.ndarray, ...]:
        """Return the rows that are held out, [devices, n] each: places of user and item, and rating; NaN for padding.

        Args:
            devices: number of devices.
        """
        rows = np.flatnonzero(self.held)
        each = max(-(-len(rows) // devices), 1)
        user, item = np.zeros((2, devices * each), np.int32)
        rating = np.full(devices * each, np.nan)
        user[: len(rows)] = self._users.place(self._user[rows])
        item[: len(rows)] = self._items.place(self._item[rows])
        rating[: len(rows)] = self._value[rows]
        return tuple(part.reshape(devices, each) for part in (user, item, rating))

    def counts(self, *, everything: bool) -> Counts:
        """Count the rows by owner, and by kind of the other side.

        Args:
            everything: whether rows that are held out count.
        """
        left_out = None if everything else self.held
        of_user, of_item = (
            count_values(column, layout.number) if everything else grouped.count
            for column, layout, grouped in (
                (self._user, self._users, self.by_user),
                (self._item, self._items, self.by_item),
            )
        )
        user_kind, item_kind = kinds(of_user), kinds(of_item)
        return Counts(
            int(of_user.sum()),
            user_kind,
            item_kind,
            count_by_kind(self._user, computed(self._item, lambda i: item_kind[i], np.int32), self._users, left_out),
            count_by_kind(self._item, computed(self._user, lambda u: user_kind[u], np.int32), self._items, left_out),
            of_item > 0,
        )
