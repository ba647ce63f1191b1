"""Common interface to the files of a folder and of a zip.

Each file of a zip is read into memory and never unpacked to disk, so that a malicious file name in a zip cannot cause a
write.
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
"""Suffixes of files that may be a table, alone or before a suffix of `_PACKED`. Without .txt: archives often contain a
README.txt."""
_PACKED = (".gz", ".zst", ".bz2", ".lz4")


class Folder:
    """Files of a folder or of a zip, by their names without folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, str] = {}  # name without folders -> name in the zip
        self.zipped = not os.path.isdir(path)  # unlike Path.is_dir, it never raises
        if self.zipped:
            require_regular(path)
        try:
            if self.zipped:
                with zipfile.ZipFile(path) as archive:
                    names = [info.filename for info in archive.infolist() if not info.is_dir()]
                # Of files with equal names, the one at the least depth is used; files that macOS adds are left out.
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
        """Return the names of the files whose suffix is that of a table."""

        def ending(name: str) -> str:
            path = PurePosixPath(name.lower())
            return PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix

        return [name for name in self.names if ending(name) in _TABLES]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> File:
        """Read the file called `name`.

        Raises:
            MetarecError: the file does not exist, is empty, or cannot be read.
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
        except (RuntimeError, NotImplementedError) as error:  # a password, or an unsupported compression method
            raise MetarecError(f"{where}: cannot be unpacked ({error}): give the unpacked folder instead") from error
        if not data:
            raise MetarecError(f"{where} is empty")
        return File(where, data)


def is_zip(path: Path) -> bool:
    """Whether `path` is a regular file that begins with the magic bytes of a zip."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            return handle.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def read_table_file(path: Path, option: str) -> File:
    """Read the file of one table.

    Args:
        path: path of the file, of a folder or zip that holds one table, or of a file in a zip (``ARCHIVE.zip/NAME``).
        option: command-line option that names the path, for error messages.

    Returns:
        The file, unpacked.

    Raises:
        MetarecError: the file is missing or damaged, or the folder or zip does not hold exactly one table.
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
