"""Iteration over the records of a text table with their line numbers, and checks of its quotes.

Tables are read by Arrow, which is many times faster. This module reads the header, finds the line of an invalid record,
and detects quoted values that enclose several rows, which Arrow accepts without an error.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.core.errors import MetarecError, shown

MOST_LINES = 100
"""Greatest number of lines in a quoted value, unless the user requests quoting."""
_BLOCK = 1 << 18  # bytes per block in which rows are counted, which fits the CPU cache


class Record(NamedTuple):
    """A record of a text table.

    Attributes:
        line: number of its first line, from 1.
        values: values of the record, without quotes.
        end: offset of the byte after its line end.
        closed: whether all its quotes are closed.
    """

    line: int
    values: list[str]
    end: int
    closed: bool


class Records:
    """Records of a text table; empty lines are skipped.

    Args:
        data: UTF-8 bytes.
        separator: separator of the values, one character.
        quoted: whether values may be enclosed in double quotes.
        escaped: whether a backslash escapes the next character.
        first_line: number of the first line of `data`.
    """

    def __init__(self, data: Any, separator: str, quoted: bool, escaped: bool, first_line: int = 1) -> None:
        self.data, self.separator, self.quoted, self.escaped = data, separator.encode(), quoted, escaped
        self.first_line = first_line
        stop = re.escape(self.separator) + rb"\r\n"
        plain = rb"(?:[^" + stop + rb"\\]|\\(?:.|\Z))*" if escaped else rb"[^" + stop + rb"]*"
        inner = rb'[^"\\]*(?:(?:""|\\(?:.|\Z))[^"\\]*)*' if escaped else rb'[^"]*(?:""[^"]*)*'
        quotes = rb'(?:"(' + inner + rb')("?))?' if quoted else rb"()()"
        self._value = re.compile(
            quotes + rb"(" + plain + rb")([" + re.escape(self.separator) + rb"]|\r\n|\r|\n|\Z)", re.S
        )
        start = rb"(?:\A|(?<=[" + stop + rb"]))"
        self._quoted = re.compile(start + rb'"' + inner + rb'("?)', re.S)
        self._stop = re.compile(rb"[" + stop + rb"]|\Z")

    def __iter__(self) -> Iterator[Record]:
        line = begun = self.first_line
        values: list[str] = []
        closed = True
        for match in self._value.finditer(self.data):
            inner, quote, plain, end = match.groups()
            closed &= inner is None or quote == b'"' or not self.quoted
            values.append(self._text(inner, plain))
            if inner:
                line += count_lines(inner)
            if end == self.separator:
                continue
            if values != [""] or (inner is not None and self.quoted):
                yield Record(begun, values, match.end(), closed)
            line += 1
            begun, values, closed = line, [], True

    def _text(self, inner: bytes | None, plain: bytes) -> str:
        text = (inner or b"").replace(b'""', b'"') + plain
        if self.escaped:
            text = re.sub(rb"\\(.)", rb"\1", text, flags=re.S)
        return text.decode("utf-8", "replace")

    def line_of(self, row: int) -> int:
        """Return the number of the first line of the record with index `row`, from 0."""
        return next(itertools.islice(self, row, None)).line

    def count(self, name: str, width: int, lenient: bool) -> int:
        """Count the records: line ends outside quotes, without empty lines.

        Args:
            name: name of the file.
            width: number of values in a record.
            lenient: whether a quoted value may have any number of lines, including lines that look like rows.

        Returns:
            The number of records.

        Raises:
            MetarecError: a quoted value is not closed or is followed by text, or, unless `lenient`, has more than
                `MOST_LINES` lines or contains a line that looks like its own row.
        """
        inside = 0
        for match in self._quoted.finditer(self.data):
            start, end = match.span()
            value = match.group()
            if b"\n" not in value and b"\r" not in value and match.group(1):
                continue
            if not match.group(1):
                fault = "it is not closed at the end of the file"
            elif not self._stop.match(self.data, end):
                fault = f"text follows where it is closed, in line {self._line_at(end)}"
            elif count_lines(value) > MOST_LINES and not lenient:
                fault = f"it is closed {count_lines(value):,} lines below"
            elif not lenient and self._holds_a_row(start, end, width):
                fault = f"it is closed in line {self._line_at(end)}, and lines between look like rows"
            else:
                inside += count_rows(value) - 1
                continue
            quote = shown(value[:60].decode("utf-8", "replace"))
            raise MetarecError(
                f"{name}, line {self._line_at(start)}: a double quote opens the value {quote}, and {fault}: say "
                "--data.quoting none if quotes have no meaning in this file, --data.escape backslash if they are "
                "escaped so, --data.quoting double if values do have many lines; otherwise close the quote"
            )
        return count_rows(self.data) - inside

    def ends_closed(self) -> bool:
        """Whether all quotes of the last line are closed; only valid if no record has several lines."""
        data, size = self.data, 1 << 12
        while True:
            tail = re.search(rb"[^\r\n]+[\r\n]*\Z", bytes(data[-size:]))
            if tail is None or tail.start() > 0 or size >= len(data):
                break
            size *= 16
        rows = Records(tail.group(), self.separator.decode(), self.quoted, self.escaped) if tail else ()
        return all(row.closed for row in rows)

    def _holds_a_row(self, start: int, end: int, width: int) -> bool:
        """Whether a line of the quoted value from offset `start` to `end` looks like the row that contains it."""
        data = self.data
        before = bytes(data[max(0, start - 10_000) : start])
        before = re.split(rb"[\r\n]", before)[-1].split(self.separator)[:-1]
        rest = re.search(rb"[^\r\n]*", data[end : end + 10_000]).group()  # type: ignore[union-attr]
        after = rest.split(self.separator)[1:]
        if len(before) + 1 + len(after) != width:
            return False
        want = [_shape(value) for value in (*before, *after)]
        if not any(b"9" in shape for shape in want):
            return False
        for line in re.split(rb"[\r\n]+", bytes(data[start:end]) + rest)[1:]:
            values = line.split(self.separator)
            if len(values) == width and [_shape(v) for v in values[: len(before)] + values[len(before) + 1 :]] == want:
                return True
        return False

    def _line_at(self, offset: int) -> int:
        return self.first_line + count_lines(bytes(self.data[:offset]))


def count_lines(text: bytes) -> int:
    r"""Count the line ends: \n, \r\n or \r."""
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


def has_byte(data: Any, byte: bytes) -> bool:
    """Whether a buffer contains a byte. It uses ``find``, which is faster than a regular expression.

    Args:
        data: bytes, an mmap, or a memoryview, whose whole underlying object is searched.
        byte: the byte, as bytes of length 1.

    Returns:
        True if `byte` occurs.
    """
    return getattr(data, "obj", data).find(byte) >= 0


def count_rows(data: Any) -> int:
    """Count the lines of `data` that are not empty."""
    array, rows, before = np.frombuffer(data, np.uint8), 0, True
    for start in range(0, len(array), _BLOCK):
        block = array[start : start + _BLOCK]
        ends = (block == 10) | (block == 13)
        rows += int(np.count_nonzero(ends[:-1] & ~ends[1:])) + int(before and not ends[0])
        before = bool(ends[-1])
    return rows


def _shape(value: bytes) -> bytes:
    """Replace runs of digits by 9 and of letters by a; return b"9" for a number, b"t" for text with blanks."""
    value = value.strip().strip(b'"')
    if re.search(rb"\s", value):
        return b"t"
    if re.fullmatch(rb"[+-]?[0-9]+([.,][0-9]*)?([eE][+-]?[0-9]+)?", value):
        return b"9"
    return re.sub(rb"[A-Za-z\x80-\xff]+", b"a", re.sub(rb"[0-9]+", b"9", value))
