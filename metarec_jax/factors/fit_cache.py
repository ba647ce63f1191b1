"""Long fits on disk: finished ones, and the state of one that was interrupted, by a hash of what is fitted."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarec_jax.core import processes
from metarec_jax.core.atomic_files import explained
from metarec_jax.core.checked_files import read_arrays, write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.stored_columns import StoredColumn, blocks

_FORMAT = "metarec_jax factors 1"


class Cache(NamedTuple):
    """Where fits are kept.

    Attributes:
        folder: the folder.
        after: seconds between two states of a fit that is under way.
        worth: seconds of a fit after which it is kept when it is finished.
    """

    folder: Path
    after: float = 30.0
    worth: float = 2.0


class Kept:
    """The files of one fit.

    Args:
        place: path without its ending; None keeps nothing.
        after, worth: as in `Cache`.
    """

    def __init__(self, place: Path | None, after: float, worth: float) -> None:
        self._place, self._after, self._worth, self._begun = place, after, worth, time.monotonic()
        self._written = self._begun

    def _path(self, ending: str) -> Path:
        assert self._place is not None
        return self._place.with_name(f"{self._place.name}{ending}.safetensors")

    def finished(self) -> dict[str, np.ndarray] | None:
        """Read the finished fit; None if there is none, or if it is damaged."""
        return processes.arrays_from_first("finished fit", lambda: self._read(""))

    def state(self) -> dict[str, np.ndarray] | None:
        """Read the state of the interrupted fit; None if there is none, or if it is damaged."""
        return processes.arrays_from_first("interrupted fit", lambda: self._read("-unfinished"))

    def keep(self, state: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Write the state of a fit if it has been computed for long since the last one.

        Args:
            state: makes the arrays.
        """
        now = time.monotonic()
        due = processes.from_first("state of a fit", lambda: str(self._due(now)))
        if due == str(True):  # for all processes, since each has a part of the state
            self._write("-unfinished", state())
            self._written = now

    def _due(self, now: float) -> bool:
        return self._place is not None and now - self._written > self._after

    def finish(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a finished fit if it took long or was resumed, and delete its state.

        Args:
            arrays: the fit.
        """
        if self._place is None or not processes.is_first():
            return
        unfinished = self._path("-unfinished")
        if unfinished.exists() or time.monotonic() - self._begun > self._worth:
            self._write("", arrays)
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _read(self, ending: str) -> dict[str, np.ndarray] | None:
        if self._place is None:
            return None
        try:
            return read_arrays(self._path(ending))[0]
        except MetarecError:
            return None

    def _write(self, ending: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays; a cache that cannot be written is no error. Process 0 alone writes."""
        if self._place is None or not processes.is_first():
            return
        try:
            with explained(self._path(ending).parent):
                self._path(ending).parent.mkdir(parents=True, exist_ok=True)
            write_arrays(self._path(ending), {name: np.asarray(array) for name, array in arrays.items()})
        except MetarecError:
            self._place = None


def kept(cache: Cache | None, *inputs: object) -> Kept:
    """Find the files of a fit.

    Args:
        cache: where; None keeps nothing.
        inputs: arrays and numbers that determine the fit.

    Returns:
        The files, named by a hash of the inputs.
    """
    if cache is None:
        return Kept(None, 0.0, 0.0)
    total = hashlib.sha256(_FORMAT.encode())
    for given in inputs:
        array = given if isinstance(given, StoredColumn) else np.asarray(given)
        total.update(f"{array.dtype.str} {array.shape}\n".encode())
        for part in [array] if isinstance(array, np.ndarray) else (array[some] for some in blocks(len(array))):
            total.update(np.ascontiguousarray(part).data)
    return Kept(cache.folder / f"factors-{total.hexdigest()[:32]}", cache.after, cache.worth)
