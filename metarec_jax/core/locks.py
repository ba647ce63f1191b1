"""File locks that admit one writer at a time. The operating system releases a lock when its process ends."""

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
from metarec_jax.core.json_files import read_json

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Error numbers of file systems without lock support; `hold` then continues without a lock."""


class InUseError(MetarecError):
    """Another process holds a lock."""


@contextlib.contextmanager
def hold(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock within the context.

    The lock is an operating-system lock on an open file (``flock``), so it ends with its process. The file holds JSON
    with ``host``, ``pid`` and ``since`` of the holder, and is removed when the lock is released.

    Args:
        path: path of the lock file, in an existing folder.
        what: the locked resource, for error messages, such as "the run folder runs/a".
        wait: wait for another process that holds the lock, in place of an error.

    Yields:
        None.

    Raises:
        InUseError: another process holds the lock; the message names the process.
        MetarecError: the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=-1 if wait else 0, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
    with explained(path):
        try:
            lock.acquire()
        except Timeout as error:
            raise InUseError(
                f"{what} is in use by {_holder(path)}: wait until that has ended, or name another folder"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # Windows cannot remove an open file; filelock removes it after release
                path.unlink()
            lock.release()


def _sign(handle: int) -> None:
    """Write host, process id and time of the holder into the locked file."""
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}).encode(), 0)


def _holder(path: Path) -> str:
    try:
        found = read_json(path)
        return f"process {found['pid']} on {found['host']} (since {found['since']})"
    except (MetarecError, KeyError, TypeError):  # the holder has not written it yet, or has just removed it
        return "another process"
