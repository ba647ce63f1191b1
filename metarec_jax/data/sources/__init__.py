"""Readers, one module a layout, and which of them reads what."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions

if TYPE_CHECKING:
    from metarec_jax.data.sources.folder import Folder

_TABLES = (".csv", ".tsv", ".parquet")


class Layout(NamedTuple):
    """How a folder of files is told from others: it holds `mark` (a suffix, where it begins with a dot)."""

    source: str
    title: str
    mark: str
    module: str


LAYOUTS = (
    Layout("movielens-100k", "MovieLens-100K", "u.data", "movielens_100k"),
    Layout("movielens-100k", "MovieLens-100K", ".inter", "recbole"),
    Layout("movielens-1m", "MovieLens-1M", "ratings.dat", "movielens_1m"),
    Layout("movielens-latest", "MovieLens", "ratings.csv", "movielens_csv"),
)


def load(config: DataConfig, *, seed: int = 0) -> Interactions:
    """The data set that `config` asks for, checked.

    Args:
        config: where it is. Without a path: the cache folder, installed packages and the publisher, in this order.
        seed: of the generator, where the source is "synthetic".

    Returns:
        The interactions; their `source` says where they came from. What ``config.negatives`` asks for is not among
        them: it depends on who trains (see `metarec_jax.data.negatives.beside_clicks`).

    Raises:
        MetarecError: nothing was found, or what was found has a mistake in it.
    """
    data = _read(config, seed)
    if config.vectors and data.items.vectors is None:
        from metarec_jax.data.vectors import from_file

        items = dataclasses.replace(data.items, vectors=from_file(config.vectors, len(data.items)))
        data = dataclasses.replace(data, items=items)
    return data


def _read(config: DataConfig, seed: int) -> Interactions:
    # Imported here: what this needs (pyarrow) is slow to import, and not needed to import the package.
    if config.source == "synthetic":
        from metarec_jax.data.synthetic import synthetic

        return synthetic(seed, kind=config.kind)[0]
    if config.path:
        path = Path(config.path).expanduser()
        if path.suffix.lower() in _TABLES or config.source == "table":
            from metarec_jax.data.sources import table

            return table.read(path, config)
        return _read_folder(path, config, sentence="")
    if config.source == "auto":
        raise MetarecError("data.source 'auto' goes by the files it finds: say where they are with --data.path")
    from metarec_jax.data.sources.find import find

    found = find(config)
    return _read_folder(found.path, config, found.sentence)


def _read_folder(path: Path, config: DataConfig, sentence: str) -> Interactions:
    from metarec_jax.data.sources.folder import Folder

    if not path.exists():
        raise MetarecError(f"--data.path {path}: there is no such file or folder")
    if path.is_file() and path.suffix.lower() != ".zip":
        raise MetarecError(
            f"--data.path {path}: give a folder, a .zip, or a file whose name ends in {', '.join(_TABLES)}"
        )
    if config.kind == "click":
        raise MetarecError(
            f"data.kind is 'click', but {path} holds ratings: use --data.kind rating, or give a table of clicks"
        )
    folder = Folder(path)
    layout = recognise(folder)
    if config.source not in ("auto", layout.source):
        raise MetarecError(
            f"{path} holds {layout.mark.lstrip('.')}, which is {layout.source}, but data.source is {config.source!r}: "
            f"say --data.source {layout.source}, or give another --data.path"
        )
    reader = importlib.import_module(f"metarec_jax.data.sources.{layout.module}")
    return reader.read(folder, source=sentence or f"{layout.title} from {path}")


def recognise(folder: Folder) -> Layout:
    """The layout of the files in `folder`.

    Raises:
        MetarecError: none that there is a reader for.
    """
    for layout in LAYOUTS:
        if any(name.endswith(layout.mark) if layout.mark[0] == "." else name == layout.mark for name in folder.names):
            return layout
    raise MetarecError(
        f"{folder.path} holds no data that there is a reader for: none of {', '.join(_marks())}. "
        f"It holds {', '.join(folder.names[:12]) or 'nothing'}. A single table is read with --data.path FILE.csv"
    )


def _marks() -> list[str]:
    return [f"*{layout.mark}" if layout.mark[0] == "." else layout.mark for layout in LAYOUTS]
