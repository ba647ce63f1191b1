"""MovieLens-100K as GroupLens publishes it: u.data, u.item and (if it is there) u.user.

Layout: https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
"""

from __future__ import annotations

from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.columns import read_text
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.movielens import CITATION, WHOLE_STARS, films, profiles, strings
from metarec_jax.data.text import profile_text

GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def read(folder: Folder, *, source: str) -> Interactions:
    """Reads `folder`; `source` becomes the sentence that says where the rows came from."""
    names = ("user", "item", "rating", "time")
    ratings = read_text(folder.read("u.data"), {n: n for n in names}, separator="\t", names=names, numeric=True)

    names = ("item", "title", "release date", "video release date", "IMDb URL", *GENRES)
    wanted = {name: name for name in ("item", "title", *GENRES)}
    items = read_text(folder.read("u.item"), wanted, separator="|", names=names, latin1=True)
    flags = [strings(items, genre) for genre in GENRES]
    genres = [[genre for genre, flag in zip(GENRES, film) if flag == "1"] for film in zip(*flags)]

    users = None
    if "u.user" in folder:
        names = ("user", "age", "gender", "occupation", "zip code")
        table = read_text(folder.read("u.user"), {n: n for n in names[:4]}, separator="|", names=names, latin1=True)
        users = profiles(table, profile_text)
    return build(
        ratings,
        items=films(items, strings(items, "title"), genres),
        users=users,
        scale=WHOLE_STARS,
        source=source,
        citation=CITATION,
    )
