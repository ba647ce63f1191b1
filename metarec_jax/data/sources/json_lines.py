"""Tables of JSON lines, with one object per line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.json

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.data.sources.columns import read_arrow
from metarec_jax.data.sources.encodings import as_utf8
from metarec_jax.data.sources.files import File
from metarec_jax.data.values import Table

_BLOCK, _MOST_BLOCK = 1 << 24, 2**31 - 1
_SAMPLE = 1000
"""Lines that the types of fields are taken from."""


class JsonLines:
    """Open table of JSON lines, with the interface of `metarec_jax.data.sources.text.TextTable`.

    Args:
        file: content of the file.
        encoding: as for `metarec_jax.data.sources.encodings.as_utf8`.
        fields: names of the fields to read, whose types are those in the beginning of the file; others are skipped,
            whatever they hold. None reads all fields.

    Raises:
        MetarecError: the file is not text, or a line is not a JSON object.
    """

    header = True

    def __init__(self, file: File, encoding: str, fields: Collection[str] | None = None) -> None:
        self.name, self._fields = file.name, fields
        self._data, encoding = as_utf8(file, encoding)
        self.sentence = f"JSON lines, {encoding.upper()}"
        try:
            if fields is not None:
                self._table = self._parse_fields(fields)
                self.names: list[str] = self._table.column_names
                return
            self._table = self._parse(min(_BLOCK, len(self._data)))
            dates = [field.name for field in self._table.schema if pa.types.is_timestamp(field.type)]
            if dates:  # texts, which Arrow takes for dates; as ids they are kept as they are written
                self._table = self._parse(min(_BLOCK, len(self._data)), pa.schema([(n, pa.string()) for n in dates]))
        except pa.ArrowException as error:
            raise self._diagnosis(error) from error
        self.names = self._table.column_names

    def read(
        self, columns: Mapping[str, str], *, options: Mapping[str, str], rest: bool = False, numeric: bool = False
    ) -> Table:
        """Read columns: ids and texts as strings; ratings, times and vectors in the types of the file.

        Args:
            columns, options, rest: as for `metarec_jax.data.sources.text.TextTable.read`.
            numeric: not used, since the columns of the file have types.

        Returns:
            The requested columns.

        Raises:
            MetarecError: a column is missing, or holds neither text nor numbers.
        """
        return read_arrow(self.name, self._table, columns, options, rest, self._place)

    def _parse_fields(self, fields: Collection[str]) -> pa.Table:
        try:
            return self._parse(min(_BLOCK, len(self._data)), self._types(fields, _SAMPLE), "ignore")
        except pa.ArrowInvalid:  # a type that only later lines show
            return self._parse(min(_BLOCK, len(self._data)), self._types(fields, None), "ignore")

    def _types(self, fields: Collection[str], lines: int | None) -> pa.Schema:
        """Return the types of the fields that the first `lines` lines have; texts where all values are empty."""
        seen: dict[str, list[Any]] = {}
        for _, line in itertools.islice(self._lines(), lines):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise pa.ArrowInvalid(str(error)) from error
            for name in fields:
                if isinstance(row, dict) and name in row:
                    seen.setdefault(name, []).extend([row[name]] if row[name] not in (None, "") else [])
        types = {name: pa.array(found).type if found else pa.string() for name, found in seen.items()}
        # Where all lists are empty, later ones hold words.
        return pa.schema(
            [(n, pa.list_(pa.string()) if kind == pa.list_(pa.null()) else kind) for n, kind in types.items()]
        )

    def _parse(self, block: int, types: pa.Schema | None = None, others: str = "infer") -> pa.Table:
        try:
            return pyarrow.json.read_json(
                pa.BufferReader(pa.py_buffer(self._data)),
                pyarrow.json.ReadOptions(block_size=block),
                pyarrow.json.ParseOptions(explicit_schema=types, unexpected_field_behavior=others),
            )
        except pa.ArrowInvalid:
            largest = min(len(self._data), _MOST_BLOCK)
            if block >= largest:
                raise
            return self._parse(largest, types, others)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number, from 1, and the bytes of each line that is not empty."""
        for number, match in enumerate(re.compile(rb"([^\n]*)(?:\n|\Z)").finditer(self._data), 1):
            if line := match.group(1).strip():
                yield number, line

    def _place(self, row: int) -> str:
        return next((f"line {line}" for n, (line, _) in enumerate(self._lines()) if n == row), f"row {row + 1}")

    def _diagnosis(self, error: Exception) -> MetarecError:
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
                if self._fields is not None and name not in self._fields:
                    continue
                kind = float if type(value) is int else type(value)
                before, first = kinds.setdefault(name, (kind, number)) if value is not None else (kind, number)
                if kind is not before:
                    return MetarecError(
                        f"{self.name}, line {number}: {shown(name)} is {shown(value)}, but of another type in line "
                        f"{first}: write all its values as numbers, or all as strings"
                    )
        return MetarecError(f"{self.name}: not readable ({str(error)[:200]})")
