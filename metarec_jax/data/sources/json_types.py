"""Arrow types of the fields of JSON objects, collected from batches of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa


class FieldTypes:
    """Types of fields, which cover all rows that were added.

    Args:
        fields: names of the fields; None takes those of the rows.

    Attributes:
        mixed: names of fields whose values have types that no Arrow type covers, such as text and numbers.
    """

    def __init__(self, fields: Collection[str] | None) -> None:
        self._fields = fields
        self._types: dict[str, pa.DataType] = {} if fields is None else dict.fromkeys(fields, pa.null())
        self.present: set[str] = set()
        self.mixed: set[str] = set()

    def add(self, rows: Iterable[Any]) -> None:
        """Add the types of a batch of parsed JSON values; those that are no objects are passed over."""
        found: dict[str, list[Any]] = {}
        for row in rows:
            if isinstance(row, dict):
                for name in row if self._fields is None else row.keys() & self._types.keys():
                    found.setdefault(name, []).append(row[name])
        self.present.update(found)
        for name, values in found.items():
            try:
                self._types[name] = _merged(self._types.get(name, pa.null()), _type(values))
            except pa.ArrowException:
                self.mixed.add(name)

    def schema(self) -> pa.Schema:
        """The types of all fields that are not mixed: text where all values were null."""
        return pa.schema([(n, _filled(kind)) for n, kind in self._types.items() if n not in self.mixed])


def _type(values: list[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except OverflowError:  # an integer beyond 64 bits, which Arrow's reader takes for a float
        return pa.float64()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        return pa.string()


def _merged(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    schemas = [pa.schema([("", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def _filled(kind: pa.DataType) -> pa.DataType:
    """Replace the unknown type of values that were all null by text."""
    if pa.types.is_list(kind):
        return pa.list_(_filled(kind.value_type))
    return pa.string() if pa.types.is_null(kind) else kind
