"""Row stores from tables that are read in batches, in memory that does not grow with the rows.

Batches are coded and appended to temporary files. The rules of ids, ratings and times are those of
`metarec_jax.data.interactions.build`: they are applied to the distinct values, of which there are few. What needs more
than that (means and sums of ratings, times with fractions, ids that are floats) is left to a reader of the whole table,
and so are mistakes, whose place it names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.scale import CLICKS, Kind, Scale
from metarec_jax.core.types import Interactions, TimeUnit
from metarec_jax.data import values
from metarec_jax.data.interactions import item_rows, user_rows
from metarec_jax.data.repeats import Rule, remark
from metarec_jax.data.store.external_sort import Spill
from metarec_jax.data.store.files import MOST_CODES, Block, write_description, write_rows
from metarec_jax.data.times import PER_SECOND, times
from metarec_jax.data.values import Table, distinct, is_text

_MOST_RATINGS = 1 << 20
"""Different ratings that are told apart; a table with more is read in memory."""


class NotInBatches(Exception):
    """The table has to be read as a whole."""


class Batches(NamedTuple):
    """A table of interactions in batches, and the other arguments of `metarec_jax.data.interactions.build`.

    Attributes:
        tables: the batches in order, with columns user and item, and optionally rating and time.
        size: bytes of the table.
        read: function to the number of bytes that were read so far, for progress.
        items: as for `build`.
        kind, scale, source, citation, layout, repeats: as for `build`.
        notes: remarks on the columns.
    """

    tables: Iterator[Table]
    size: int
    read: Callable[[], int]
    items: Table | None
    kind: Kind
    source: str
    scale: Scale | None = None
    citation: str = ""
    layout: str = ""
    repeats: Rule = "refuse"
    notes: tuple[str, ...] = ()


def save_batches(batches: Batches, folder: Path, temporary: Path, *, reporter: Reporter = QUIET) -> None:
    """Write a table as a row store.

    Args:
        batches: the table.
        folder: an empty folder.
        temporary: an empty folder for temporary files of 40 bytes a row.
        reporter: shows progress.

    Raises:
        NotInBatches: the table has to be read as a whole, because of its form or of a mistake in it.
        OSError: a file cannot be written.
    """
    if batches.repeats == "sum":
        raise NotInBatches
    rows = _Rows(temporary)
    try:
        with reporter.bar("reading rows", batches.size) as advance:
            for table in batches.tables:
                rows.add(table)
                advance(batches.read(), f"{rows.spill.rows:,} rows")
        coded = rows.finish(batches)
    except (MetarecError, pa.ArrowException) as error:
        raise NotInBatches from error
    users, items = coded.about.users, coded.about.items
    offsets = np.append(0, np.cumsum(rows.spill.counts(coded.user_rows, len(users))))
    found = np.unique(coded.ratings)
    levels = found if len(found) <= MOST_CODES else None
    codes = coded.ratings if levels is None else np.searchsorted(levels, coded.ratings).astype(np.uint8)
    kept = np.zeros(len(codes), bool)
    total = rows.spill.rows

    def sorted_blocks(advance: Callable[..., None]) -> Iterator[Block]:
        def merge(part: np.ndarray) -> np.ndarray:
            return _merged(part, len(items), codes, batches)

        for part in rows.spill.sorted_rows(offsets, coded.user_rows, coded.item_rows, merge):
            kept[part["rating"]] = True
            advance(int(offsets[part["user"][-1] + 1]))
            yield Block(part["user"], part["item"], codes[part["rating"]], part["time"])

    with reporter.bar("sorting rows", total) as advance:
        is_coded = levels is not None
        written = write_rows(folder, sorted_blocks(advance), users=len(users), coded=is_coded, times=rows.times)
    about = coded.about
    if written < total:
        if batches.kind == "rating" and not (kept.all() and len(found) == len(codes)):
            raise NotInBatches  # the scale is that of the ratings that are left
        note = remark(coded.name, total - written, total, batches.repeats, batches.kind)
        about = dataclasses.replace(about, notes=(*batches.notes, note, *coded.notes))
    write_description(folder, about, levels)


def _merged(rows: np.ndarray, items: int, codes: np.ndarray, batches: Batches) -> np.ndarray:
    """Rows of whole users, of which those of one user and item are merged as `metarec_jax.data.repeats.merge` does."""
    key = rows["user"].astype(np.int64) * items + rows["item"]
    ordered = np.sort(key)
    if (ordered[1:] != ordered[:-1]).all():
        return rows
    rule, picks = batches.repeats, batches.repeats in ("first", "latest")
    if rule == "refuse" or (batches.kind == "rating" and not picks):
        raise NotInBatches
    order = np.lexsort((rows["time"], key))
    starts = np.flatnonzero(np.append(True, key[order][1:] != key[order][:-1]))
    kept = order[starts] if rule == "first" else order[np.append(starts[1:], len(order)) - 1]
    if not picks:  # of clicks, the greatest counts
        best = np.maximum.reduceat(codes[rows["rating"][order]], starts)
        rows["rating"][kept] = np.unique(codes, return_index=True)[1][best]
    return rows[np.sort(kept)]


class _Coded(NamedTuple):
    """What the numbers of temporary rows stand for.

    Attributes:
        about: the data set without rows.
        user_rows, item_rows: int32 [n], the row of each number's user and item.
        ratings: float32 [n], the rating of each code, on the standard scale.
        name: of the table.
        notes: remarks on its items.
    """

    about: Interactions
    user_rows: np.ndarray
    item_rows: np.ndarray
    ratings: np.ndarray
    name: str
    notes: tuple[str, ...]


class _Numbers:
    """Numbers for distinct values, in the order in which they came."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}

    def of(self, code: np.ndarray, found: Sequence[Any]) -> np.ndarray:
        """The number of each row's value, int32 [rows], from its code in the distinct values of a batch."""
        known = self.known
        return np.array([known.setdefault(value, len(known)) for value in found], np.int32)[code]


class _Rows:
    """Rows of all batches so far, and their distinct values."""

    def __init__(self, temporary: Path) -> None:
        self.spill = Spill(temporary)
        self.times = (0, 0)
        self._first: Table | None = None
        self._users, self._items, self._ratings = _Numbers(), _Numbers(), _Numbers()
        self._rating_type: pa.DataType | None = None
        self._dates: bool | None = None
        self._unit: TimeUnit = "s"

    def add(self, table: Table) -> None:
        """Append a batch."""
        if not len(table):
            return
        if self._first is None:
            self._first = table
        user, item = self._users.of(*distinct(table, "user")), self._items.of(*distinct(table, "item"))
        rating, time = self._rating(table), self._time(table)
        bounds = int(time.min()), int(time.max())
        if self.spill.rows:
            bounds = min(bounds[0], self.times[0]), max(bounds[1], self.times[1])
        self.times = bounds
        self.spill.add(user, item, rating, time)

    def _rating(self, table: Table) -> np.ndarray:
        if "rating" not in table.columns:
            return np.zeros(len(table), np.int32)
        column = table.columns["rating"]
        if not isinstance(column, pa.ChunkedArray) or (self._rating_type or column.type) != column.type:
            raise NotInBatches
        self._rating_type = column.type
        if is_text(column.type):
            return self._ratings.of(*distinct(table, "rating"))
        number = column.to_numpy()
        if column.null_count or number.dtype.kind not in "biuf" or not np.isfinite(number).all():
            raise NotInBatches
        found, first, code = np.unique(number, return_index=True, return_inverse=True)
        order = np.argsort(first)  # by their first row: of ratings that float32 does not tell apart, that one counts
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        code = self._ratings.of(place[code], found[order].tolist())
        if len(self._ratings.known) > _MOST_RATINGS:
            raise NotInBatches
        return code

    def _time(self, table: Table) -> np.ndarray:
        if "time" not in table.columns:
            return np.zeros(len(table), np.int64)
        column = table.columns["time"]
        if not isinstance(column, pa.ChunkedArray) or column.null_count:
            raise NotInBatches
        kind = column.type
        dates = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        if not dates and is_text(kind):
            word = str(column[0])
            dates = ":" in word or word.count("-") > 1
        if not dates and not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise NotInBatches
        if self._dates not in (None, dates):
            raise NotInBatches
        self._dates = dates
        if not dates:
            return pc.cast(column, pa.int64()).to_numpy()
        time, unit = times(table)
        new, before = PER_SECOND[unit], PER_SECOND[self._unit]
        if new > before:
            factor = new // before
            self.spill.multiply_times(factor)
            self.times, self._unit = (self.times[0] * factor, self.times[1] * factor), unit
        return time * max(1, before // new)

    def finish(self, batches: Batches) -> _Coded:
        """The data set without rows, from the distinct values of all batches."""
        first = self._first
        if first is None:
            raise NotInBatches

        def only(column: str, found: Any) -> Table:
            return Table(first.name, {column: found}, first.place, first.labels, first.decimal)

        people, of_user = user_rows(only("user", list(self._users.known)), None)
        catalogue, of_item, notes = item_rows(only("item", list(self._items.known)), batches.items)
        ratings: Any = list(self._ratings.known)
        if self._rating_type is not None and not is_text(self._rating_type):
            ratings = pa.chunked_array([pa.array(ratings, self._rating_type)])
        table = only("rating", ratings) if self._rating_type is not None else only("user", [""])
        if batches.kind == "click":
            standard, scale = values.clicks(table), CLICKS
        else:
            standard, scale = values.ratings(table, batches.scale)
        if not self._dates:
            bounds = pa.chunked_array([pa.array(self.times, pa.int64())])
            self._unit = times(only("time", bounds))[1]
        nothing = np.zeros(0, np.int32)
        about = Interactions(
            user=nothing,
            item=nothing,
            rating=nothing.astype(np.float32),
            time=nothing.astype(np.int64),
            users=people,
            items=catalogue,
            scale=scale,
            source=batches.source,
            citation=batches.citation,
            time_unit=self._unit,
            layout=batches.layout,
            notes=(*batches.notes, *notes),
        )
        return _Coded(about, of_user, of_item, standard, first.name, notes)
