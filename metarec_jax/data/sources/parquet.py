"""Parquet tables."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet

from metarec_jax.core.errors import MetarecError
from metarec_jax.data.sources.columns import select, typed_values
from metarec_jax.data.sources.files import File, check_expansion
from metarec_jax.data.values import Table

MAGIC = b"PAR1"
"""Bytes at the beginning and the end of a Parquet file."""


class ParquetTable:
    """Open Parquet table, with the interface of `metarec_jax.data.sources.text.TextTable`.

    Args:
        file: content of the file.

    Raises:
        MetarecError: the file is not Parquet, or is damaged.
    """

    header, sentence = True, "Parquet"

    def __init__(self, file: File) -> None:
        self.name, self.size = file.name, len(file.data)
        try:
            self._file = pyarrow.parquet.ParquetFile(
                pa.BufferReader(pa.py_buffer(file.data)), page_checksum_verification=True
            )
            self.names: list[str] = self._file.schema_arrow.names
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

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
        wanted = select(self.name, self.names, columns, options, rest)
        labels = {column: self.names[n] for column, n in wanted.items()}
        # Run-length encoding makes equal values small in the file, but not in memory.
        check_expansion(self.name, self.size, 8 * self._file.metadata.num_rows * len(wanted))
        try:
            parsed = self._file.read(columns=sorted(set(labels.values())))
            parsed.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        found = {column: parsed.column(label) for column, label in labels.items()}
        values, notes = typed_values(self.name, found, labels, columns)
        return Table(name=self.name, columns=values, place=lambda row: f"row {row + 1}", labels=labels, notes=notes)

    def _damaged(self, error: Exception) -> MetarecError:
        reason = str(error).split("\n")[0][:200]
        return MetarecError(f"{self.name}: not a Parquet file, or a damaged one ({reason})")
