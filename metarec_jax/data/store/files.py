"""The files of a row store: written in one pass over sorted rows, checked and memory-mapped when they are opened.

A store is a folder of

    row-store.json  numbers of rows, scale, remarks, and size and sha256 of every other file
    offsets.npy     int64 [users + 1], the first row of each user, and the number of rows
    item.npy        int32 [rows]
    rating.npy      uint8 [rows], codes into ``levels`` of row-store.json; or float32 [rows] for more than 256 values
    time.npy        int32 or int64 [rows]
    users.arrow     id, and text where users have one
    items.arrow     id, title, text, and details
    vectors.npy     float32 [items, width], where items have vectors

in which rows are sorted by user, then time, then item, as in `Interactions` of any source. That is 9 bytes a row for
ratings of few levels with times in seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from metarec_jax.core.checked_files import reading
from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.json_files import read_json
from metarec_jax.core.regular_files import open_regular
from metarec_jax.core.scale import Scale
from metarec_jax.core.stored_columns import OwnerColumn, coded, widened
from metarec_jax.core.stored_strings import StoredStrings
from metarec_jax.core.types import Interactions, Items, Users

HEADER = "row-store.json"
"""File that marks a folder as a row store. It is written last."""
VERSION = 1
"""Of the format; a store of another version is refused."""
MOST_CODES = 256
"""Greatest number of different ratings that are stored as codes of one byte."""
_DETAIL = "detail: "
_READ = 1 << 22
_COLUMNS = ("offsets", "item", "rating", "time")
_ABOUT = ("source", "citation", "layout", "time_unit")


class Block(NamedTuple):
    """Consecutive rows of a store.

    Attributes:
        user: int32 [rows], ascending, also from block to block.
        item: int32 [rows].
        rating: float32 [rows], or the uint8 code of each in the table of levels.
        time: int64 [rows].
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray


def write_rows(folder: Path, rows: Iterator[Block], *, users: int, coded: bool, times: tuple[int, int]) -> int:
    """Write the columns of a store.

    Args:
        folder: an empty folder.
        rows: all rows in order, in blocks of any length.
        users: number of users.
        coded: whether ratings are codes.
        times: the least and the greatest time.

    Returns:
        Number of rows.

    Raises:
        OSError: a file cannot be written.
    """
    narrow = all(-(2**31) <= time < 2**31 for time in times)
    types = {"item": np.int32, "rating": np.uint8 if coded else np.float32, "time": np.int32 if narrow else np.int64}
    count = np.zeros(users, np.int64)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / f"{name}.npy", "wb")) for name in types}

        def write_headers(length: int) -> None:
            for name, file in files.items():
                about = {"descr": np.dtype(types[name]).str, "fortran_order": False, "shape": (length,)}
                np.lib.format.write_array_header_1_0(file, about)

        write_headers(0)
        for block in rows:
            count += np.bincount(block.user, minlength=users)
            for name, file in files.items():
                file.write(np.ascontiguousarray(getattr(block, name), types[name]).data)
        for file in files.values():
            file.seek(0)
        write_headers(int(count.sum()))  # of the same length: NumPy leaves room for any number of rows
    np.save(folder / "offsets.npy", np.append(0, np.cumsum(count)))
    return int(count.sum())


def write_description(folder: Path, about: Interactions, levels: np.ndarray | None) -> None:
    """Write everything of a store beside its rows; then it is whole.

    Args:
        folder: folder of the rows that `write_rows` wrote.
        about: a data set, whose columns are not used.
        levels: float32 [at most 256], ascending, the ratings that codes stand for; None where ratings are stored.

    Raises:
        OSError: a file cannot be written.
    """
    _write_strings(folder / "users.arrow", {"id": about.users.ids, "text": about.users.texts})
    details = {f"{_DETAIL}{name}": values for name, values in about.items.details.items()}
    catalogue = {"id": about.items.ids, "title": about.items.titles, "text": about.items.texts, **details}
    _write_strings(folder / "items.arrow", catalogue)
    if about.items.vectors is not None:
        np.save(folder / "vectors.npy", np.asarray(about.items.vectors, np.float32))
    header = {
        "version": VERSION,
        "rows": int(np.load(folder / "offsets.npy", mmap_mode="r")[-1]),
        "users": len(about.users),
        "items": len(about.items),
        "levels": None if levels is None else [float(level) for level in levels],
        "scale": about.scale._asdict(),
        "notes": list(about.notes),
        **{name: getattr(about, name) for name in _ABOUT},
        "files": {path.name: _state(path) for path in sorted(folder.iterdir())},
    }
    text = json.dumps({**header, "sha256": _digest_of_header(header)}, indent=1)
    (folder / HEADER).write_text(text + "\n", encoding="utf-8")


def _write_strings(path: Path, columns: Mapping[str, Any]) -> None:
    arrays = {n: pa.array(values, pa.large_string()) for n, values in columns.items() if values is not None}
    table = pa.table(arrays)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1 << 16)


def _state(path: Path) -> dict[str, Any]:
    """Size and digest of a file."""
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while block := file.read(_READ):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _digest_of_header(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


# Opening


def open_store(folder: Path) -> Interactions:
    """Open a store: its files are read once and compared with their digests, then mapped.

    Args:
        folder: the store.

    Returns:
        The data set. Its columns stay in the files, and are read where rows are asked for.

    Raises:
        MetarecError: a file is missing or damaged, or of another version.
    """
    remedy = f"remove {folder}, and build the store again"
    header = _header(folder, remedy)
    for name, wanted in header["files"].items():
        with reading(folder / name, remedy):
            found = _state(folder / name)
            if found["bytes"] != wanted["bytes"]:
                raise ValueError(f"{found['bytes']:,} bytes where {wanted['bytes']:,} were written")
            if found["sha256"] != wanted["sha256"]:
                raise ValueError("its content is not what was written")
    with reading(folder, remedy):
        return _opened(folder, header)


def _header(folder: Path, remedy: str) -> dict[str, Any]:
    path = folder / HEADER
    header = read_json(path, remedy=remedy)
    if not isinstance(header, dict) or "version" not in header:
        raise MetarecError(f"{path} is not the description of a row store: {remedy}")
    if header["version"] != VERSION:
        raise MetarecError(
            f"{path}: the store is of version {shown(header['version'])}, and this metarec reads {VERSION}: {remedy}"
        )
    if header.pop("sha256", None) != _digest_of_header(header):
        raise MetarecError(f"{path} is damaged (its content is not what was written): {remedy}")
    return header


def _opened(folder: Path, header: Mapping[str, Any]) -> Interactions:
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _COLUMNS}
    rating = columns["rating"]
    if header["levels"] is not None:
        rating = coded(rating, np.array(header["levels"], np.float32))
    users, items = _strings(folder / "users.arrow"), _strings(folder / "items.arrow")
    details = {name: column for name, column in items.items() if name.startswith(_DETAIL)}
    scale: dict[str, Any] = {**header["scale"], "levels": tuple(header["scale"]["levels"])}
    vectors = np.load(folder / "vectors.npy", mmap_mode="r") if "vectors.npy" in header["files"] else None
    return Interactions(
        user=OwnerColumn(columns["offsets"]),
        item=columns["item"],
        rating=rating,
        time=columns["time"] if columns["time"].dtype == np.int64 else widened(columns["time"], np.int64),
        users=Users(users["id"], users.get("text")),
        items=Items(
            ids=items["id"],
            titles=items["title"],
            texts=items["text"],
            details={name.removeprefix(_DETAIL): values for name, values in details.items()},
            vectors=vectors,
        ),
        scale=Scale(**scale),
        notes=tuple(header["notes"]),
        **{name: header[name] for name in _ABOUT},
    )


def _strings(path: Path) -> dict[str, StoredStrings]:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()  # the map lasts as long as the table
    return {name: StoredStrings(table.column(name)) for name in table.column_names}
