"""Tables in memory: pandas, polars, pyarrow, or a mapping of lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from metarec_jax.core.arguments import with_type
from metarec_jax.core.errors import MetarecError
from metarec_jax.data.sources.columns import read_arrow
from metarec_jax.data.values import Table


class FrameTable:
    """Table in memory, with the interface of `metarec_jax.data.sources.text.TextTable`.

    Args:
        frame: a table of any library with Arrow's C interface or the data-frame interchange protocol, or a mapping from
            names of columns to lists.
        name: what the table is, for messages.

    Raises:
        MetarecError: `frame` is no table, or Arrow cannot hold its values.
    """

    header = True

    def __init__(self, frame: Any, name: str = "the table") -> None:
        self.name = name
        self._table = _arrow_table(frame)
        self.names: list[str] = self._table.column_names
        self.sentence = f"a table in memory ({type(frame).__module__.split('.')[0]})"

    def read(
        self, columns: Mapping[str, str], *, options: Mapping[str, str], rest: bool = False, numeric: bool = False
    ) -> Table:
        """Read columns: ids and texts as strings; ratings, times and vectors in the types of the table.

        Args:
            columns, options, rest: as for `metarec_jax.data.sources.text.TextTable.read`.
            numeric: not used, since the columns of the table have types.

        Returns:
            The requested columns.

        Raises:
            MetarecError: a column is missing, or holds neither text nor numbers.
        """
        return read_arrow(self.name, self._table, columns, options, rest, lambda row: f"row {row + 1}")


def _without_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert strings of Arrow's view layout, which polars has and few functions of Arrow take, to plain strings."""
    kind = column.type
    if pa.types.is_dictionary(kind) and pa.types.is_string_view(kind.value_type):
        words = [pa.DictionaryArray.from_arrays(c.indices, c.dictionary.cast(pa.string())) for c in column.chunks]
        return pa.chunked_array(words, pa.dictionary(kind.index_type, pa.string()))
    plain = _plain(kind)
    return column if plain == kind else column.cast(plain)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _arrow_table(frame: Any) -> pa.Table:
    try:
        if isinstance(frame, pa.Table | pa.RecordBatch) or hasattr(frame, "__arrow_c_stream__"):
            table = pa.table(frame)
            return pa.table([_without_views(column) for column in table.columns], names=table.column_names)
        if hasattr(frame, "__dataframe__"):
            from pyarrow.interchange import from_dataframe

            return from_dataframe(frame)
        if isinstance(frame, Mapping):
            return pa.table({name: pa.array(list(values)) for name, values in frame.items()})
    except (pa.ArrowException, TypeError, ValueError, RuntimeError) as error:
        raise MetarecError(
            f"the table cannot be read ({str(error)[:200]}): each column must hold texts, or numbers, or times"
        ) from error
    raise MetarecError(
        f"load: config is {with_type(frame)}; pass a `DataConfig`, the path of a file, or a table of pandas, polars or "
        "pyarrow"
    )
