"""Text of any encoding, as UTF-8."""

from __future__ import annotations

import codecs
from typing import Any

import numpy as np
import pyarrow as pa

from metarec_jax.core.errors import MetarecError
from metarec_jax.data.sources.files import File

UTF8_OR_LATIN1 = "utf-8 or latin-1"
"""An encoding for `as_utf8` alone: Latin-1 where a file is not UTF-8."""
_MARKS = (  # byte order marks; that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def as_utf8(file: File, encoding: str) -> tuple[Any, str]:
    """A file's text as UTF-8 bytes, without byte order mark and NUL.

    Args:
        file: its content.
        encoding: of the file; "auto" goes by the byte order mark, and is UTF-8 without one.

    Returns:
        The bytes, which are not copied where they are UTF-8, and the name of the encoding.

    Raises:
        MetarecError: bytes that are no text.
    """
    data: Any = file.data
    start, marked = next(((mark, name) for mark, name in _MARKS if data[: len(mark)] == mark), (b"", ""))
    name = encoding if encoding not in ("auto", UTF8_OR_LATIN1) else marked or "utf-8"
    utf8 = codecs.lookup(name).name in ("utf-8", "utf-8-sig")
    if utf8 and start == codecs.BOM_UTF8:
        data = memoryview(data)[len(start) :]
    if not utf8:
        data = _decoded(file.name, bytes(data), name).removeprefix("\ufeff").encode()
    nul = (data if isinstance(data, bytes) else file.data).find(b"\0")
    if nul >= 0:
        raise MetarecError(
            f"{file.name}, line {_line_at(data, nul)}: a NUL byte, which text files do not have: save the file "
            "as UTF-8 text (it may be truncated, or binary, or say its encoding with --data.encoding utf-16-le)"
        )
    if utf8 and not _is_utf8(data):
        if encoding == UTF8_OR_LATIN1:
            return bytes(data).decode("latin-1").encode(), "latin-1"
        _decoded(file.name, bytes(data), name)
    return data, name


def _is_utf8(data: Any) -> bool:
    """Checked as one Arrow string, which copies nothing; decoding would copy the file."""
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(data)]).validate(full=True)
        return True
    except pa.ArrowInvalid:
        return False


def _decoded(name: str, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        what = f"byte 0x{data[start]:02x}" if data[start:] else "the end of the file"
        raise MetarecError(
            f"{name}, line {_line_at(data, start)}: {what} is not {encoding.upper()} text: save the file as UTF-8, or "
            "say its encoding, as --data.encoding cp1252 (Windows) or latin-1"
        ) from error


def _line_at(data: Any, offset: int) -> int:
    return bytes(data[:offset]).count(b"\n") + 1
