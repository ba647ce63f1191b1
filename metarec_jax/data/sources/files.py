"""Files as they are: only regular ones are opened, and compressed ones are unpacked.

What a file is, is told by its first bytes and not by its name.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.regular_files import require_regular

_BLOCK = 1 << 22  # bytes that are unpacked at a time
MOST_UNPACKED = 1 << 33
"""Bytes that a compressed file may unpack to."""
MOST_TIMES, FREE = 250, 1 << 26
"""Beyond `FREE` bytes, a compressed file may unpack to this many times its size."""

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
"""Patterns of a file's first bytes, and what such a file is, with the remedy."""


class File(NamedTuple):
    """The content of one file, and its name for messages."""

    name: str
    data: bytes | mmap.mmap


def read_file(path: Path, option: str = "") -> File:
    """The content of a file: memory-mapped, or unpacked if it is compressed with gzip, zstd, bzip2 or lz4.

    Args:
        path: of the file.
        option: the option that names it, for messages.

    Raises:
        MetarecError: it is not there, no regular file, empty, unreadable, damaged, or of a kind that is no table.
    """
    data = map_file(path, option)
    codec = next((codec for codec, magic in _PACKED.items() if re.match(magic, data)), "")
    content = _unpacked(str(path), data, codec) if codec else data
    what = next((what for magic, what in _OTHER.items() if re.match(magic, content)), "")
    if what:
        raise MetarecError(f"{path} {'unpacks to' if codec else 'is'} {what}")
    return File(str(path), content)


def map_file(path: Path, option: str = "") -> mmap.mmap:
    """The bytes of a regular file, memory-mapped; arguments and errors as of `read_file`."""
    require_regular(path, option)
    try:
        with path.open("rb") as handle:
            if path.stat().st_size == 0:
                raise MetarecError(f"{path} is empty")
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise MetarecError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_expansion(name: str, packed: int, unpacked: int) -> None:
    """Refuse content that is out of proportion to the file that it comes from.

    Args:
        name: of the file.
        packed: bytes of the file.
        unpacked: bytes that it holds, as far as is known.

    Raises:
        MetarecError: `unpacked` exceeds `MOST_UNPACKED`, or `FREE` and `MOST_TIMES` times `packed`.
    """
    if unpacked > MOST_UNPACKED or (unpacked > FREE and unpacked > MOST_TIMES * packed):
        raise MetarecError(
            f"{name}: its {packed:,} bytes unpack to {unpacked:,} or more, which is more than is read of a compressed "
            f"file ({MOST_UNPACKED:,}, or {MOST_TIMES} times its size): if it is meant to be so, unpack it yourself"
        )


def _unpacked(name: str, data: mmap.mmap, codec: str) -> bytes:
    parts, total = [], 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), codec) as stream:
            while part := stream.read(_BLOCK):
                total += len(part)
                check_expansion(name, len(data), total)
                parts.append(part)
    except (pa.ArrowException, OSError) as error:
        raise MetarecError(f"{name}: damaged or truncated {codec} data ({str(error)[:200]}): fetch it again") from error
    if not total:
        raise MetarecError(f"{name} unpacks to nothing: it is empty")
    return b"".join(parts)
