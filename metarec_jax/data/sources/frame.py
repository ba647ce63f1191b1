"""A table in memory (pandas, polars, pyarrow, or a mapping of lists) with one row per interaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from metarec_jax.config.data import Columns
from metarec_jax.core.arguments import shown
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions, Kind
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.columns import read_arrow
from metarec_jax.data.sources.table import interaction_columns


def load_frame(frame: Any, columns: Columns, kind: Kind) -> Interactions:
    """Read a table in memory.

    Args:
        frame: the table. It is read through Arrow's C interface, or the data-frame interchange protocol.
        columns: names of its columns.
        kind: "rating" or "click".

    Returns:
        The data set.

    Raises:
        MetarecError: the table cannot be read, or a column is missing or not valid.
    """
    named = interaction_columns(columns, kind, "the entry {!r} of columns")
    options = {column: f"columns={{{{{column!r}: '{{}}'}}}}" for column in named}
    return build(
        read_arrow("the table", arrow_table(frame), named, options=options),
        kind=kind,
        source=f"a table in memory ({type(frame).__module__.split('.')[0]})",
    )


def arrow_table(frame: Any) -> pa.Table:
    """Convert a table in memory to Arrow.

    Args:
        frame: a table of any library with Arrow's C interface or the interchange protocol, or a mapping from names of
            columns to lists.

    Returns:
        The table.

    Raises:
        MetarecError: `frame` is no table, or Arrow cannot hold its values.
    """
    try:
        if isinstance(frame, pa.Table | pa.RecordBatch) or hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
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
        f"load: config is {shown(frame)}; pass a `DataConfig`, the path of a file, or a table of pandas, polars or "
        "pyarrow"
    )
