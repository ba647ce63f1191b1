"""A folder of files or a .zip of one, with the same interface for readers.

A zip is read file by file into memory and never unpacked, so that a malicious file name in it cannot write anywhere.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from metarec_jax.core.errors import MetarecError, listed
from metarec_jax.core.regular_files import require_regular
from metarec_jax.data.sources.files import File, check_expansion, read_file

_TABLES = (".csv", ".tsv", ".dat", ".data", ".jsonl", ".ndjson", ".json", ".parquet")
"""Endings of files that are taken for a table where no name is given, also before those of `_PACKED`. Texts (.txt) are
not among them: archives come with a README."""
_PACKED = (".gz", ".zst", ".bz2", ".lz4")


class Folder:
    """The files of a folder, or of a zip (whatever top folder it has), by their plain names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, str] = {}  # plain name -> name in the zip
        self.zipped = not os.path.isdir(path)  # unlike Path.is_dir, it never raises
        if self.zipped:
            require_regular(path)
        try:
            if self.zipped:
                with zipfile.ZipFile(path) as archive:
                    names = [info.filename for info in archive.infolist() if not info.is_dir()]
                # Of equal names, the file nearest to the top is taken; files that macOS adds are left out.
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

    def tables(self) -> list[str]:
        """Names of the files that may be tables, by their endings."""

        def ending(name: str) -> str:
            path = PurePosixPath(name.lower())
            return PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix

        return [name for name in self.names if ending(name) in _TABLES]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> File:
        """The content of the file called `name`.

        Raises:
            MetarecError: there is none, it is empty, or it cannot be read.
        """
        if name not in self.names:
            raise MetarecError(f"{self.path} has no file {name}; it holds {listed(self.names) or 'nothing'}")
        if not self.zipped:
            return read_file(self.path / name)
        where = f"{self.path}/{self._members[name]}"
        try:
            with zipfile.ZipFile(self.path) as archive:
                member = archive.getinfo(self._members[name])
                check_expansion(where, member.compress_size, member.file_size)
                data = archive.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise MetarecError(f"{where}: damaged ({error}): fetch the zip again") from error
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method Python does not know
            raise MetarecError(f"{where}: cannot be unpacked ({error}): give the unpacked folder instead") from error
        if not data:
            raise MetarecError(f"{where} is empty")
        return File(where, data)


def is_zip(path: Path) -> bool:
    """Whether `path` is a regular file that begins as a zip does."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            return handle.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def read_table_file(path: Path, option: str) -> File:
    """The file of one table: `path`, the only table in the folder or zip `path`, or ``ARCHIVE.zip/NAME``.

    Args:
        path: of the file, of the folder or zip, or of the file in the zip.
        option: the option that names it, for messages.

    Raises:
        MetarecError: it is not there, it is damaged, or a folder or zip holds no table or several.
    """
    if is_zip(path.parent):
        return Folder(path.parent).read(path.name)
    return _only_table(Folder(path), option) if os.path.isdir(path) or is_zip(path) else read_file(path, option)


def _only_table(folder: Folder, option: str) -> File:
    if "[Content_Types].xml" in folder:
        raise MetarecError(f"{option} {folder.path} is an Office document: save the sheet as CSV")
    tables = folder.tables()
    if len(tables) == 1:
        return folder.read(tables[0])
    raise MetarecError(
        f"{option} {folder.path} holds {len(tables) or 'no'} tables ({listed(folder.names) or 'nothing'}): name "
        f"the one that is meant, as {option} {folder.path}/{tables[0] if tables else 'NAME.csv'}"
    )
