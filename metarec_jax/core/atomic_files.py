"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from metarec_jax.core.errors import MetarecError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or name a folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space, or name a folder on another disk",
    errno.EACCES: "there is no permission to write there: name another folder, or change its permissions",
    errno.EPERM: "there is no permission to write there: name another folder, or change its permissions",
    errno.EROFS: "the file system is read-only: name another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder: name another folder",
    errno.EFBIG: "that is larger than a file may be: raise the limit (ulimit -f), or name a folder on another disk",
    errno.EEXIST: "a file of that name is in the way: name another folder",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system about writing `path` into a `MetarecError` with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
        raise MetarecError(f"{error.filename or path}: cannot be written: {remedy}") from error


def make_folder(path: Path) -> Path:
    """Create `path` with its parents, and check that it can be written to."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` to write to; on success it replaces `path`, on failure it is removed.

    Readers see either the complete old file or the complete new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explained(path):
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            if str(error.filename) == str(temporary):
                error.filename = str(path)  # the temporary name would mean nothing to a user
            raise
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Args:
        path: path of the file.
        text: content of the file.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
