"""Text tables: CSV and similar formats with any separator.

Arrow parses 25 million rows in seconds, but does not report the line of an invalid record. After an error, the file is
therefore read again record by record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.data.sources.columns import select
from metarec_jax.data.sources.dialect import Dialect, Format, recognise, separator_name
from metarec_jax.data.sources.encodings import UTF8_OR_LATIN1
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.records import count_rows
from metarec_jax.data.values import Table

_BLOCK, _MOST_BLOCK = 1 << 24, 2**31 - 1  # bytes that Arrow parses in one block; a row must fit into two blocks


class TextTable:
    """Open text table with known column names, from which columns can be read.

    Args:
        file: content of the file.
        known: known properties of the table.
        wanted: names of columns that a header may contain.
        skip: whether to leave out lines with a wrong number of values, with a note, in place of refusing them. Places
            of rows are then those without such lines.
    """

    def __init__(self, file: File, known: Format, wanted: Sequence[str] = (), *, skip: bool = False) -> None:
        self.name, self.known = file.name, known
        self._skip, self._skipped = skip, 0
        self.dialect: Dialect = recognise(file, known, wanted)
        self.names, self.header, self.size = self.dialect.names, self.dialect.header, len(self.dialect.data)

    @property
    def sentence(self) -> str:
        """How the table is written, for people."""
        return self.dialect.sentence

    def read(
        self, columns: Mapping[str, str], *, options: Mapping[str, str], rest: bool = False, numeric: bool = False
    ) -> Table:
        """Read columns, with values as strings.

        Args:
            columns: the file's names of the requested columns, by their names in the table.
            options: command-line option of each column that the user can choose, for error messages.
            rest: whether to include all other columns under their own names.
            numeric: whether to parse all requested columns as integers (ratings as floats), which is several times
                faster. A file with other values is read as strings, so that `build` can report them.

        Returns:
            The requested columns.

        Raises:
            MetarecError: a line has the wrong number of values, a column is missing, or a quote is not closed.
        """
        wanted = select(self.name, self.names, columns, options, rest)
        parsed = None
        if numeric:
            kinds = {n: pa.float64() if column == "rating" else pa.int64() for column, n in wanted.items()}
            parsed = self._numbers(kinds)
        if parsed is None:
            parsed = self._strings(dict.fromkeys(wanted.values(), pa.string()))
        records = self.dialect.records()
        skipped = (
            f"{self.name}: {self._skipped:,} lines have another number of values than the header: they are left out"
        )
        return Table(
            name=self.name,
            columns={column: parsed.column(str(n)) for column, n in wanted.items()},
            place=lambda row: f"line {records.line_of(row)}",
            labels={column: self.names[n] for column, n in wanted.items()},
            decimal=self.known.decimal,
            notes=(skipped,) if self._skipped else (),
        )

    def batches(
        self, columns: Mapping[str, str], *, numeric: bool = False
    ) -> tuple[Iterator[Table], Callable[[], int]]:
        """Read columns in batches of rows, with values as `read` returns them, in memory that does not grow with them.

        Args:
            columns: the file's names of the requested columns, by their names in the table.
            numeric: as for `read`; a file with other values is refused.

        Returns:
            The batches, whose places are not those of the file; and a function to the bytes that were read so far.

        Raises:
            MetarecError, pyarrow.ArrowInvalid: the file is not a valid table; also while batches are read. `read` names
                the place.
        """
        wanted = select(self.name, self.names, columns, {}, False)
        kinds = {n: pa.string() for n in wanted.values()}
        if numeric:
            kinds = {n: pa.float64() if column == "rating" else pa.int64() for column, n in wanted.items()}
        buffer = pa.BufferReader(pa.py_buffer(self.dialect.data))

        def tables() -> Iterator[Table]:
            rows, dialect = 0, self.dialect
            for batch in pyarrow.csv.open_csv(buffer, **self._options(kinds, _BLOCK)):
                rows += len(batch)
                found = {column: pa.chunked_array([batch.column(str(n))]) for column, n in wanted.items()}
                labels = {column: self.names[n] for column, n in wanted.items()}
                yield Table(self.name, found, lambda row: f"row {row}", labels, self.known.decimal)
            if dialect.quoted and (rows != count_rows(dialect.data) or not dialect.records().ends_closed()):
                raise MetarecError(f"{self.name}: its quotes have to be checked")

        return tables(), buffer.tell

    def _numbers(self, kinds: Mapping[int, pa.DataType]) -> pa.Table | None:
        """Parse the columns at these positions as numbers; None if a value is missing or is not a number."""
        try:
            table = self._arrow(kinds)
        except pa.ArrowInvalid:
            return None
        return None if any(column.null_count for column in table.columns) else table

    def _strings(self, kinds: Mapping[int, pa.DataType]) -> pa.Table:
        try:
            return self._parse(kinds)
        except MetarecError as error:
            if not self.dialect.doubtful:
                raise
            plain, self.dialect = self.dialect, self.dialect._replace(escaped=True, doubtful=False)
            try:
                return self._parse(kinds)
            except MetarecError:
                self.dialect = plain
                raise error from None

    def _parse(self, kinds: Mapping[int, pa.DataType]) -> pa.Table:
        data, lenient = self.dialect.data, self.known.quoting == "double"
        if not re.compile(rb"[^\r\n]").search(data):  # Arrow raises an error for a table without lines
            return pa.table({str(n): pa.array([], kind) for n, kind in kinds.items()})
        try:
            table = self._arrow(kinds)
        except pa.ArrowInvalid as error:
            if self.dialect.quoted:
                self.dialect.records().count(self.name, len(self.names), lenient)
            raise self._diagnosis(error) from error
        if not self.dialect.quoted or (table.num_rows == count_rows(data) and self.dialect.records().ends_closed()):
            return table
        rows = self.dialect.records().count(self.name, len(self.names), lenient)
        if table.num_rows + self._skipped != rows:
            raise MetarecError(
                f"{self.name}: {table.num_rows:,} records in {rows:,} rows of text: a backslash escapes a line end; "
                "say --data.escape none if it is not meant to"
            )
        return table

    def _arrow(self, kinds: Mapping[int, pa.DataType], block: int = _BLOCK) -> pa.Table:
        dialect, self._skipped = self.dialect, 0
        try:
            return pyarrow.csv.read_csv(pa.BufferReader(pa.py_buffer(dialect.data)), **self._options(kinds, block))
        except pa.ArrowInvalid:
            if block >= min(len(dialect.data), _MOST_BLOCK):
                raise
            return self._arrow(kinds, min(len(dialect.data), _MOST_BLOCK))

    def _options(self, kinds: Mapping[int, pa.DataType], block: int) -> dict[str, Any]:
        """Arguments of Arrow's readers of CSV, for columns of these types at these positions."""
        dialect = self.dialect
        return {
            "read_options": pyarrow.csv.ReadOptions(
                column_names=[str(n) for n in range(len(self.names))], block_size=block
            ),
            "parse_options": pyarrow.csv.ParseOptions(
                delimiter=dialect.separator,
                quote_char='"' if dialect.quoted else False,
                escape_char="\\" if dialect.escaped else False,
                newlines_in_values=dialect.quoted,
                invalid_row_handler=self._skipped_row if self._skip else None,
            ),
            "convert_options": pyarrow.csv.ConvertOptions(
                include_columns=[str(n) for n in kinds],
                column_types={str(n): kind for n, kind in kinds.items()},
                strings_can_be_null=False,
            ),
        }

    def _skipped_row(self, row: pyarrow.csv.InvalidRow) -> str:
        self._skipped += 1
        return "skip"

    def _diagnosis(self, error: pa.ArrowInvalid) -> MetarecError:
        dialect, width = self.dialect, len(self.names)
        for record in dialect.records():
            if len(record.values) != width:
                line = dialect.separator.join(record.values)
                return MetarecError(
                    f"{self.name}, line {record.line}: {len(record.values)} values where there must be {width}, "
                    f"separated by {separator_name(dialect.separator)}: {shown(line)}" + self._hint(line)
                )
        return MetarecError(f"{self.name}: not readable ({str(error)[:200]})")

    def _hint(self, line: str) -> str:
        if self.dialect.quoted:
            return "; is there a double quote that is not closed, or escaped (--data.escape backslash)?"
        if "'" in line:
            return "; values in single quotes are not recognised: write double quotes"
        return "; --data.quoting double if values stand in quotes" if '"' in line else ""


def read_text(
    file: File,
    columns: Mapping[str, str],
    *,
    separator: str,
    names: Sequence[str] = (),
    quoted: bool = False,
    latin1: bool = False,
    typed_header: bool = False,
    numeric: bool = False,
) -> Table:
    """Read columns of a text table of known layout, with values as strings.

    Args:
        file: content of the file.
        columns: the file's names of the requested columns, by their names in the table.
        separator: separator of the values, one or more characters.
        names: names of the file's columns, in order, if the file has no header line.
        quoted: whether values may be enclosed in double quotes.
        latin1: whether a file that is not UTF-8 is in Latin-1.
        typed_header: whether the columns of the header are written ``name:type`` (RecBole).
        numeric: as for `TextTable.read`.

    Returns:
        The requested columns.

    Raises:
        MetarecError: the file is not text, a line has the wrong number of values, or a column is missing.
    """
    table = open_text(file, separator=separator, names=names, quoted=quoted, latin1=latin1)
    if typed_header:
        table.names = [name.split(":")[0] for name in table.names]
    return table.read(columns, options={}, numeric=numeric)


def open_text(
    file: File, *, separator: str, names: Sequence[str] = (), quoted: bool = False, latin1: bool = False
) -> TextTable:
    """Open a text table of known layout.

    Args:
        file: content of the file.
        separator, names, quoted, latin1: as for `read_text`.

    Returns:
        The open table.

    Raises:
        MetarecError: the file is not text.
    """
    known: dict[str, Any] = {"header": "no" if names else "yes", "quoting": "double" if quoted else "none"}
    table = TextTable(file, Format(separator, encoding=UTF8_OR_LATIN1 if latin1 else "auto", **known))
    if names:
        table.names = list(names)
    return table
