"""Columns of a text file with separators, or of a Parquet file, as a `Table`.

Arrow parses 25 million rows in seconds, but does not report the line of an error. After an error the slower csv module
parses the file again to find the line.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from metarec_jax.core.errors import MetarecError
from metarec_jax.data.sources.folder import File
from metarec_jax.data.values import Table

_BLOCK = 1 << 24  # bytes that Arrow parses at a time


def read_text(
    file: File,
    columns: Mapping[str, str],
    *,
    separator: str = "",
    names: Sequence[str] = (),
    quoted: bool = False,
    latin1: bool = False,
    options: Mapping[str, str] | None = None,
    typed_header: bool = False,
    numeric: bool = False,
    rest: bool = False,
) -> Table:
    """Read columns of a text file, with values as strings.

    Args:
        file: content of the file.
        columns: name in the table -> name in the file, of each wanted column.
        separator: one or more characters between values; "" takes the most frequent of , ; and tab in the header.
        names: names of the file's columns, in order, where it has no header line.
        quoted: whether values may stand in double quotes (CSV).
        latin1: whether a file that is not UTF-8 is in Latin-1.
        options: column -> command-line option that names it, with {} for the name, for messages.
        typed_header: whether the header writes ``name:type`` (RecBole).
        numeric: whether all wanted columns are whole numbers (ratings: any numbers), which is several times as fast. A
            file that has other values is read as strings, so that `build` can report them.
        rest: whether all other columns are wanted too, under their own names.

    Returns:
        The wanted columns.

    Raises:
        MetarecError: the file is not text, a line has the wrong number of values, or a column is missing.
    """
    data = _as_utf8(file, latin1)
    if len(separator) > 1:
        # Arrow splits at one character only: this control character does not occur in texts.
        data, separator = bytes(data).replace(separator.encode(), b"\x1f"), "\x1f"
    if not names:
        header = bytes(data[: _end_of_line(data)]).decode().removeprefix("\ufeff")
        separator = separator or max(",;\t", key=header.count)
        names = next(csv.reader([header], delimiter=separator, quoting=_quoting(quoted)), [])
        if typed_header:
            names = [name.split(":")[0] for name in names]
        first_line = 2
    else:
        first_line = 1
    names = [name.strip() for name in names]
    _refuse_equal_names(file, names)
    wanted = _select(file, names, columns, options or {}, rest)
    body = Body(file.name, data, separator, quoted, first_line, len(names))
    parsed = None
    if numeric:
        numbers = {name: pa.float64() if column == "rating" else pa.int64() for column, name in wanted.items()}
        parsed = body.parse_numbers(names, numbers)
    if parsed is None:
        parsed = body.parse(names, dict.fromkeys(wanted.values(), pa.string()))
    return Table(
        name=file.name,
        columns={column: parsed.column(name) for column, name in wanted.items()},
        place=lambda row: f"line {body.line_of(row)}",
        labels=wanted,
    )


def read_parquet(
    file: File, columns: Mapping[str, str], *, options: Mapping[str, str] | None = None, rest: bool = False
) -> Table:
    """Read columns of a Parquet file: ids and texts as strings; ratings, times and vectors in their own types.

    Args:
        file: content of the file.
        columns: as for `read_text`.
        options: as for `read_text`.
        rest: as for `read_text`.

    Returns:
        The wanted columns.

    Raises:
        MetarecError: the file is not Parquet, or a column is missing.
    """
    try:
        parquet = pyarrow.parquet.ParquetFile(pa.BufferReader(pa.py_buffer(file.data)))
        names = parquet.schema_arrow.names
        _refuse_equal_names(file, names)
        wanted = _select(file, names, columns, options or {}, rest)
        parsed = parquet.read(columns=sorted(set(wanted.values())))
    except pa.ArrowException as error:
        raise MetarecError(f"{file.name}: not a Parquet file, or a damaged one ({_first_line(error)})") from error
    return _typed(file, parsed, wanted)


def read_arrow(name: str, parsed: pa.Table, columns: Mapping[str, str], *, options: Mapping[str, str]) -> Table:
    """Read columns of an Arrow table, as those of a Parquet file.

    Args:
        name: name of the table, for messages.
        parsed: the table.
        columns: as for `read_text`.
        options: as for `read_text`.

    Returns:
        The wanted columns.

    Raises:
        MetarecError: a column is missing, or holds neither texts nor numbers.
    """
    file = File(name, b"")
    _refuse_equal_names(file, parsed.column_names)
    return _typed(file, parsed, _select(file, parsed.column_names, columns, options, False))


def _typed(file: File, parsed: pa.Table, wanted: Mapping[str, str]) -> Table:
    """Ids and texts of Arrow columns as strings; ratings, times and vectors in their own types."""
    numeric = ("rating", "time", "item_vector")
    return Table(
        name=file.name,
        columns={
            column: parsed.column(name) if column in numeric else _as_strings(file, name, parsed.column(name))
            for column, name in wanted.items()
        },
        place=lambda row: f"row {row + 1}",
        labels=wanted,
    )


class Body:
    """The lines of a text file below its header.

    Args:
        name: name of the file.
        data: its bytes.
        separator: one character.
        quoted: as for `read_text`.
        first_line: number of the first line below the header: 1 or 2.
        width: number of values in a line.
    """

    def __init__(self, name: str, data: Any, separator: str, quoted: bool, first_line: int, width: int) -> None:
        self.name, self.data, self.separator, self.quoted = name, data, separator, quoted
        self.first_line, self.width = first_line, width

    def parse(self, names: Sequence[str], kinds: Mapping[str, pa.DataType]) -> pa.Table:
        """Parse columns.

        Args:
            names: names of all columns of the file.
            kinds: types of the wanted columns, by name.

        Returns:
            The columns.
        """
        start = _end_of_line(self.data) + 1 if self.first_line == 2 else 0
        if not re.compile(rb"[^\r\n]").search(self.data, start):  # no line: an error for Arrow
            return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
        try:
            return self._parse(names, kinds)
        except pa.ArrowInvalid as error:
            raise self._diagnosis(error) from error

    def parse_numbers(self, names: Sequence[str], kinds: Mapping[str, pa.DataType]) -> pa.Table | None:
        """Parse columns of numbers.

        Args:
            names: names of all columns of the file.
            kinds: types of the wanted columns, by name.

        Returns:
            The columns; None where a value is missing or is not a number.
        """
        try:
            table = self._parse(names, kinds)
        except pa.ArrowInvalid:
            return None
        return None if any(column.null_count for column in table.columns) else table

    def _parse(self, names: Sequence[str], kinds: Mapping[str, pa.DataType]) -> pa.Table:
        return pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(self.data)),
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(names), skip_rows=self.first_line - 1, block_size=_BLOCK
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self.separator, quote_char='"' if self.quoted else False, newlines_in_values=self.quoted
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(kinds), column_types=dict(kinds), strings_can_be_null=False
            ),
        )

    def line_of(self, row: int) -> int:
        """The number of the line (from 1) that a row (from 0) begins on."""
        for index, (line, _) in enumerate(self._records()):
            if index == row:
                return line
        raise IndexError(row)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        text = io.TextIOWrapper(io.BytesIO(self.data), encoding="utf-8", errors="replace", newline="")
        lines = csv.reader(text, delimiter=self.separator, quoting=_quoting(self.quoted))
        before = 0
        for fields in lines:
            if fields and before >= self.first_line - 1:  # Arrow skips empty lines, too
                yield before + 1, fields
            before = lines.line_num

    def _diagnosis(self, error: pa.ArrowInvalid) -> MetarecError:
        line = self.first_line
        try:
            for line, fields in self._records():
                if len(fields) != self.width:
                    return MetarecError(
                        f"{self.name}, line {line}: {len(fields)} values where there must be {self.width}, separated "
                        f"by {_separator_name(self.separator)}: {self.separator.join(fields)[:80]!r}"
                        + ("; is there a double quote that is not closed?" if self.quoted else "")
                    )
        except csv.Error as broken:
            return MetarecError(
                f"{self.name}, line {line + 1} or below: not readable ({broken}); "
                "is there a double quote that is not closed?"
            )
        return MetarecError(f"{self.name}: not readable ({_first_line(error)})")


def _quoting(quoted: bool) -> Any:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _separator_name(separator: str) -> str:
    return {"\t": "tabs", "\x1f": "'::'"}.get(separator, repr(separator))


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _end_of_line(data: Any) -> int:
    end = data.find(b"\n")
    return end if end >= 0 else len(data)


def _as_utf8(file: File, latin1: bool) -> Any:
    """The file's bytes, as UTF-8 without NUL."""
    data = file.data
    nul = data.find(b"\0")
    if nul >= 0:
        raise MetarecError(
            f"{file.name}, line {_line_at(data, nul)}: a NUL byte, which text files do not have: save the file as "
            "UTF-8 text (it may be in UTF-16, truncated, or binary)"
        )
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        # Checked as one Arrow string, which copies nothing; decoding would copy the file.
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        whole = bytes(data)
        if latin1:
            return whole.decode("latin-1").encode()
        try:
            whole.decode()
        except UnicodeDecodeError as error:
            line = _line_at(data, error.start)
            raise MetarecError(
                f"{file.name}, line {line}: byte 0x{whole[error.start]:02x} is not UTF-8 text: save the file as UTF-8"
            ) from error
    return data


def _line_at(data: Any, offset: int) -> int:
    return bytes(data[:offset]).count(b"\n") + 1


def _refuse_equal_names(file: File, names: Sequence[str]) -> None:
    repeated = [name for name in names if list(names).count(name) > 1]
    if repeated:
        raise MetarecError(f"{file.name}, line 1: two columns are called {repeated[0]!r}: rename one of them")


def _select(
    file: File, names: Sequence[str], columns: Mapping[str, str], options: Mapping[str, str], rest: bool
) -> dict[str, str]:
    for column, name in columns.items():
        if name not in names:
            near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
            guess = next((n for n in names if near and n.lower() == near[0]), "")
            message = f"{file.name} has no column {name!r} (the {column.replace('_', ' ')}); it has {', '.join(names)}"
            if column in options:
                message += f": say which it is with {options[column].format(guess or 'NAME')}"
            else:
                message += f": rename {guess or 'the column'} if it is that one, or add it"
            raise MetarecError(message)
    wanted = dict(columns)
    if rest:
        taken = set(wanted.values())
        wanted |= {name: name for name in names if name not in taken and name not in wanted}
    return wanted


def _as_strings(file: File, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if pa.types.is_integer(values.type) and values.null_count == 0:
        return values
    if pa.types.is_floating(values.type):
        # Whole numbers in a column with missing values are read as 7.0: the id is 7.
        with contextlib.suppress(pa.ArrowInvalid):
            values = pc.cast(values, pa.int64())
    try:
        return pc.cast(values, pa.string())
    except pa.ArrowException as error:
        raise MetarecError(f"{file.name}: column {name!r} holds {values.type}, not text or numbers") from error
