"""Reading of files: regular files are memory-mapped, compressed files are unpacked, at once or as a stream.

The format of a file is detected from its first bytes, not from its name.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from metarec_jax.core.atomic_files import explained
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.regular_files import require_regular

_BLOCK = 1 << 22  # bytes that are unpacked in one read
MOST_UNPACKED = 1 << 33
"""Greatest unpacked size of a compressed file, in bytes."""
IN_FILE = 1 << 26
"""Unpacked bytes above which they are in a temporary file."""
MOST_TIMES, FREE = 250, 1 << 26
"""Greatest ratio of unpacked to compressed size, and the unpacked size in bytes up to which any ratio is allowed."""

_PACKED: Mapping[str, bytes] = {
    "gzip": rb"\x1f\x8b",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "bz2": rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)",
    "lz4": rb"\x04\x22\x4d\x18",
}
_OTHER: Mapping[bytes, str] = {
    rb"PK\x03\x04": "a zip: unpack it",
    rb"\xfd7zXZ\x00": "compressed with xz: unpack it, or compress it with gzip or zstd",
    rb"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    rb"Rar!\x1a": "a RAR archive: unpack it",
    rb"(?s:.{257}ustar)": "a tar archive: unpack it",
    rb"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV",
    rb"SQLite format 3\x00": "an SQLite database: write the table as CSV or Parquet",
    rb"\x89HDF": "an HDF5 file: write the table as CSV or Parquet",
    rb"\x93NUMPY": "a NumPy array: write the table as CSV or Parquet",
    rb"ARROW1\x00|FEA1": "an Arrow file: write the table as Parquet",
    rb"\x80[\x02-\x05][\x80-\xff\x00-\x1f}\]c(]": "a pickle, which is never loaded: write the table as CSV or Parquet",
    rb"%PDF-": "a PDF document: give the table as CSV or Parquet",
    rb"(?i:\s*<!doctype html|\s*<html)": "a web page: the link leads to a page and not to the file itself",
}
"""Description of unsupported formats with a remedy, by the pattern of their first bytes."""


class File(NamedTuple):
    """Content of a file, and its name for messages."""

    name: str
    data: bytes | mmap.mmap


def read_file(path: Path, option: str = "") -> File:
    """Memory-map a file, or unpack it if it is compressed with gzip, zstd, bzip2 or lz4.

    Args:
        path: path of the file.
        option: command-line option that names the file, for error messages.

    Returns:
        The unpacked content.

    Raises:
        MetarecError: the file is missing, not regular, empty, unreadable or damaged, or its format is not a table.
    """
    return unpacked(File(str(path), map_file(path, option)))


def unpacked(file: File) -> File:
    """Unpack a file if it is compressed with gzip, zstd, bzip2 or lz4.

    Args:
        file: content of the file.

    Returns:
        The unpacked content.

    Raises:
        MetarecError: the data is damaged, or its format is not a table.
    """
    name, data = file
    codec = _codec(data)
    content = _unpacked(name, data, codec) if codec else data
    what = next((what for magic, what in _OTHER.items() if re.match(magic, content)), "")
    if codec and any(re.match(magic, content) for magic in _PACKED.values()):
        what = "a compressed file once more: unpack it"
    if what:
        raise MetarecError(f"{name} {'unpacks to' if codec else 'is'} {what}")
    return File(name, content)


@contextlib.contextmanager
def open_stream(path: Path, option: str = "") -> Iterator[BinaryIO]:
    """Open a file as a stream of its unpacked bytes, of which only a buffer is in memory.

    Args:
        path, option: as for `read_file`.

    Yields:
        The stream, from the first byte.

    Raises:
        MetarecError: the file is missing, not regular or unreadable, or its compressed data is damaged; also while the
            context reads from the stream.
    """
    import pyarrow as pa  # imported here because the import is slow

    require_regular(path, option)
    codec = ""
    try:
        with path.open("rb") as file:
            if codec := _codec(file.read(64)):
                packed = pa.CompressedInputStream(pa.OSFile(os.fsencode(path)), codec)
                with io.BufferedReader(packed, _BLOCK) as stream:  # pyrefly: ignore[bad-argument-type]
                    yield stream
            else:
                file.seek(0)
                yield file
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)[:200]
        what = (
            f"damaged or truncated {codec} data ({reason}): fetch it again" if codec else f"cannot be read ({reason})"
        )
        raise MetarecError(f"{path}: {what}") from error


def _codec(data: bytes | mmap.mmap) -> str:
    """The compression of data from its first bytes; "" for none."""
    return next((codec for codec, magic in _PACKED.items() if re.match(magic, data)), "")


def map_file(path: Path, option: str = "") -> mmap.mmap:
    """Memory-map a regular file.

    Args:
        path, option: as for `read_file`.

    Returns:
        The bytes of the file.

    Raises:
        MetarecError: the file is missing, not regular, empty or unreadable.
    """
    require_regular(path, option)
    try:
        with path.open("rb") as handle:
            if path.stat().st_size == 0:
                raise MetarecError(f"{path} is empty")
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise MetarecError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_expansion(name: str, packed: int, unpacked: int) -> None:
    """Raise an error if the unpacked size of a compressed file exceeds the limits.

    Args:
        name: name of the file.
        packed: compressed size, in bytes.
        unpacked: unpacked size, in bytes; a lower bound while unpacking is not finished.

    Raises:
        MetarecError: `unpacked` exceeds `MOST_UNPACKED`, or both `FREE` and `MOST_TIMES` times `packed`.
    """
    if unpacked > MOST_UNPACKED or (unpacked > FREE and unpacked > MOST_TIMES * packed):
        raise MetarecError(
            f"{name}: its {packed:,} bytes unpack to {unpacked:,} or more, which is more than is read of a compressed "
            f"file ({MOST_UNPACKED:,}, or {MOST_TIMES} times its size): if it is meant to be so, unpack it yourself"
        )


def _unpacked(name: str, data: bytes | mmap.mmap, codec: str) -> bytes | mmap.mmap:
    import pyarrow as pa  # imported here because the import is slow

    def parts(stream: Any) -> Iterator[bytes]:
        total = 0
        while part := stream.read(_BLOCK):
            total += len(part)
            check_expansion(name, len(data), total)
            yield part

    try:
        with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), codec) as stream:
            found = joined(parts(stream))
    except (pa.ArrowException, OSError) as error:
        raise MetarecError(f"{name}: damaged or truncated {codec} data ({str(error)[:200]}): fetch it again") from error
    if not len(found):
        raise MetarecError(f"{name} unpacks to nothing: it is empty")
    return found


def joined(parts: Iterable[bytes]) -> bytes | mmap.mmap:
    """Join parts of a file: in memory, or if they are large in a temporary file without a name, which is mapped.

    Args:
        parts: the parts, in order.

    Returns:
        All bytes.

    Raises:
        MetarecError: there is no room for the temporary file.
    """
    size = 0
    with tempfile.SpooledTemporaryFile(IN_FILE) as file:
        for part in parts:
            with explained(Path(tempfile.gettempdir())):
                size += file.write(part)
        if size <= IN_FILE:
            file.seek(0)
            return file.read()
        with explained(Path(tempfile.gettempdir())):
            file.flush()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
