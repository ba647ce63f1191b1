"""Data sources and their registration.

A source is a function of the config that returns a data set. A reader of a folder is registered with the layout of its
files instead; this module then finds the folder.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.core.kinds import SOURCES
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources.find import Release, find
from metarec_jax.data.sources.folder import Folder, is_zip

_OF_TABLES = ("items_path", "separator", "header", "quoting", "escape", "encoding", "decimal", "repeats")
"""Options of `DataConfig` that a layout has no use for."""
Load = Callable[[DataConfig, int], Interactions]
"""(config, seed) -> interactions."""
Read = Callable[..., Interactions]
"""(folder, *, source, **options) -> interactions: reads a `Folder`; `source` becomes `Interactions.source`."""
Holds = Callable[[Folder], bool]
"""Whether a folder holds a data set, by what is in its files."""
ReadBatches = Callable[..., Any]
"""(folder, *, source) -> the same as `metarec_jax.data.store.batches.Batches`."""


class Layout(NamedTuple):
    """A data set of ratings in a folder, or a zip, of files.

    Attributes:
        name: name of the source.
        title: title of the data set, for messages.
        marks: file names, or patterns such as ``*.inter``, or several joined by " with "; a folder with such a file, or
            such files, has this layout.
        read: function that reads a folder.
        release: published data set, used where no path is given; None if it is not published.
        options: options of `DataConfig` that `read` takes. Without "kind" the data set has ratings, of which
            `metarec_jax.data.sources.load` makes clicks if asked for; other options of tables are refused.
        batches: function (folder, *, source) to what `read` returns, in batches for a row store; None if the files are
            read as a whole.
        holds: whether a folder with such files holds this data set, where another one has files of the same names. None
            if the names are enough.
    """

    name: str
    title: str
    marks: tuple[str, ...]
    read: Read
    release: Release | None = None
    options: tuple[str, ...] = ()
    batches: ReadBatches | None = None
    holds: Holds | None = None

    def mark_in(self, folder: Folder) -> str:
        """The first mark that matches a file of `folder`; "" if none does, or `folder` holds another data set."""
        marks = (mark for mark in self.marks if all(folder.matching([part]) for part in mark.split(" with ")))
        mark = next(marks, "")
        return mark if mark and (self.holds is None or self.holds(folder)) else ""

    def load(self, config: DataConfig, seed: int = 0) -> Interactions:
        """Read the data set from ``config.path``, or without a path from its release.

        Args:
            config: path, cache and download options.
            seed: not used.

        Returns:
            The data set.

        Raises:
            MetarecError: the data set is not found, or is not valid.
        """
        if config.path:
            return read_path(config)
        if self.release is None:
            raise MetarecError(f"data.source {self.name!r} has no publisher: say where its files are with --data.path")
        found = find(self.release, self.title, config)
        return _read_folder(found.path, config, found.sentence)


class Source(NamedTuple):
    """An entry of `metarec_jax.core.kinds.SOURCES`.

    Attributes:
        load: (config, seed) -> data set.
        public: whether the data is publicly available: published, or generated.
        layout: layout of its folder; None if it is not read from a folder.
        licence: under what terms its publisher makes the data available, with the address of the terms, in one line; ""
            if they are not known here, as of files of the user's own.
    """

    load: Load
    public: bool = False
    layout: Layout | None = None
    licence: str = ""


def register_source(name: str, *, public: bool = False, licence: str = "") -> Callable[[Load], Load]:
    """A decorator that registers a function as a data source.

    Args:
        name: name of the source in ``data.source``.
        public: see `Source`.
        licence: see `Source`.

    Returns:
        The decorator, of a function (config, seed) -> `Interactions`; `metarec_jax.data.interactions.build` makes
        these from columns.
    """

    def decorate(load: Load) -> Load:
        SOURCES.register(name)(Source(load, public, licence=licence))
        return load

    return decorate


def register_layout(
    name: str,
    *,
    title: str,
    marks: tuple[str, ...],
    release: Release | None = None,
    options: tuple[str, ...] = (),
    batches: ReadBatches | None = None,
    licence: str = "",
    holds: Holds | None = None,
) -> Callable[[Read], Read]:
    """A decorator that registers a reader of folders as a data source.

    Args:
        name: name of the source in ``data.source``.
        title: title of the data set, for messages.
        marks: file names or patterns of the layout, as in `Layout`.
        release: published data set; None if it is not published.
        options: options that the reader takes, as in `Layout`.
        batches: reader in batches, as in `Layout`.
        licence: see `Source`.
        holds: what tells the data set from another with files of the same names, as in `Layout`.

    Returns:
        The decorator, of a function (folder, *, source, **options) -> `Interactions`.
    """

    def decorate(read: Read) -> Read:
        layout = Layout(name, title, marks, read, release, options, batches, holds)
        SOURCES.register(name)(Source(layout.load, release is not None, layout, licence))
        return read

    return decorate


def read_path(config: DataConfig) -> Interactions:
    """Read the file or folder at ``config.path``: a folder or zip by the layout of its files, a file as a table.

    Raises:
        MetarecError: there is no such file, no layout fits, or the layout is not the one that ``config.source`` names.
    """
    path = Path(config.path).expanduser()
    return _read_folder(path, config) if os.path.isdir(path) or is_zip(path) else SOURCES.get("table").load(config, 0)


def _read_folder(path: Path, config: DataConfig, sentence: str = "") -> Interactions:
    folder = Folder(path)
    asked = SOURCES.get(config.source).layout
    layout = asked if asked and asked.mark_in(folder) else recognise(folder)
    if layout is None and len(folder.tables()) == 1:
        return SOURCES.get("table").load(config, 0)
    if layout is None:
        marks = ", ".join(dict.fromkeys(mark for layout in layouts() for mark in layout.marks))
        raise MetarecError(
            f"{folder.path} holds no data that there is a reader for: none of {marks}. It holds "
            f"{listed(folder.names) or 'nothing'}. A single table is read with --data.path {folder.path}/FILE.csv"
        )
    if config.source not in ("auto", layout.name):
        raise MetarecError(
            f"{path} holds {layout.mark_in(folder)}, which is {layout.name}, but data.source is {config.source!r}: "
            f"say --data.source {layout.name}, or give another --data.path"
        )
    check_options(layout, config, path)
    options = {option: getattr(config, option) for option in layout.options}
    data = layout.read(folder, source=sentence or f"{layout.title} from {path}", **options)
    return data if data.layout else dataclasses.replace(data, layout=layout.name)


def check_options(layout: Layout, config: DataConfig, path: Path) -> None:
    """Refuse options of tables that a layout has no use for.

    Args:
        layout: the layout.
        config: options of the data.
        path: the folder, for the message.

    Raises:
        MetarecError: such an option is not at its default.
    """
    usual = DataConfig()
    unused = [option for option in _OF_TABLES if option not in layout.options]
    told = next((option for option in unused if getattr(config, option) != getattr(usual, option)), "")
    if told:
        raise MetarecError(
            f"data.{told} is {shown(getattr(config, told))}, but {path} holds {layout.name}, whose files are read as "
            f"they are published: leave --data.{told.replace('_', '-')} out"
        )


def as_read(config: DataConfig) -> DataConfig:
    """The config that a reader gets: ratings are read where a threshold makes clicks of them."""
    return dataclasses.replace(config, kind="rating") if config.liked else config


def layouts() -> list[Layout]:
    """Every registered layout."""
    return [source.layout for source in map(SOURCES.get, SOURCES.names()) if source.layout]


def recognise(folder: Folder) -> Layout | None:
    """The first registered layout that `folder` has a file of, those that look into files before others; None where
    there is none."""
    ordered = sorted(layouts(), key=lambda layout: layout.holds is None)
    return next((layout for layout in ordered if layout.mark_in(folder)), None)
