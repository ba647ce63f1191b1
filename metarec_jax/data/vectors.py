"""Item vectors that are part of the data, such as embeddings of images or sounds."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.regular_files import require_regular
from metarec_jax.data.values import Table

_MOST = 1e18
"""Greatest absolute value of a vector's numbers: squares of greater ones overflow float32."""


def from_file(path: str | Path, items: int) -> Float[np.ndarray, "items width"]:
    """Read vectors from a .npy file.

    Args:
        path: path of the file: numbers [items, width] in the order of the items; NaN for an item without a vector.
        items: number of items.

    Returns:
        float32 [items, width].

    Raises:
        MetarecError: there is no such file, it holds no table of numbers with one row per item, or a row is not finite.
    """
    path = Path(path).expanduser()
    require_regular(path, "--data.vectors")
    try:
        # Mapped, since a header can claim a shape that no memory holds: it must fit the size of the file.
        read = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MetarecError(
            f"--data.vectors {path}: not a .npy file of numbers ({str(error)[:200]}): write it with numpy.save"
        ) from error
    if not isinstance(read, np.ndarray) or read.ndim != 2 or not np.issubdtype(read.dtype, np.number):
        what = f"{read.dtype} of shape {read.shape}" if isinstance(read, np.ndarray) else "several arrays"
        raise MetarecError(f"--data.vectors {path} holds {what}: it must be one table of numbers, [items, width]")
    if np.iscomplexobj(read):
        raise MetarecError(f"--data.vectors {path} holds complex numbers: it must hold real ones")
    if len(read) != items or not read.shape[1]:
        raise MetarecError(
            f"--data.vectors {path} has shape {read.shape}, but there are {items} items: give one row, of one number "
            "or more, for each (of NaN for an item that has no vector)"
        )
    return _checked(read, lambda row, what: MetarecError(f"--data.vectors {path}, row {row + 1}: {what}"))


def from_column(table: Table, column: str) -> Float[np.ndarray, "items width"]:
    """Read vectors from a column of lists.

    Args:
        table: the file.
        column: its column.

    Returns:
        float32 [items, width]; a row of NaN where the list is missing or empty.

    Raises:
        MetarecError: the column does not hold lists of numbers, lists differ in length, or a number is not finite.
    """
    values, label = table.columns[column], table.label(column)
    kind = getattr(values, "type", None)
    if kind is None or not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        raise MetarecError(
            f"{table.name}: column {label!r} holds no lists of numbers: vectors can be a column of a Parquet file, or "
            "a .npy file (--data.vectors)"
        )
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise MetarecError(f"{table.name}: column {label!r} holds lists of {kind.value_type}, not of numbers")
    lists = values.to_pylist()
    widths = [len(entry) if entry else 0 for entry in lists]
    width = next((w for w in widths if w), 0)
    if not width:
        raise MetarecError(f"{table.name}: column {label!r} holds no vector at all")
    found = np.full((len(lists), width), np.nan)
    for row, entry in enumerate(lists):
        if entry and len(entry) != width:
            raise table.refuse(row, f"{label} has {len(entry)} numbers, but others have {width}")
        if entry:
            found[row] = [np.nan if number is None else number for number in entry]
            if np.isnan(found[row]).all():
                raise table.refuse(row, f"{label} holds no number: leave the list out where an item has none")
    return _checked(found, table.refuse)


def _checked(found: np.ndarray, refuse: Callable[[int, str], MetarecError]) -> Float[np.ndarray, "items width"]:
    """Convert to float32; `refuse(row, message)` makes the error where a number is missing or too large."""
    gaps = np.isnan(found)
    large = np.abs(found) > _MOST
    bad = np.flatnonzero((gaps.any(axis=1) & ~gaps.all(axis=1)) | large.any(axis=1))
    if len(bad):
        row = int(bad[0])
        which = found[row][gaps[row] | large[row]][0]
        raise refuse(row, f"{which} is no part of a vector: all its numbers must be finite (or all NaN, for no vector)")
    return found.astype(np.float32)
