"""Arrays and tables in files, with a digest of their content that is checked when they are read.

Arrays are safetensors, tables are Parquet. The digest lies in the file's own metadata, so that the two are replaced
together. A file without one, of an earlier version or of another program, is read unchecked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metarec_jax.core.atomic_files import replacing, system_error
from metarec_jax.core.errors import MetarecError

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = "sha256"
RESTORE = "restore it from a copy, or train the run again"
"""What can be done about a damaged file of a run."""


@contextlib.contextmanager
def reading(path: Path, remedy: str = RESTORE) -> Iterator[None]:
    """Turn what goes wrong in reading a file, and in taking its content apart, into a `MetarecError`.

    Args:
        path: of the file.
        remedy: what can be done where it does not exist or is damaged.
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
            raise MetarecError(
                f"{path} cannot be read: this account has no permission: have its owner allow it (chmod a+r on the "
                "file, a+rx on its folders)"
            ) from error
        if not _is_damage(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise MetarecError(f"{path} is damaged ({reason}): {remedy}") from error


def _is_damage(error: Exception) -> bool:
    """Whether an exception is one that reading a file of wrong content raises."""
    module = type(error).__module__
    return module.startswith(("pyarrow", "safetensors")) or isinstance(
        error, OSError | KeyError | IndexError | TypeError | ValueError | AttributeError
    )


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays as safetensors, whole or not at all.

    Args:
        path: of the file.
        arrays: by name.
        metadata: texts by name.

    Raises:
        MetarecError: the file cannot be written.
    """
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    texts = dict(metadata or {})
    with replacing(path) as part:
        save_file(arrays, part, metadata={**texts, _KEY: _digest_of_arrays(arrays, texts)})


def read_arrays(path: Path, remedy: str = RESTORE) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read what `write_arrays` wrote.

    Args:
        path: of the file.
        remedy: for the error.

    Returns:
        Arrays and texts, by name.

    Raises:
        MetarecError: the file is missing, damaged or may not be read.
    """
    from safetensors import safe_open

    with reading(path, remedy):
        with open(path, "rb"):  # whose errors are the system's own
            pass
        with safe_open(path, framework="np") as file:
            texts = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        expected = texts.pop(_KEY, None)
        if expected is not None and expected != _digest_of_arrays(arrays, texts):
            raise ValueError("its content is not what was written")
        return arrays, texts


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Write a table as Parquet, whole or not at all.

    Args:
        path: of the file.
        table: columns of texts and of numbers.
        metadata: texts by name, which replace those of the table.

    Raises:
        MetarecError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    texts = dict(metadata)
    checked = table.replace_schema_metadata({**texts, _KEY: _digest_of_table(table, texts)})
    with replacing(path) as part:
        pq.write_table(checked, part)


def read_table(path: Path, remedy: str = RESTORE) -> tuple[pa.Table, dict[str, str]]:
    """Read what `write_table` wrote.

    Args:
        path: of the file.
        remedy: for the error.

    Returns:
        The table, and texts by name.

    Raises:
        MetarecError: the file is missing, damaged or may not be read.
    """
    import pyarrow.parquet as pq

    with reading(path, remedy):
        # Not `pq.read_table`, which takes folders of the path for partitions ("user=3"), and may import pandas.
        with open(path, "rb") as file:
            table = pq.ParquetFile(file).read()
        found = table.schema.metadata or {}
        texts = {key.decode(): value.decode() for key, value in found.items() if key != b"ARROW:schema"}
        expected = texts.pop(_KEY, None)
        if expected is not None and expected != _digest_of_table(table, texts):
            raise ValueError("its content is not what was written")
        return table, texts


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers without a missing one, as an array; `to_numpy` imports pandas where that is installed."""
    parts = [
        np.frombuffer(
            chunk.buffers()[1], chunk.type.to_pandas_dtype(), len(chunk), chunk.offset * chunk.type.byte_width
        )
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, column.type.to_pandas_dtype())


def _digest_of_arrays(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(json.dumps([name, str(array.dtype), arrays[name].shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
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
