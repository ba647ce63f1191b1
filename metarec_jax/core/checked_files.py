"""Files of arrays (safetensors) and tables (Parquet) with a digest of their content, which is checked on reading.

The digest is stored in the file's metadata, so that content and digest are replaced together. Files without a digest,
from an earlier version or another program, are read without a check.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarec_jax.core.atomic_files import replacing, system_error
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.file_rows import FileRows
from metarec_jax.core.regular_files import NO_PERMISSION, open_regular

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = "sha256"
RESTORE = "restore it from a copy, or train the run again"
"""Remedy in the error message about a damaged file of a run."""


@contextlib.contextmanager
def reading(path: Path, remedy: str = RESTORE) -> Iterator[None]:
    """Raise exceptions from reading and decoding a file as a `MetarecError`.

    Args:
        path: path of the file.
        remedy: what the user can do if the file does not exist or is damaged, for the error message.

    Yields:
        None.

    Raises:
        MetarecError: the file is missing, damaged or may not be read.
    """
    try:
        yield
    except MetarecError:
        raise
    except Exception as error:
        found = system_error(error)
        if isinstance(found, FileNotFoundError):
            raise MetarecError(f"{path} does not exist: {remedy}") from error
        if isinstance(found, PermissionError):
            raise MetarecError(f"{path} {NO_PERMISSION}") from error
        if not _is_damage(error):
            raise
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
        reason = (what or type(error).__name__).splitlines()[0][:200]
        raise MetarecError(f"{path} is damaged ({reason}): {remedy}") from error


def _is_damage(error: Exception) -> bool:
    """Whether an exception is of a type that invalid content of a file raises."""
    module = type(error).__module__
    return module.startswith(("pyarrow", "safetensors")) or isinstance(
        error,
        OSError
        | LookupError
        | TypeError
        | ValueError
        | AttributeError
        | ArithmeticError
        | MemoryError
        | RecursionError,
    )


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to a safetensors file atomically.

    Args:
        path: path of the file.
        arrays: arrays by name.
        metadata: texts by name.

    Raises:
        MetarecError: the file cannot be written.
    """
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    texts = dict(metadata or {})
    with replacing(path) as part:
        save_file(arrays, part, metadata={**texts, _KEY: _digest_of_arrays(arrays, texts)})


def read_arrays(
    path: Path, remedy: str = RESTORE, *, map_above: int | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a file that `write_arrays` wrote.

    Args:
        path: path of the file.
        remedy: as for `reading`.
        map_above: bytes above which a matrix stays in the file, as `FileRows`; None reads all arrays.

    Returns:
        The arrays by name, and the metadata texts by name.

    Raises:
        MetarecError: the file is missing, damaged or may not be read.
    """
    from safetensors import safe_open

    with reading(path, remedy):
        open_regular(path).close()  # raises an `OSError` with its errno if the file cannot be opened
        arrays: dict[str, Any] = {}
        with safe_open(path, framework="np") as file:
            texts = dict(file.metadata() or {})
            for name in file.keys():  # noqa: SIM118 - not a mapping
                mapped = None if map_above is None else _mapped(path, name, map_above)
                arrays[name] = file.get_tensor(name) if mapped is None else mapped
        expected = texts.pop(_KEY, None)
        if expected is not None and expected != _digest_of_arrays(arrays, texts):
            raise ValueError("its content is not what was written")
        return arrays, texts


def _mapped(path: Path, name: str, least: int) -> FileRows | None:
    """A matrix of a safetensors file, whose header was checked, in its file; None for one that is not large."""
    with open_regular(path) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[name]
    first, last = entry["data_offsets"]
    dtype = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}.get(entry["dtype"])
    if dtype is None or len(entry["shape"]) != 2 or last - first <= least:
        return None
    return FileRows(path, 8 + length + first, tuple(entry["shape"]), dtype)


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Write a table to a Parquet file atomically.

    Args:
        path: path of the file.
        table: table with columns of texts and numbers.
        metadata: texts by name, which replace the metadata of the table.

    Raises:
        MetarecError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    texts = dict(metadata)
    checked = table.replace_schema_metadata({**texts, _KEY: _digest_of_table(table, texts)})
    with replacing(path) as part:
        pq.write_table(checked, part)


def read_table(path: Path, remedy: str = RESTORE) -> tuple[pa.Table, dict[str, str]]:
    """Read a file that `write_table` wrote.

    Args:
        path: path of the file.
        remedy: as for `reading`.

    Returns:
        The table, and the metadata texts by name.

    Raises:
        MetarecError: the file is missing, damaged or may not be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path, remedy):
        open_regular(path).close()  # raises an `OSError` with its errno if the file cannot be opened
        # Pass an open file: pyarrow would parse a path for partition keys such as "user=3", and `pq.read_table` may
        # import pandas. A file of Python would be read, and its buffers released, by threads of pyarrow, which abort
        # if the interpreter ends meanwhile.
        with pa.OSFile(os.fsencode(path)) as file:
            table = pq.ParquetFile(file).read()
        found = table.schema.metadata or {}
        texts = {key.decode(): value.decode() for key, value in found.items() if key != b"ARROW:schema"}
        expected = texts.pop(_KEY, None)
        if expected is not None and expected != _digest_of_table(table, texts):
            raise ValueError("its content is not what was written")
        return table, texts


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers without a missing one, as an array; pyarrow's own conversions import pandas."""
    import pyarrow as pa

    kind = "f" if pa.types.is_floating(column.type) else "u" if pa.types.is_unsigned_integer(column.type) else "i"
    dtype = np.dtype(f"{kind}{column.type.byte_width}")
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _digest_of_arrays(arrays: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        for part in array.blocks() if isinstance(array, FileRows) else [array]:
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest_of_table(table: pa.Table, texts: Mapping[str, str]) -> str:
    import pyarrow as pa

    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name in table.column_names:
        column = table.column(name)
        digest.update(json.dumps([name, len(column)]).encode())
        if not column.null_count and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            digest.update(np.ascontiguousarray(numbers(column)).view(np.uint8).data)
        else:
            digest.update(json.dumps(column.to_pylist()).encode())
    return digest.hexdigest()
