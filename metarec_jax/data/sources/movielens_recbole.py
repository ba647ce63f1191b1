"""MovieLens in RecBole's layout: NAME.inter, NAME.item and (if it is there) NAME.user, tab separated.

Layout: https://recbole.io/docs/user_guide/data/atomic_files.html
The header writes ``name:type``. The year of a title is in a separate column; title and year together give GroupLens's
title.
"""

from __future__ import annotations

import re

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.movielens import CITATION, films, profiles, strings
from metarec_jax.data.sources.movielens_1m import coded_profile
from metarec_jax.data.sources.text import read_text
from metarec_jax.data.text import profile_text
from metarec_jax.data.values import Table

_PART = re.compile(r"(\.(train|valid|test))?\.inter$")


def read(folder: Folder, *, source: str) -> Interactions:
    """Read MovieLens in RecBole's layout.

    Args:
        folder: the files.
        source: value of `Interactions.source`.

    Returns:
        The data set.
    """
    stem = data_set(folder)
    wanted = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"}
    ratings = _read(folder.read(f"{stem}.inter"), wanted, numeric=True)

    file = folder.read(f"{stem}.item")
    # The column of genres is called class for MovieLens-100K and genre for MovieLens-1M.
    genre = "genre" if b"\tgenre:" in file.data[:1000] else "class"
    wanted = {"item": "item_id", "title": "movie_title", "year": "release_year", "genres": genre}
    items = _read(file, wanted)
    titles = [_title(*parts) for parts in zip(strings(items, "title"), strings(items, "year"))]
    genres = [text.split() for text in strings(items, "genres")]

    users = None
    if f"{stem}.user" in folder:
        wanted = {"user": "user_id", "age": "age", "gender": "gender", "occupation": "occupation"}
        table = _read(folder.read(f"{stem}.user"), wanted)
        coded = all(text.isdecimal() for text in strings(table, "occupation"))
        users = profiles(table, coded_profile if coded else profile_text)
    return build(
        ratings, items=films(items, titles, genres), users=users, scale=STARS, source=source, citation=CITATION
    )


def data_set(folder: Folder) -> str:
    """Return the name of the one data set that a folder holds.

    Raises:
        MetarecError: there are several.
    """
    stems = sorted({_PART.sub("", name) for name in folder.matching(["*.inter"])})
    if len(stems) > 1:
        raise MetarecError(f"{folder.path} holds several data sets ({', '.join(stems)}): give a folder with one")
    return stems[0]


def _read(file: File, wanted: dict[str, str], *, numeric: bool = False) -> Table:
    return read_text(file, wanted, separator="\t", typed_header=True, latin1=True, numeric=numeric)


def _title(title: str, year: str) -> str:
    # Film 267 of MovieLens-100K has the title "unknown" and no year; this layout has "unkonwn" in both columns.
    if title == year == "unkonwn":
        return "unknown"
    return f"{title} ({year})" if title and year else title
