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
"""What a Parquet file begins and ends with."""


class ParquetTable:
    """A Parquet table that is open; as `metarec_jax.data.sources.text.TextTable`.

    Args:
        file: its content.

    Raises:
        MetarecError: not Parquet, or damaged.
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
        """The wanted columns: ids and texts as strings, ratings, times and vectors in their own types.

        Args:
            columns: as for `metarec_jax.data.sources.text.TextTable.read`.
            options: as there.
            rest: as there.
            numeric: not used: columns have types.

        Raises:
            MetarecError: a column that is not there, or that holds neither text nor numbers.
        """
        wanted = select(self.name, self.names, columns, options, rest)
        labels = {column: self.names[n] for column, n in wanted.items()}
        # Runs of one value take next to no space in the file, but do in memory.
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
