"""Common interface to the files of a folder and of a zip.

A file of a zip is read into memory, or if it is large into a temporary file without a name, so that a malicious file
name in a zip cannot cause a write.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from metarec_jax.core.errors import MetarecError, listed
from metarec_jax.core.regular_files import require_regular
from metarec_jax.data.sources.files import File, check_expansion, joined, read_file, unpacked

_TABLES = (".csv", ".tsv", ".dat", ".data", ".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of files that may be a table, alone or before a suffix of `_PACKED`. Without .txt: archives often contain a
README.txt."""
_PACKED = (".gz", ".zst", ".bz2", ".lz4")
_BLOCK = 1 << 22
_ATOMIC = (".inter", ".item", ".user")
"""Suffixes of RecBole's atomic files, and of MovieLens-100K."""


class Folder:
    """Files of a folder or of a zip, by their names without folders.

    A folder that holds no table itself stands for the folders in it, such as those of training and validation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[
            str, list[str]
        ] = {}  # name without folders -> names in the folder or zip, least depth first
        self.zipped = not os.path.isdir(path)  # unlike Path.is_dir, it never raises
        if self.zipped:
            require_regular(path)
        try:
            if self.zipped:
                with zipfile.ZipFile(path) as archive:
                    names = [info.filename for info in archive.infolist() if not info.is_dir()]
                # Of files with equal names, that at the least depth comes first; files that macOS adds are left out.
                names = [name for name in names if not name.startswith("__MACOSX/")]
                self._add(sorted(names, key=lambda name: (name.count("/"), name)))
            else:
                self._add(sorted(entry.name for entry in path.iterdir() if entry.is_file()))
                if not any(_is_table(name, (*_TABLES, *_ATOMIC)) for name in self.names):
                    self._add(sorted(f"{entry.parent.name}/{entry.name}" for entry in _in_folders(path)))
        except zipfile.BadZipFile as error:
            raise MetarecError(f"{path}: not a zip file, or a truncated one ({error}): fetch it again") from error
        except OSError as error:
            raise MetarecError(f"{path}: cannot be read ({error.strerror or error})") from error

    def tables(self) -> list[str]:
        """Return the names of the files whose suffix is that of a table."""
        return [name for name in self.names if _is_table(name, _TABLES)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files, without folders."""
        return tuple(self._members)

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the names of the files that match one of `patterns`, such as ``*.inter``."""
        return [name for name in self.names if any(fnmatchcase(name, pattern) for pattern in patterns)]

    def _add(self, paths: list[str]) -> None:
        for path in paths:
            self._members.setdefault(PurePosixPath(path).name, []).append(path)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> File:
        """Read the file called `name`.

        Raises:
            MetarecError: the file does not exist, is empty, or cannot be read.
        """
        return self._read(self._paths(name)[0])

    def read_all(self, name: str) -> list[File]:
        """Read every file called `name`, whatever folder it is in.

        Raises:
            MetarecError: as for `read`.
        """
        return [self._read(path) for path in self._paths(name)]

    def _paths(self, name: str) -> list[str]:
        if name not in self._members:
            raise MetarecError(f"{self.path} has no file {name}; it holds {listed(self.names) or 'nothing'}")
        return self._members[name]

    def _read(self, path: str) -> File:
        if not self.zipped:
            return read_file(self.path / path)
        where = f"{self.path}/{path}"
        try:
            with zipfile.ZipFile(self.path) as archive:
                member = archive.getinfo(path)
                check_expansion(where, member.compress_size, member.file_size)
                with archive.open(member) as stream:
                    data = joined(iter(lambda: stream.read(_BLOCK), b""))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise MetarecError(f"{where}: damaged ({error}): fetch the zip again") from error
        except (RuntimeError, NotImplementedError) as error:  # a password, or an unsupported compression method
            raise MetarecError(f"{where}: cannot be unpacked ({error}): give the unpacked folder instead") from error
        if not len(data):
            raise MetarecError(f"{where} is empty")
        return unpacked(File(where, data))


def _is_table(name: str, suffixes: Sequence[str]) -> bool:
    path = PurePosixPath(name.lower())
    return (PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix) in suffixes


def _in_folders(path: Path) -> Iterator[Path]:
    """Yield the files of the folders in `path` that can be read."""
    for folder in path.iterdir():
        if not folder.name.startswith(".") and os.path.isdir(folder):
            with contextlib.suppress(OSError):
                yield from (entry for entry in folder.iterdir() if entry.is_file())


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
