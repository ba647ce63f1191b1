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
_ABOUT = ("source", "citation", "layout", "time_unit")


class Block(NamedTuple):
    """Consecutive rows of a store.

    Attributes:
        item: int32 [rows].
        rating: float32 [rows], or the uint8 code of each in the table of levels.
        time: int64 [rows].
    """

    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray


class Contents(NamedTuple):
    """What a store holds beside its rows.

    Attributes:
        about: a data set whose columns are not used.
        offsets: int64 [users + 1], the first row of each user, and the number of rows.
        levels: float32 [at most 256], ascending, the ratings that codes stand for; None where ratings are stored.
        times: the least and the greatest time.
    """

    about: Interactions
    offsets: np.ndarray
    levels: np.ndarray | None
    times: tuple[int, int]


def write_files(folder: Path, contents: Contents, rows: Iterator[Block]) -> None:
    """Write the files of a store.

    Args:
        folder: an empty folder, which becomes a store when the last file is written.
        contents: everything beside the rows.
        rows: all rows in order, in blocks of any length.

    Raises:
        OSError: a file cannot be written.
        MetarecError: `rows` are not as many as `contents` says.
    """
    about, count = contents.about, int(contents.offsets[-1])
    narrow = all(-(2**31) <= time < 2**31 for time in contents.times)
    types = {
        "item": np.dtype(np.int32),
        "rating": np.dtype(np.float32 if contents.levels is None else np.uint8),
        "time": np.dtype(np.int32 if narrow else np.int64),
    }
    np.save(folder / "offsets.npy", np.asarray(contents.offsets, np.int64))
    _write_columns(folder, types, count, rows)
    _write_strings(folder / "users.arrow", {"id": about.users.ids, "text": about.users.texts})
    details = {f"{_DETAIL}{name}": values for name, values in about.items.details.items()}
    catalogue = {"id": about.items.ids, "title": about.items.titles, "text": about.items.texts, **details}
    _write_strings(folder / "items.arrow", catalogue)
    if about.items.vectors is not None:
        np.save(folder / "vectors.npy", np.asarray(about.items.vectors, np.float32))
    header = {
        "version": VERSION,
        "rows": count,
        "users": len(about.users),
        "items": len(about.items),
        "types": {name: dtype.name for name, dtype in types.items()},
        "levels": None if contents.levels is None else [float(level) for level in contents.levels],
        "scale": about.scale._asdict(),
        "notes": list(about.notes),
        **{name: getattr(about, name) for name in _ABOUT},
        "files": {path.name: _state(path) for path in sorted(folder.iterdir())},
    }
    text = json.dumps({**header, "sha256": _digest_of_header(header)}, indent=1)
    (folder / HEADER).write_text(text + "\n", encoding="utf-8")


def _write_columns(folder: Path, types: Mapping[str, np.dtype], count: int, rows: Iterator[Block]) -> None:
    written = 0
    with (
        open(folder / "item.npy", "wb") as item,
        open(folder / "rating.npy", "wb") as rating,
        open(folder / "time.npy", "wb") as time,
    ):
        files = {"item": item, "rating": rating, "time": time}
        for name, file in files.items():
            about = {"descr": types[name].newbyteorder("<").str, "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, about)
        for block in rows:
            for name, file in files.items():
                file.write(np.ascontiguousarray(getattr(block, name), types[name]).data)
            written += len(block.item)
    if written != count:
        raise MetarecError(f"{folder}: {written:,} rows where there must be {count:,}: build the store again")


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
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", *header["types"])}
    rating = columns["rating"]
    if header["levels"] is not None:
        rating = coded(rating, np.array(header["levels"], np.float32))
    users, items = _strings(folder / "users.arrow"), _strings(folder / "items.arrow")
    details = {name: tuple(column) for name, column in items.items() if name.startswith(_DETAIL)}
    scale: dict[str, Any] = {**header["scale"], "levels": tuple(header["scale"]["levels"])}
    vectors = np.load(folder / "vectors.npy", mmap_mode="r") if "vectors.npy" in header["files"] else None
    return Interactions(
        user=OwnerColumn(columns["offsets"]),
        item=columns["item"],
        rating=rating,
        time=columns["time"] if columns["time"].dtype == np.int64 else widened(columns["time"], np.int64),
        users=Users(users["id"], tuple(users["text"]) if "text" in users else None),
        items=Items(
            ids=tuple(items["id"]),
            titles=tuple(items["title"]),
            texts=tuple(items["text"]),
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
