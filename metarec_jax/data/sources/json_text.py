"""Parsing of JSON lines by Arrow, whole or in blocks of lines."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json

from metarec_jax.data.sources.encodings import as_utf8
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.json_types import FieldTypes

BLOCK, _MOST_BLOCK = 1 << 24, 2**31 - 1
_SAMPLE = 1000
"""Lines that the types of fields are taken from at a time."""
_LINE, _END = re.compile(rb"([^\n]*)(?:\n|\Z)"), re.compile(rb"\n")


class JsonText:
    """The text of JSON lines.

    Args:
        file: content of the file.
        encoding: as for `metarec_jax.data.sources.encodings.as_utf8`.

    Attributes:
        sentence: how the table is written, for people.
        size: bytes of the text.
    """

    def __init__(self, file: File, encoding: str) -> None:
        self._data, encoding = as_utf8(file, encoding)
        self.sentence, self.size = f"JSON lines, {encoding.upper()}", len(self._data)

    def sampled(self, fields: Collection[str] | None) -> FieldTypes:
        """Take the types of fields from the first lines.

        Args:
            fields: names of the fields; None takes those of the lines.

        Raises:
            pyarrow.ArrowInvalid: a line is not JSON.
        """
        types = FieldTypes(fields)
        types.add(_parsed(itertools.islice(self.lines(), _SAMPLE)))
        return types

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the first and last (exclusive) byte of blocks of whole lines."""
        start = 0
        while start < self.size:
            found = _END.search(self._data, min(start + BLOCK, self.size))
            end = found.end() if found else self.size
            yield start, end
            start = end

    def add_later(self, types: FieldTypes, fields: Collection[str] | None) -> None:
        """Add the types of the blocks of lines that the types so far do not cover, and the fields that these have.

        Args:
            types: the types so far.
            fields: names of the fields; None for all.

        Raises:
            pyarrow.ArrowInvalid: a field of `fields` has values of several types, or a line is not JSON.
        """
        for start, end in self.blocks():
            try:
                # All fields of a block are looked at where their names are not known.
                others = "ignore" if fields is not None else "error"
                table = self.parse(self.known(types, fields), others, start, end)
                types.present.update(name for name in table.column_names if table[name].null_count < len(table))
            except pa.ArrowInvalid:
                lines = self.lines(start, end)
                while batch := list(itertools.islice(lines, _SAMPLE)):
                    types.add(_parsed(batch))

    def known(self, types: FieldTypes, fields: Collection[str] | None) -> pa.Schema:
        """Return the types so far.

        Args:
            types: the types.
            fields: names of the fields; None for all.

        Returns:
            The types by name.

        Raises:
            pyarrow.ArrowInvalid: a field of `fields` has values of several types.
        """
        if fields is not None and types.mixed:
            raise pa.ArrowInvalid("values of several types")
        return types.schema()

    def parse(
        self, types: pa.Schema | None = None, others: str = "infer", start: int = 0, end: int | None = None
    ) -> pa.Table:
        """Parse the lines from byte `start` to `end`, in larger blocks if a line is longer than a block.

        Args:
            types: types of fields.
            others: what becomes of other fields: "infer", "ignore" or "error".
            start, end: bytes; None is the end of the text.

        Returns:
            The lines as a table.

        Raises:
            pyarrow.ArrowInvalid: a line is not a JSON object, or a value is not of its type.
        """
        data = pa.py_buffer(self._data)
        data = data.slice(start, (len(self._data) if end is None else end) - start)
        options = pyarrow.json.ParseOptions(explicit_schema=types, unexpected_field_behavior=others)
        largest = min(data.size, _MOST_BLOCK)
        for block in sorted({min(BLOCK, largest), largest}):
            try:
                return pyarrow.json.read_json(
                    pa.BufferReader(data), pyarrow.json.ReadOptions(block_size=block), options
                )
            except pa.ArrowInvalid:
                if block == largest:
                    raise
        raise AssertionError("unreachable: the last block size returns or raises")

    def lines(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Split the text into lines.

        Args:
            start, end: bytes; None is the end of the text.

        Yields:
            The number, from 1 at byte `start`, and the bytes of each line that is not empty.
        """
        stop = len(self._data) if end is None else end
        for number, match in enumerate(_LINE.finditer(self._data, start, stop), 1):
            if line := match.group(1).strip():
                yield number, line


def _parsed(lines: Iterable[tuple[int, bytes]]) -> Iterator[Any]:
    """Parse lines; raise the error of Arrow's reader for one that is not JSON."""
    for _, line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise pa.ArrowInvalid(str(error)) from error
