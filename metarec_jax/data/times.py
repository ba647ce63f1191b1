"""Times from a raw column: numbers in any unit, or dates and times in ISO 8601."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.types import TimeUnit
from metarec_jax.data.values import Table, distinct, is_text, numbers

PER_SECOND: Mapping[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Units of time, and how many of each a second has."""
_GREATEST: Mapping[TimeUnit, float] = {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": np.inf}
"""Times since 1970 below this are in this unit: they are before the year 5139."""
_NONE = "or say --data.columns.time '' if rows have no time"


def times(table: Table) -> tuple[np.ndarray, TimeUnit]:
    """The column of times.

    Args:
        table: the file.

    Returns:
        int64 [rows], 0 without such a column; and the unit. Whole numbers are as they are written, in the unit that
        their size tells. Other times are seconds since 1970 if all are whole seconds, and a finer unit otherwise.

    Raises:
        MetarecError: a time is missing, or no time.
    """
    if "time" not in table.columns:
        return np.zeros(len(table), np.int64), "s"
    values = table.columns["time"]
    if not isinstance(values, pa.ChunkedArray):
        values = pa.chunked_array([pa.array(values, pa.string())])
    if values.null_count and not is_text(values.type):
        row = int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise table.refuse(row, f"the time ({table.label('time')}) is empty: write one, {_NONE}")
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        unit = kind.unit if pa.types.is_timestamp(kind) else "ms"
        stamps = pc.cast(pc.cast(values, pa.timestamp(unit)), pa.int64()).to_numpy()
        return _coarsest(stamps, unit)
    if pa.types.is_time(kind) or pa.types.is_duration(kind) or pa.types.is_boolean(kind):
        raise MetarecError(
            f"{table.name}: column {shown(table.label('time'))} holds {kind}, which is no point in time: name another "
            f"column with --data.columns.time, {_NONE}"
        )
    try:
        return _numeric(pc.cast(values, pa.int64()).to_numpy())
    except pa.ArrowException:  # some value is no whole number
        pass
    if is_text(kind):
        code, words = distinct(table, "time")
        if any(":" in word or word.count("-") > 1 for word in words):
            stamps, unit = _iso(table, code, words)
            return stamps[code], unit
    return _decimal(table)


def _numeric(time: np.ndarray) -> tuple[np.ndarray, TimeUnit]:
    size = float(np.abs(time.astype(np.float64)).max(initial=0))
    return time, next(unit for unit, greatest in _GREATEST.items() if size < greatest)


def _decimal(table: Table) -> tuple[np.ndarray, TimeUnit]:
    """Numbers with a fraction: in the coarsest unit, up to a thousandth of what floats hold, that makes them whole."""
    time = numbers(table, "time")
    if np.abs(time).max(initial=0) >= 2.0**63:
        row = int(np.argmax(np.abs(time)))
        raise table.refuse(
            row,
            f"the time ({table.label('time')}) is {float(time[row])!r}, which is too large: write "
            f"seconds since 1970, {_NONE}",
        )
    whole, unit = _numeric(time)
    units = list(PER_SECOND)
    finest = units[max(units.index("us"), units.index(unit))]
    scale = PER_SECOND[finest] // PER_SECOND[unit]
    if (time == np.floor(time)).all():
        return whole.astype(np.int64), unit
    if np.abs(time).max() * scale >= 2.0**63:
        raise MetarecError(f"{table.name}: times ({table.label('time')}) have fractions too fine to read: round them")
    base = np.floor(time)
    ticks = base.astype(np.int64) * scale + np.rint((time - base) * scale).astype(np.int64)
    return _coarsest(ticks, finest, unit)


def _iso(table: Table, code: np.ndarray, words: list[str]) -> tuple[np.ndarray, TimeUnit]:
    """int64 [words], and the unit; a time without a zone is in UTC."""
    column = pa.array(words, pa.string())
    for unit in ("us", "ns"):
        for zone in (None, "UTC"):  # all without a zone, or all with one
            try:
                return _coarsest(pc.cast(pc.cast(column, pa.timestamp(unit, zone)), pa.int64()).to_numpy(), unit)
            except pa.ArrowInvalid:
                continue
    stamps = np.zeros(len(words), np.int64)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    for n, word in enumerate(words):
        try:
            moment = datetime.datetime.fromisoformat(word.strip().removesuffix(" UTC"))
        except ValueError as error:
            row = int(np.flatnonzero(code == n)[0])
            what = f"{shown(word)}, which is no date and time in ISO 8601" if word else "empty"
            raise table.refuse(
                row,
                f"the time ({table.label('time')}) is {what}: write it as 2019-11-15 08:00:12 (with +01:00 and the "
                f"like behind it, if it is not UTC) or as seconds since 1970, {_NONE}",
            ) from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        stamps[n] = (moment - epoch) // datetime.timedelta(microseconds=1)
    return _coarsest(stamps, "us")


def _coarsest(ticks: np.ndarray, unit: TimeUnit, least: TimeUnit = "s") -> tuple[np.ndarray, TimeUnit]:
    """`ticks` of `unit` in the coarsest unit, from `least` on, that keeps them whole."""
    units = list(PER_SECOND)
    for coarse in units[units.index(least) : units.index(unit)]:
        step = PER_SECOND[unit] // PER_SECOND[coarse]
        if not (ticks % step).any():
            return ticks // step, coarse
    return ticks, unit
