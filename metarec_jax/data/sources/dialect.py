"""Detection of the dialect of a text table: its separator, quotes, escapes and header."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NamedTuple

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.data.sources.encodings import as_utf8
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.records import Records, count_lines, has_byte

_CANDIDATES = (",", ";", "\t", "|", "::")  # of equally frequent candidates, the first is chosen
_NAMES = {"\t": "tabs", " ": "spaces", ",": "commas", ";": "semicolons"}
_NUMBER = re.compile(r"[+-]?\d+([.,]\d*)?([eE][+-]?\d+)?", re.ASCII)
_SAMPLE = 1 << 14  # bytes in which single quotes are looked for
_UNIT = "\x1f"  # a control character that does not occur in texts


class Format(NamedTuple):
    """Known properties of a text table; fields as the options of `metarec_jax.config.data.DataConfig`."""

    separator: str = ""
    header: str = "auto"
    quoting: str = "auto"
    escape: str = "auto"
    encoding: str = "auto"
    decimal: str = "auto"


class Dialect(NamedTuple):
    """Content of a text table, and the format that it is written in.

    Attributes:
        data: bytes after the header, in UTF-8; a separator of several bytes is replaced by a control character.
        names: names of the columns; without a header, their numbers from "1".
        header: whether the table has a header.
        separator: separator of the values in `data`.
        quoted: whether values may be enclosed in double quotes.
        escaped: whether a backslash escapes a quote.
        doubtful: whether a backslash may escape a quote if the table cannot be read otherwise.
        first_line: number of the first line of `data`, from 1.
        written: separator in the file.
        encoding: encoding of the file.
    """

    data: Any
    names: list[str]
    header: bool
    separator: str
    quoted: bool
    escaped: bool
    doubtful: bool
    first_line: int
    written: str
    encoding: str

    @property
    def sentence(self) -> str:
        """Return the format as a phrase for messages."""
        quotes = "double quotes" if self.quoted else "no quotes"
        escapes = " escaped by backslashes" if self.escaped else ""
        header = "a header" if self.header else "no header"
        between = _NAMES.get(self.written, repr(self.written))
        return f"values between {between}, {quotes}{escapes}, {header}, {self.encoding.upper()}"

    def records(self) -> Records:
        """Return the records after the header."""
        return Records(self.data, self.separator, self.quoted, self.escaped, self.first_line)


def recognise(file: File, known: Format, wanted: Collection[str] = ()) -> Dialect:
    """Detect the dialect of a text table.

    Args:
        file: content of the file.
        known: known properties, which are not detected.
        wanted: names of columns that a header may contain.

    Returns:
        The dialect and the decoded content.

    Raises:
        MetarecError: the file is not text, or has no line.
    """
    data, encoding = as_utf8(file, known.encoding)
    data = memoryview(data)
    separator, first_line = known.separator, 1
    while match := re.compile(rb"(?:sep=([^\r\n]))?(?:\r\n|\r|\n)").match(data):  # an empty line, or "sep=" of Excel
        separator = separator or (match.group(1) or b"").decode("utf-8", "ignore")
        data, first_line = data[match.end() :], first_line + 1
    head = _first_line(data)
    if not head:
        raise MetarecError(f"{file.name} holds no line of text")
    separator = separator or _separator(head)
    if separator == " " and not has_byte(data, b'"'):
        data = memoryview(_without_padding(bytes(data)))
        head = _first_line(data)
    if known.quoting == "auto":
        _refuse_single_quotes(file.name, data, separator, first_line)
    quoted, escaped, doubtful = _quotes(data, head, separator, known)
    if quoted and len(separator.encode()) > 1:
        raise MetarecError(
            f"{file.name}: --data.quoting double needs a separator of one character, and {separator!r} is none"
        )
    if len(separator.encode()) > 1:  # Arrow accepts only separators of one byte
        data, separator, written = bytes(data).replace(separator.encode(), _UNIT.encode()), _UNIT, separator
    else:
        written = separator
    first = next(iter(Records(data, separator, quoted, escaped, first_line)))
    names = [name.strip() for name in first.values]
    header = known.header == "yes" or (known.header == "auto" and _is_header(names, wanted))
    if header:
        first_line += count_lines(bytes(data[: first.end]))
        data = memoryview(data)[first.end :]
    else:
        names = [str(n) for n in range(1, len(names) + 1)]
    return Dialect(data, names, header, separator, quoted, escaped, doubtful, first_line, written, encoding)


def separator_name(separator: str) -> str:
    """Return the name of a separator for messages."""
    return {"\t": "tabs", _UNIT: "'::' (or the separator given)"}.get(separator, repr(separator))


def _first_line(data: Any) -> str:
    line = re.compile(rb"[^\r\n]*").match(data)
    return line.group().decode() if line else ""


def _without_padding(data: bytes) -> bytes:
    """Replace runs of spaces, which pad columns, by one space, and remove those at the ends of lines."""
    return re.sub(rb"(?:\A|(?<=[\r\n])) | (?=[\r\n]|\Z)", b"", re.sub(rb" {2,}", b" ", data))


def _refuse_single_quotes(name: str, data: Any, separator: str, first_line: int) -> None:
    """Raise an error if a column of the first lines, without a header, stands in single quotes."""
    lines = re.split(r"\r\n|\r|\n", bytes(data[:_SAMPLE]).decode("utf-8", "ignore"))
    values = [[value.strip() for value in line.split(separator)] for line in lines[: -1 if len(lines) > 2 else None]]
    rows = [row for row in values[1:] if row != [""]]
    for column in range(min(map(len, rows), default=0)):
        if all(re.fullmatch(r"'[^']*'", row[column]) for row in rows):
            line = first_line + next(n for n, row in enumerate(values) if n and row != [""])
            raise MetarecError(
                f"{name}, line {line}: {shown(rows[0][column])} stands in single quotes, as all values of column "
                f"{column + 1} do: write double quotes, or say --data.quoting none if they belong to the values"
            )


def _separator(head: str) -> str:
    counts = {candidate: head.count(candidate) for candidate in _CANDIDATES}
    found = max(_CANDIDATES, key=counts.__getitem__)
    return found if counts[found] or " " not in head.strip() else " "


def _quotes(data: Any, head: str, separator: str, known: Format) -> tuple[bool, bool, bool]:
    """Return whether values are quoted, whether backslashes escape quotes, and whether the latter is in doubt."""
    if known.quoting == "auto":
        # Tab-separated dumps are not quoted, unless the first value of the header is.
        first = head.split(separator)[0]
        quoted = len(separator.encode()) == 1 and (separator != "\t" or re.fullmatch(r'"[^"]*"', first) is not None)
    else:
        quoted = known.quoting == "double"
    quoted = quoted and has_byte(data, b'"')
    if not quoted or known.escape != "auto" or not has_byte(data, b"\\"):
        return quoted, quoted and known.escape == "backslash", False
    # A \" that is followed by text is an escaped quote: an unescaped quote would end the value there. A \" that is
    # followed by a quote that may end the value can be either.
    stop = re.escape(separator.encode()) + rb"\r\n"
    escaped = re.compile(rb'\\"[^"' + stop + rb"]").search(data) is not None
    return True, escaped, not escaped and re.compile(rb'\\""(?:[' + stop + rb"]|\Z)").search(data) is not None


def _is_header(names: list[str], wanted: Collection[str]) -> bool:
    numbers = any(_NUMBER.fullmatch(name) for name in names)
    if not numbers:
        return True
    # Numbers of columns, which the user gives for a table without a header, are not names.
    return any(name in names for name in wanted if not (name.isdecimal() and 0 < int(name[:9]) <= len(names)))
