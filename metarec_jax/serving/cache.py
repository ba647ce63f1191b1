"""Something that takes long to make and is asked for often, as figures of a log are by dashboards: made when it has
changed, and no more often than a share of the time affords."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Remembered(Generic[Made]):
    """What `make` gave last; threads that ask at the same time make it once.

    Args:
        make: what takes long.
        version: of what it is made from; equal as long as that has not changed.
        share: of the time that making may take: what took 0.2 s is kept for 2 s at a tenth, whatever has changed.
        clock: seconds.

    >>> found = Remembered(list, version=lambda: 1)
    >>> found.get() is found.get()
    True
    """

    def __init__(
        self,
        make: Callable[[], Made],
        version: Callable[[], Any],
        share: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._make, self._version, self._share, self._clock = make, version, share, clock
        self._lock = threading.Lock()
        self._made: tuple[Made, Any, float] | None = None  # what, of which version, and until when it is kept

    def get(self) -> Made:
        """What there is, or what is made now."""
        with self._lock:
            started = self._clock()
            if self._made is not None and started < self._made[2]:
                return self._made[0]
            version = self._version()  # before it is made: what is written meanwhile is seen the next time
            if self._made is None or self._made[1] != version:
                made = self._make()
                ended = self._clock()
                self._made = made, version, ended + (ended - started) * (1 / self._share - 1)
            return self._made[0]
