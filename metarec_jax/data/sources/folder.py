"""A folder of files or a .zip of one, with the same interface for readers.

A zip is read file by file into memory and never unpacked, so that a malicious file name in it cannot write anywhere.
"""

from __future__ import annotations

import mmap
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from metarec_jax.core.errors import MetarecError


class File(NamedTuple):
    """The content of one file, and its name for messages."""

    name: str
    data: bytes | mmap.mmap


def read_file(path: Path) -> File:
    """Memory-map a file.

    Raises:
        MetarecError: the file cannot be read, or is empty.
    """
    try:
        with path.open("rb") as handle:
            if path.stat().st_size == 0:
                raise MetarecError(f"{path} is empty")
            return File(str(path), mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise MetarecError(f"{path}: cannot be read ({error.strerror or error})") from error


class Folder:
    """The files of a folder or of a zip, by their names without folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, str] = {}  # plain name -> name in the zip
        self.zipped = path.is_file()
        try:
            if self.zipped:
                with zipfile.ZipFile(path) as archive:
                    names = [info.filename for info in archive.infolist() if not info.is_dir()]
                # If names are equal, the file nearest to the top is taken; files that macOS adds are left out.
                for name in sorted(names, key=lambda name: (name.count("/"), name)):
                    if not name.startswith("__MACOSX/"):
                        self._members.setdefault(PurePosixPath(name).name, name)
                self.names = tuple(self._members)
            else:
                self.names = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_file()))
        except zipfile.BadZipFile as error:
            raise MetarecError(f"{path}: not a zip file, or a truncated one ({error}): fetch it again") from error
        except OSError as error:
            raise MetarecError(f"{path}: cannot be read ({error.strerror or error})") from error

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> File:
        """Read the file called `name`.

        Raises:
            MetarecError: there is no such file, it is empty, or it cannot be read.
        """
        if name not in self.names:
            raise MetarecError(f"{self.path} has no file {name}; it holds {', '.join(self.names[:12]) or 'nothing'}")
        if not self.zipped:
            return read_file(self.path / name)
        where = f"{self.path}/{self._members[name]}"
        try:
            with zipfile.ZipFile(self.path) as archive:
                data = archive.read(self._members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise MetarecError(f"{where}: damaged ({error}): fetch the zip again") from error
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method Python does not know
            raise MetarecError(f"{where}: cannot be unpacked ({error}): give the unpacked folder instead") from error
        if not data:
            raise MetarecError(f"{where} is empty")
        return File(where, data)
