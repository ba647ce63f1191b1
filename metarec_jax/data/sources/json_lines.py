"""Tables of JSON lines, with one object per line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Mapping

import pyarrow as pa

from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.data.sources.columns import read_arrow, select, typed_values
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.json_text import JsonText
from metarec_jax.data.values import Table, is_text


class JsonLines:
    """Open table of JSON lines, with the interface of `metarec_jax.data.sources.text.TextTable`.

    Args:
        file: content of the file.
        encoding: as for `metarec_jax.data.sources.encodings.as_utf8`.
        fields: names of the fields to read; others are skipped, whatever they hold. None reads all fields.
        wanted: of a table whose fields are all read, those that suffice where others have values of several types.

    Raises:
        MetarecError: the file is not text, a line is not a JSON object, or a field of `fields` or `wanted` has values
            of several types.
    """

    header = True

    def __init__(
        self, file: File, encoding: str, fields: Collection[str] | None = None, *, wanted: Collection[str] = ()
    ) -> None:
        self.name, self._mixed = file.name, set[str]()
        self._text = JsonText(file, encoding)
        self.sentence = self._text.sentence
        try:
            self._table = self._parse_all(wanted) if fields is None else self._parse_fields(fields)
        except pa.ArrowException as error:
            raise self._diagnosis(error, fields or wanted or None) from error
        self.names: list[str] = [*self._table.column_names, *sorted(self._mixed)]

    def read(
        self, columns: Mapping[str, str], *, options: Mapping[str, str], rest: bool = False, numeric: bool = False
    ) -> Table:
        """Read columns: ids and texts as strings; ratings, times and vectors in the types of the file.

        Args:
            columns, options, rest: as for `metarec_jax.data.sources.text.TextTable.read`.
            numeric: not used, since the columns of the file have types.

        Returns:
            The requested columns, with a note on others that are left out since their values have several types.

        Raises:
            MetarecError: a column is missing, has values of several types, or holds neither text nor numbers.
        """
        if asked := self._mixed & set(columns.values()):
            raise self._diagnosis(pa.ArrowInvalid("values of several types"), asked)
        table = read_arrow(self.name, self._table, columns, options, rest, self._place)
        if not (rest and self._mixed):
            return table
        note = f"{self.name}: left out, since their values are of several types: {listed(sorted(self._mixed))}"
        return dataclasses.replace(table, notes=(*table.notes, note))

    def _parse_all(self, wanted: Collection[str]) -> pa.Table:
        try:
            table = self._text.parse()
        except pa.ArrowInvalid:  # a field of several types
            table = self._parse_fields(wanted) if wanted else None
            complete = table is not None and set(wanted) <= set(table.column_names)
            return table if complete else self._parse_fields(None)
        dates = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
        if dates:  # texts, which Arrow takes for dates; as ids they are kept as they are written
            table = self._text.parse(pa.schema([(name, pa.string()) for name in dates]))
        return table

    def _parse_fields(self, fields: Collection[str] | None) -> pa.Table:
        types = self._text.sampled(fields)
        try:
            table = self._text.parse(self._text.known(types, fields), "ignore")
        except pa.ArrowInvalid:
            self._text.add_later(types, fields)
            table = self._text.parse(self._text.known(types, fields), "ignore")
        self._mixed = types.mixed
        # A field that no line has is a column of nulls, as is one that only the first lines have, as null.
        return table.select([n for n in table.column_names if n in types.present or table[n].null_count < len(table)])

    def _place(self, row: int) -> str:
        return next((f"line {line}" for n, (line, _) in enumerate(self._text.lines()) if n == row), f"row {row + 1}")

    def _diagnosis(self, error: Exception, fields: Collection[str] | None) -> MetarecError:
        """Make the error that names the first line that is no JSON object, or that changes the type of a field."""
        kinds: dict[str, tuple[type, int]] = {}
        for number, line in self._text.lines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as broken:
                what = str(broken)[:100]
                return MetarecError(
                    f"{self.name}, line {number}: not JSON ({what}): {shown(line[:100].decode('utf-8', 'replace'))}; "
                    "write one object a line, as json.dumps does"
                )
            if not isinstance(row, dict):
                return MetarecError(
                    f"{self.name}, line {number}: {shown(row)} is no object: write one a line, such as "
                    '{"user_id": 1, "item_id": 2, "rating": 5}'
                )
            for name, value in row.items():
                if fields is not None and name not in fields:
                    continue
                kind = float if type(value) is int else type(value)
                before, first = kinds.setdefault(name, (kind, number)) if value is not None else (kind, number)
                if kind is not before:
                    return MetarecError(
                        f"{self.name}, line {number}: {shown(name)} is {shown(value)}, but of another type in line "
                        f"{first}: write all its values as numbers, or all as strings"
                    )
        return MetarecError(f"{self.name}: not readable ({str(error)[:200]})")


class JsonLineBatches:
    """Table of JSON lines that is read in batches, in memory that does not grow with the lines.

    Args:
        file, encoding: as for `JsonLines`.
        wanted: names of the fields to read.

    Raises:
        MetarecError, pyarrow.ArrowInvalid: the file is not a valid table; `JsonLines` names the place.
    """

    header = True

    def __init__(self, file: File, encoding: str, wanted: Collection[str]) -> None:
        self.name, self._text = file.name, JsonText(file, encoding)
        self.sentence, self.size = self._text.sentence, self._text.size
        types = self._text.sampled(wanted)
        self._text.add_later(types, wanted)
        self._types = self._text.known(types, wanted)
        self.names = [name for name in wanted if name in types.present]

    def batches(
        self, columns: Mapping[str, str], *, numeric: bool = False
    ) -> tuple[Iterator[Table], Callable[[], int]]:
        """Read columns in batches of rows, as `metarec_jax.data.sources.text.TextTable.batches` does.

        Args:
            columns: the file's names of the requested columns, by their names in the table.
            numeric: not used.

        Returns:
            The batches; and a function to the bytes that were read so far.

        Raises:
            MetarecError: ids are neither texts nor integers.
        """
        select(self.name, self.names, columns, {}, False)
        for column in ("user", "item"):
            kind = self._types.field(columns[column]).type
            if not (pa.types.is_integer(kind) or is_text(kind)):
                raise MetarecError(f"{self.name}: field {columns[column]!r} holds {kind}: it is not read in batches")
        read = 0

        def tables() -> Iterator[Table]:
            nonlocal read
            for start, end in self._text.blocks():
                parsed = self._text.parse(self._types, "ignore", start, end)
                found = {column: parsed.column(label) for column, label in columns.items()}
                values, _ = typed_values(self.name, found, columns, columns)
                yield Table(self.name, values, lambda row: f"row {row}", columns)
                read = end

        return tables(), lambda: read
