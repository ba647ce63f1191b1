"""A cached value that is computed again only when its source has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class VersionedCache(Generic[Value]):
    """The result of `compute` for the current version; threads that ask at the same time compute it once.

    Args:
        compute: returns the value; called when the version has changed.
        version: returns the version of the source, which differs after every change of the source.

    >>> cache = VersionedCache(list, version=lambda: 1)
    >>> cache.get() is cache.get()
    True
    """

    def __init__(self, compute: Callable[[], Value], version: Callable[[], Any]):
        self._compute, self._version = compute, version
        self._lock = threading.Lock()
        self._cached: tuple[Any, Value] | None = None

    def get(self) -> Value:
        """Return the cached value, or compute it if there is none of this version."""
        with self._lock:
            version = self._version()  # read first: a change during `compute` is then seen by the next call
            if self._cached is None or self._cached[0] != version:
                self._cached = version, self._compute()
            return self._cached[1]
