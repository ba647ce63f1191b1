"""Parquet tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet

from metarec_jax.core.errors import MetarecError
from metarec_jax.data.sources.columns import select, typed_values
from metarec_jax.data.sources.files import File, check_expansion
from metarec_jax.data.values import Table, is_text

_BATCH = 1 << 18  # rows
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
            MetarecError: the file is damaged, or ids are neither texts nor integers; also while batches are read.
        """
        wanted = select(self.name, self.names, columns, {}, False)
        labels = {column: self.names[n] for column, n in wanted.items()}
        for column in ("user", "item"):
            kind = self._file.schema_arrow.field(labels[column]).type
            if not (pa.types.is_integer(kind) or is_text(kind)):
                raise MetarecError(f"{self.name}: column {labels[column]!r} holds {kind}: it is not read in batches")
        rows, total = 0, max(1, self._file.metadata.num_rows)

        def tables() -> Iterator[Table]:
            nonlocal rows
            try:
                for batch in self._file.iter_batches(_BATCH, columns=sorted(set(labels.values()))):
                    batch.validate(full=True)
                    rows += len(batch)
                    found = {column: pa.chunked_array([batch.column(label)]) for column, label in labels.items()}
                    columns_, _ = typed_values(self.name, found, labels, columns)
                    yield Table(self.name, columns_, lambda row: f"row {row}", labels)
            except OSError as error:
                raise self._damaged(error) from error

        return tables(), lambda: self.size * rows // total

    def _damaged(self, error: Exception) -> MetarecError:
        reason = str(error).split("\n")[0][:200]
        return MetarecError(f"{self.name}: not a Parquet file, or a damaged one ({reason})")
