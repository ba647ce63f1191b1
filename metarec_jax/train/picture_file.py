"""Small copies of the pictures of a run's items, in a file that is mapped into memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarec_jax.core.atomic_files import replacing
from metarec_jax.core.checked_files import reading

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMN = "picture"


class StoredPictures(Sequence["bytes | None"]):
    """A sequence of files of pictures in an Arrow column; None for an item without a picture.

    Args:
        column: of bytes.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        """The picture with a number, or those of a slice."""
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"picture {number} of {len(self)}")
        return self._column[number].as_py()


def save(pictures: Sequence[bytes | None], path: Path) -> None:
    """Write small copies of pictures, atomically.

    Args:
        pictures: file of each item's picture, or None.
        path: path of the file.

    Raises:
        MetarecError: the file cannot be written.
    """
    import pyarrow as pa

    table = pa.table({_COLUMN: pa.array(list(pictures), pa.large_binary())})
    with replacing(path) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4096)


def load(path: Path, items: int) -> StoredPictures | None:
    """Map a file that `save` wrote.

    Args:
        path: path of the file.
        items: number of items of the run.

    Returns:
        The pictures; None if there is no such file.

    Raises:
        MetarecError: the file is damaged, or of another number of items.
    """
    import pyarrow as pa

    if not path.exists():
        return None
    with reading(path):
        column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(_COLUMN)
        if not pa.types.is_large_binary(column.type) or len(column) != items:
            raise ValueError(
                f"it has {len(column)} pictures of type {column.type}, not a file for each of {items} items"
            )
    return StoredPictures(column)
