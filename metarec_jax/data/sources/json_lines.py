"""Tables of JSON lines, with one object per line."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.json

from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.data.sources.columns import read_arrow
from metarec_jax.data.sources.encodings import as_utf8
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.json_types import FieldTypes
from metarec_jax.data.values import Table

_BLOCK, _MOST_BLOCK = 1 << 24, 2**31 - 1
_SAMPLE = 1000
"""Lines that the types of fields are taken from at a time."""
_LINE = re.compile(rb"([^\n]*)(?:\n|\Z)")


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
        self._data, encoding = as_utf8(file, encoding)
        self.sentence = f"JSON lines, {encoding.upper()}"
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
            table = self._parse()
        except pa.ArrowInvalid:  # a field of several types
            table = self._parse_fields(wanted) if wanted else None
            complete = table is not None and set(wanted) <= set(table.column_names)
            return table if complete else self._parse_fields(None)
        dates = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
        if dates:  # texts, which Arrow takes for dates; as ids they are kept as they are written
            table = self._parse(pa.schema([(name, pa.string()) for name in dates]))
        return table

    def _parse_fields(self, fields: Collection[str] | None) -> pa.Table:
        types = FieldTypes(fields)
        types.add(_parsed(itertools.islice(self._lines(), _SAMPLE)))
        try:
            table = self._parse(self._known(types, fields), "ignore")
        except pa.ArrowInvalid:
            self._add_later(types, fields)
            table = self._parse(self._known(types, fields), "ignore")
        self._mixed = types.mixed
        # A field that no line has is a column of nulls, as is one that only the first lines have, as null.
        return table.select([n for n in table.column_names if n in types.present or table[n].null_count < len(table)])

    def _add_later(self, types: FieldTypes, fields: Collection[str] | None) -> None:
        """Add the types of the blocks of lines that the types so far do not cover."""
        start = 0
        while start < len(self._data):
            end = self._data.find(b"\n", start + _BLOCK) + 1 or len(self._data)
            try:
                # All fields of a block are looked at where their names are not known.
                self._parse(self._known(types, fields), "ignore" if fields is not None else "error", start, end)
            except pa.ArrowInvalid:
                lines = self._lines(start, end)
                while batch := list(itertools.islice(lines, _SAMPLE)):
                    types.add(_parsed(batch))
            start = end

    def _known(self, types: FieldTypes, fields: Collection[str] | None) -> pa.Schema:
        """Return the types so far; raise an error for a field of `fields` that has several."""
        if fields is not None and types.mixed:
            raise pa.ArrowInvalid("values of several types")
        return types.schema()

    def _parse(
        self, types: pa.Schema | None = None, others: str = "infer", start: int = 0, end: int | None = None
    ) -> pa.Table:
        """Parse the lines from byte `start` to `end`, in larger blocks if a line is longer than a block."""
        data = pa.py_buffer(self._data)
        data = data.slice(start, (len(self._data) if end is None else end) - start)
        options = pyarrow.json.ParseOptions(explicit_schema=types, unexpected_field_behavior=others)
        largest = min(data.size, _MOST_BLOCK)
        for block in sorted({min(_BLOCK, largest), largest}):
            try:
                return pyarrow.json.read_json(
                    pa.BufferReader(data), pyarrow.json.ReadOptions(block_size=block), options
                )
            except pa.ArrowInvalid:
                if block == largest:
                    raise
        raise AssertionError("unreachable: the last block size returns or raises")

    def _lines(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield the number, from 1 at `start`, and the bytes of each line that is not empty."""
        stop = len(self._data) if end is None else end
        for number, match in enumerate(_LINE.finditer(self._data, start, stop), 1):
            if line := match.group(1).strip():
                yield number, line

    def _place(self, row: int) -> str:
        return next((f"line {line}" for n, (line, _) in enumerate(self._lines()) if n == row), f"row {row + 1}")

    def _diagnosis(self, error: Exception, fields: Collection[str] | None) -> MetarecError:
        """Make the error that names the first line that is no JSON object, or that changes the type of a field."""
        kinds: dict[str, tuple[type, int]] = {}
        for number, line in self._lines():
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


def _parsed(lines: Iterable[tuple[int, bytes]]) -> Iterator[Any]:
    """Parse lines; raise the error of Arrow's reader for one that is not JSON."""
    for _, line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise pa.ArrowInvalid(str(error)) from error
