"""Files that a user names are regular ones: opening anything else may wait for ever."""

from __future__ import annotations

import stat
from pathlib import Path

from metarec_jax.core.errors import MetarecError


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
