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
"""How libraries that are not written in Python (safetensors, TensorStore) pass an error of the system on."""


def system_error(error: BaseException) -> OSError | None:
    """The error of the operating system that an exception is, or tells of in its text; None for others."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    found = None if isinstance(error, MetarecError) else _IN_TEXT.search(str(error))
    if found is None:
        return None
    number = int(next(filter(None, found.groups())))
    return OSError(number, os.strerror(number))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing `path` into a `MetarecError` with a remedy."""
    try:
        yield
    except Exception as error:
        found = error if isinstance(error, OSError) else system_error(error)
        if found is None:
            raise
        remedy = _REMEDIES.get(found.errno or 0, found.strerror or str(found))
        raise MetarecError(f"{found.filename or path}: cannot be written: {remedy}") from error


def make_folder(path: Path) -> Path:
    """Create `path` with its parents, prove that it can be written to, and return it."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    return path


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes `path`, on failure it is removed.

    Readers see the old file or the new one, whole, whatever happens in between. The temporary path lies in a folder of
    its own beside `path`, which takes what a library writes beside its file, too (see `remove_leftovers`).

    Args:
        path: of the file. Its mode is what the umask gives, whatever the library that writes it chooses.
        private: whether only the owner may read it.

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
                error.filename = str(path)  # the name that says something to whoever reads the message
            elif folder is None:
                error.filename = str(path)
            raise
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to write files to; on success it becomes `path`, on failure it is removed.

    Args:
        path: of the folder, which is not there yet, or empty. Modes are what the umask gives.

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
    """The mode that the umask gives to a new file at `path`, which is made and removed again."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
        path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, of which this process is the only writer."""
    for path in folder.glob(".*.part"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write `text` to `path`, whole or not at all; `private` as for `replacing`."""
    with replacing(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8")
