"""Files that a user names are regular ones: opening anything else may wait for ever."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from metarec_jax.core.errors import MetarecError

NO_PERMISSION = (
    "cannot be read: this account has no permission: have its owner allow it (chmod a+r on the file, a+rx on its "
    "folders)"
)
"""Message for a file that this account may not read, after its name."""


def require_regular(path: Path, option: str = "") -> None:
    """Refuse a path that opening would wait for, or that is no file.

    Args:
        path: of the file.
        option: the option that names it, for messages.

    Raises:
        MetarecError: it is not there, or a folder, a pipe, a socket or a device.
    """
    named = f"{option} {path}".strip()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MetarecError(f"{named}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise MetarecError(f"{named}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISDIR(mode):
        raise MetarecError(f"{named} is a folder: give a file in it")
    if not stat.S_ISREG(mode):
        raise MetarecError(f"{named} is a pipe or a device: write its content to a file, and give that")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading, without waiting for another process.

    Args:
        path: path of the file.

    Returns:
        The open file, in binary mode.

    Raises:
        OSError: the file cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits until another process writes to it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL byte in the name
        raise OSError(errno.EINVAL, str(error), repr(str(path))) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"it is {what}, and not a file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """Read a regular file.

    Args:
        path: path of the file.
        most: greatest size that is read, in bytes.

    Returns:
        Its bytes.

    Raises:
        OSError: as for `open_regular`, or the file is larger than `most`.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return data
