"""Locks that let one process at a time write to a place, and that end with their process, also when it is killed."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from metarec_jax.core.atomic_files import explained
from metarec_jax.core.errors import MetarecError

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems without locks answer; the work goes on there without one."""


@contextlib.contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold a lock as long as the context lasts.

    The lock is one of the operating system's on an open file (``flock``), so it ends with its process. The file holds
    JSON with ``host``, ``pid`` and ``since`` of the holder, and is removed when the lock is given back.

    Args:
        path: the lock file; its folder exists.
        what: the place that is held, as an error calls it: "the run folder runs/a".

    Raises:
        MetarecError: another process holds the lock (the message names it), or the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
    with explained(path):
        try:
            lock.acquire()
        except Timeout as error:
            raise MetarecError(
                f"{what} is in use by {_holder(path)}: wait until that has ended, or name another folder"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # Windows removes no open file; filelock does it after the release
                path.unlink()
            lock.release()


def _sign(handle: int) -> None:
    """Write into the locked file who holds it."""
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}).encode(), 0)


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} (since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to be written, or has just been removed
        return "another process"
