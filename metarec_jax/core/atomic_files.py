"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from metarec_jax.core.errors import MetarecError

_AGAIN = "free some space, then run the same command again"
_REMEDIES = {
    errno.ENOSPC: f"{os.strerror(errno.ENOSPC)}: {_AGAIN}",
    errno.EDQUOT: f"{os.strerror(errno.EDQUOT)}: {_AGAIN}",
    errno.EACCES: "there is no permission to write there: name another folder, or change its permissions",
    errno.EPERM: "there is no permission to write there: name another folder, or change its permissions",
    errno.EROFS: "the file system is read-only: name another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder: name another folder",
    errno.EFBIG: "that is larger than a file may be: raise the limit (ulimit -f), or name a folder on another disk",
    errno.EEXIST: "a file of that name is in the way: name another folder",
}
_IN_TEXT = re.compile(r"\(os error (\d+)\)|os_error_code='(\d+)'|\[Errno (\d+)\]")
"""Forms in which native libraries (safetensors, TensorStore) write the errno of a system error in a message."""


def system_error(error: BaseException) -> OSError | None:
    """Return an exception as an `OSError`, if it is one or its message contains an errno; None otherwise."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    found = None if isinstance(error, MetarecError) else _IN_TEXT.search(str(error))
    if found is None:
        return None
    number = int(next(filter(None, found.groups())))
    return OSError(number, os.strerror(number))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise a system error from writing `path` as a `MetarecError` with a remedy."""
    try:
        yield
    except Exception as error:
        found = error if isinstance(error, OSError) else system_error(error)
        if found is None:
            raise
        remedy = _REMEDIES.get(found.errno or 0, found.strerror or str(found))
        raise MetarecError(f"{found.filename or path}: cannot be written: {remedy}") from error


def make_folder(path: Path) -> Path:
    """Create the folder `path` with its parents, check that it is writable, and return it."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    return path


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Replace a file atomically: a temporary file becomes `path` on success and is removed on failure.

    Readers see either the complete old file or the complete new one. The temporary file lies in its own folder beside
    `path`, which also receives any auxiliary files that a library writes (see `remove_leftovers`).

    Args:
        path: path of the file. Its mode follows the umask, whatever mode the writing library sets.
        private: whether only the owner may read the file.

    Yields:
        The temporary path to write to.

    Raises:
        MetarecError: the file cannot be written.
    """
    folder = None
    with explained(path):
        try:
            folder = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=path.parent))
            temporary = folder / path.name
            mode = 0o600 if private else _usual_mode(temporary)
            yield temporary
            temporary.chmod(mode)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            if folder is not None and str(error.filename).startswith(str(folder)):
                error.filename = str(path)  # the message names the user's path, not the temporary one
            elif folder is None:
                error.filename = str(path)
            raise
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create a folder atomically: a temporary folder becomes `path` on success and is removed on failure.

    Args:
        path: path of the folder, which must not exist or must be empty. The modes of its files follow the umask.

    Yields:
        The temporary folder to write files to.

    Raises:
        MetarecError: the folder cannot be written.
    """
    outer = None
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            outer = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=path.parent))
            part = outer / path.name
            part.mkdir()
            yield part
            mode = _usual_mode(outer / "file")
            for file in part.rglob("*"):
                if file.is_file():
                    file.chmod(mode)
                    with open(file, "rb") as handle:
                        os.fsync(handle.fileno())
            os.replace(part, path)
        except OSError as error:
            if outer is None or str(error.filename).startswith(str(outer)):
                error.filename = str(path)
            raise
        finally:
            if outer is not None:
                shutil.rmtree(outer, ignore_errors=True)


def _usual_mode(path: Path) -> int:
    """Return the mode that the umask gives to a new file, by creating and removing a file at `path`."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
        path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder. This process must be its only writer."""
    for path in folder.glob(".*.part"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file atomically, in UTF-8.

    Args:
        path: path of the file.
        text: content of the file.
        private: as for `replacing`.

    Raises:
        MetarecError: the file cannot be written.
    """
    with replacing(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8")
