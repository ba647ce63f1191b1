"""Pictures of items: vectors of a vision tower, and small copies for display."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.regular_files import open_regular
from metarec_jax.data.sources.find import cache_folder
from metarec_jax.data.values import Table
from metarec_jax.encoder.vision import PictureTable, encode_pictures, load_vision
from metarec_jax.encoder.vision.pictures import MOST_BYTES


def read(table: Table, column: str, config: DataConfig) -> PictureTable:
    """Read a column of pictures: paths relative to the item file, or bytes.

    Args:
        table: the item file.
        column: its column.
        config: options of the data: the item file's path, the vision tower and the cache folder.

    Returns:
        Vectors and small copies, by row of the table.

    Raises:
        MetarecError: the column holds neither paths nor bytes, no row has a picture, a picture is missing, damaged or
            too large, or the tower cannot be loaded. The message names file and row.
    """
    values, label = table.columns[column], table.label(column)
    listed = values.to_pylist() if isinstance(values, pa.ChunkedArray) else list(values)
    folder = Path(config.items_path).expanduser().parent
    files: list[Callable[[], bytes] | None] = []
    for row, value in enumerate(listed):
        given = _given(value)
        if isinstance(given, Path):
            files.append(_opener(table, row, label, folder / given))
        elif given is None or isinstance(given, bytes):
            files.append(None if not given else _constant(given))
        else:
            raise table.refuse(row, f"{label} is {shown(str(value))}; it must be the path of a picture, or its bytes")
    if not any(files):
        raise MetarecError(f"{table.name}: column {label!r} holds no picture at all")

    def refuse(row: int, message: str) -> MetarecError:
        value = _given(listed[row])
        where = f" {folder / value}" if isinstance(value, Path) else ""
        return table.refuse(row, f"{label}{where}: {message}; mend it, or leave it out where an item has no picture")

    return encode_pictures(load_vision(config.image_encoder), files, refuse, cache_folder(config.cache) / "pictures")


def _given(value: Any) -> Any:
    """A path, bytes, or None where there is no picture; the value itself where it is something else."""
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():  # the pictures of data sets of Hugging Face
        return _given(value.get("bytes") or value.get("path"))
    if isinstance(value, str):
        return Path(value) if value.strip() else None
    return value


def _opener(table: Table, row: int, label: str, path: Path) -> Callable[[], bytes]:
    def opened() -> bytes:
        try:
            with open_regular(path) as file:
                return file.read(MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            name = shown("/".join(path.parts[-2:]))  # of a long path the end, which is in the table
            reason = getattr(error, "strerror", "") or error
            raise table.refuse(row, f"{label} is {name}, which cannot be read ({reason})") from error

    return opened


def _constant(data: bytes) -> Callable[[], bytes]:
    return lambda: data
