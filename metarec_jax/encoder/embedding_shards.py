"""Shards of a table of embeddings: files that several processes fill together, each once.

A shard has a fixed range of the distinct texts in order, and is named by a hash of them. Whoever fills one holds its
lock; the others fill other shards meanwhile. What is there is read again: a process that is killed loses one shard at
most.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.core.atomic_files import explained
from metarec_jax.core.checked_files import read_arrays, write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.locks import InUseError, hold

SHARD = 1 << 16
"""Texts of a shard."""
_MAPPED = 1 << 24
"""Bytes of a shard above which it stays in its file."""
_POLL, _SILENT = 0.2, 30.0
"""Seconds between two looks at shards that others fill, and seconds without a sign of life after which they are filled
here too."""
_REPORTED: set[Path] = set()
"""Cache folders that could not be written."""


class Shard(NamedTuple):
    """Embeddings of some distinct texts.

    Attributes:
        table: float32 or float16 [texts, hidden], an array or rows in a file.
        truncated: number of texts that were cut.
    """

    table: Any
    truncated: int


Encode = Callable[[int, Callable[[], None]], Shard]
"""(number of the shard, function to call now and then) -> the encoded shard."""


def filled(
    paths: Sequence[Path | None],
    sizes: Sequence[int],
    encode: Encode,
    *,
    width: int,
    dtype: np.dtype,
    report: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, Shard]]:
    """Read the shards of a table, and encode and write those that are not there.

    Args:
        paths: file of each shard; None where it is not cached.
        sizes: texts of each shard.
        encode: encodes a shard.
        width: columns of the table.
        dtype: of the numbers in files.
        report: called once for a folder that cannot be written.

    Yields:
        Number and content of each shard, in any order.
    """
    waiting = list(range(len(paths)))
    others: dict[int, tuple[float, float]] = {}  # last sign of life of another process, and when it was seen
    while waiting:
        for number in tuple(waiting):
            path, shape = paths[number], (sizes[number], width)
            found = None if path is None else _read(path, shape, dtype)
            if found is None:
                found = _fill(path, shape, dtype, functools.partial(encode, number), others.get(number), report)
            if found is None:
                others[number] = _seen(_lock(path), others.get(number))
                continue
            waiting.remove(number)
            yield number, found
        if waiting:
            time.sleep(_POLL)


def _fill(
    path: Path | None,
    shape: tuple[int, int],
    dtype: np.dtype,
    encode: Callable[[Callable[[], None]], Shard],
    other: tuple[float, float] | None,
    report: Callable[[str], None] | None,
) -> Shard | None:
    """Encode and write a shard; None while another process does."""
    if path is None:
        return encode(lambda: None)
    lock = _lock(path)
    with contextlib.ExitStack() as stack:
        try:
            with explained(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(lock, f"the embeddings {path}"))
        except InUseError:
            if other is None or time.monotonic() - other[1] < _SILENT:
                return None
            return encode(lambda: None)  # it seems to have been stopped
        except MetarecError as error:
            _say(path.parent, error, report)
            return encode(lambda: None)
        found = _read(path, shape, dtype)  # it may have been written since
        if found is None:
            found = encode(functools.partial(_touch, lock))
            try:
                arrays = {"embeddings": np.asarray(found.table), "truncated": np.asarray(found.truncated)}
                write_arrays(path, arrays)
            except MetarecError as error:
                _say(path.parent, error, report)
        return found


def _lock(path: Path | None) -> Path:
    assert path is not None
    return path.with_suffix(".lock")


def _touch(lock: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(lock)


def _seen(lock: Path, before: tuple[float, float] | None) -> tuple[float, float]:
    """The last sign of life of the process that holds a lock, and when it was seen first."""
    try:
        sign = lock.stat().st_mtime
    except OSError:
        sign = 0.0
    return before if before is not None and before[0] == sign else (sign, time.monotonic())


def _read(path: Path, shape: tuple[int, int], dtype: np.dtype) -> Shard | None:
    """The shard in a file; None if there is none, or if it is damaged."""
    if not path.exists():
        return None
    try:
        arrays, _ = read_arrays(path, map_above=_MAPPED)
    except MetarecError:
        return None
    table, truncated = arrays.get("embeddings"), arrays.get("truncated")
    if table is None or truncated is None or truncated.shape != ():
        return None
    return Shard(table, int(truncated)) if table.shape == shape and table.dtype == dtype else None


def _say(folder: Path, error: MetarecError, report: Callable[[str], None] | None) -> None:
    """Report once that a folder cannot be written."""
    if report is not None and folder not in _REPORTED:
        _REPORTED.add(folder)
        report(f"embeddings are not cached: {error} (--data.cache or METAREC_CACHE names another cache folder)")
