"""Row stores as a data source, and their making from any other source."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from metarec_jax.config.data import DataConfig
from metarec_jax.core.atomic_files import make_folder, new_folder, remove_leftovers
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import SOURCES
from metarec_jax.core.locks import hold
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.scale import Kind
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources import table
from metarec_jax.data.sources.find import cache_folder
from metarec_jax.data.sources.folder import Folder, is_zip
from metarec_jax.data.sources.source import as_read, check_options, recognise, register_layout
from metarec_jax.data.store.batches import Batches, NotInBatches, save_batches
from metarec_jax.data.store.files import HEADER, VERSION, open_store
from metarec_jax.data.store.save import save

LARGE = 1 << 29
"""Bytes of files above which `metarec_jax.data.sources.load` makes a row store in the cache folder and reads that.
They are about 20 million rows of text."""
_NOT_READ = ("cache", "download", "liked", "negatives", "negatives_popularity")
"""Options that do not change what a store holds."""


@register_layout("row-store", title="row store", marks=(HEADER,), options=("kind",))
def read(folder: Folder, *, source: str, kind: Kind) -> Interactions:
    """Open a row store that `metarec data build` made.

    Args:
        folder: the store.
        source: not used; a store says where its rows came from.
        kind: "rating", or "click", for which `metarec_jax.data.sources.load` makes clicks of ratings.

    Returns:
        The data set.

    Raises:
        MetarecError: the store is in a zip, damaged or of another version, or holds clicks where ratings are asked for.
    """
    if folder.zipped:
        raise MetarecError(f"{folder.path} is the zip of a row store, which is read from a folder: unpack it")
    data = open_store(folder.path)
    if data.kind == "click" and kind == "rating":
        raise MetarecError(f"{folder.path} holds clicks: say --data.kind click")
    return data


def build_store(config: DataConfig, out: Path, *, seed: int = 0, reporter: Reporter = QUIET) -> Interactions:
    """Make a row store of the data set that a config names.

    Tables in text, JSON lines and Parquet, and MovieLens-latest, are read in batches, so that memory does not grow with
    the rows; compressed ones are unpacked to a temporary file.
    Other sources, and tables with more than that (`metarec_jax.data.store.batches`), are read as a whole.

    Args:
        config: options of the data. ``config.liked`` and ``config.negatives`` do not matter: they apply to what a store
            holds.
        out: the new folder; it must not exist, or be empty.
        seed: seed of the source "synthetic".
        reporter: shows progress.

    Returns:
        The opened store.

    Raises:
        MetarecError: the data is not valid, the folder is in use or cannot be written. Then no store is left there.
    """
    _require_free(out)
    make_folder(out.parent)
    with hold(out.parent / f".{out.name}.lock", f"the row store {out}"):
        _require_free(out)
        _remove_killed(out)
        with new_folder(out) as part:
            _fill(as_read(config), part, seed, reporter)
    return open_store(out)


def cached(config: DataConfig, *, seed: int = 0, reporter: Reporter = QUIET) -> Interactions:
    """Open the row store of a config in the cache folder; it is made where it is not there yet.

    Args:
        config: options of the data, with a path.
        seed, reporter: as for `build_store`.

    Returns:
        The opened store.

    Raises:
        MetarecError: as for `build_store`, or the store is damaged.
    """
    place = cache_folder(config.cache) / "row-stores" / digest(config)
    store = place / "store"
    if not store.exists():
        make_folder(place)
        with hold(place / "lock", f"the row store {store}", wait=True):
            if not store.exists():
                remove_leftovers(place)
                with new_folder(store) as part:
                    _fill(config, part, seed, reporter)
    return open_store(store)


def is_large(config: DataConfig, least: int | None = None) -> bool:
    """Whether the files of a config have more than `least` bytes together, and are no row store.

    Args:
        config: options of the data.
        least: bytes; None is `LARGE`.

    Returns:
        False without a path.
    """
    if not config.path or HEADER in {path.name for path in _files(config.path)}:
        return False
    return sum(path.stat().st_size for path in _files(config.path)) > (LARGE if least is None else least)


def digest(config: DataConfig) -> str:
    """sha256 of the files and options that a row store is made of."""
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in _NOT_READ}
    found = hashlib.sha256(json.dumps([VERSION, options], sort_keys=True).encode())
    for path in (*_files(config.path), *_files(config.items_path), *_files(config.vectors)):
        found.update(f"\n{path.name}\n{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:32]


def _files(path: str) -> Iterator[Path]:
    """The file at a path, or the files of the folder there (or, without any, of the folders in it), in order."""
    place = Path(path).expanduser()
    if path and os.path.isfile(place):
        yield place
    elif path and os.path.isdir(place):
        found = [file for file in sorted(place.glob("*")) if os.path.isfile(file)]
        yield from found or [file for file in sorted(place.glob("*/*")) if os.path.isfile(file)]


def _fill(config: DataConfig, part: Path, seed: int, reporter: Reporter) -> None:
    """Write the store of a config to an empty folder: in batches where that is possible."""
    with tempfile.TemporaryDirectory(dir=part.parent) as temporary:
        try:
            found = _batches(config)
            if found is not None:
                save_batches(found, part, Path(temporary), reporter=reporter)
                return
        except (MetarecError, NotInBatches, pa.ArrowException):
            pass  # reading it as a whole succeeds, or names the mistake
    data = SOURCES.get(config.source).load(config, seed)
    reporter.note("this data was not read in batches, but as a whole: memory grew with its rows")
    for path in part.iterdir():
        path.unlink()
    save(data, part)


def _batches(config: DataConfig) -> Batches | None:
    """The data set of a config in batches; None where it has to be read as a whole."""
    path = Path(config.path).expanduser()
    if not config.path:
        return None
    if config.source != "table" and (os.path.isdir(path) or is_zip(path)):
        folder = Folder(path)
        layout = recognise(folder)
        if layout is not None:
            if layout.batches is None or config.source not in ("auto", layout.name):
                return None
            check_options(layout, config, path)
            return layout.batches(folder, source=f"{layout.title} from {path}")._replace(layout=layout.name)
    return table.batches(config) if config.source in ("auto", "table") else None


def _require_free(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if os.path.lexists(out):
        raise MetarecError(f"{path_argument(out)} exists already: name another folder, or remove it first")


def _remove_killed(out: Path) -> None:
    """Remove what a killed process left of the same store; this process holds its lock."""
    for path in out.parent.glob(".*.part"):
        if (path / out.name).is_dir():
            shutil.rmtree(path, ignore_errors=True)
