"""MovieLens-100K, as GroupLens publishes it or as the package recbole contains it (`movielens_recbole`).

GroupLens: u.data, u.item and (if it is there) u.user.

Layout: https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
"""

from __future__ import annotations

from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.sources import movielens_recbole
from metarec_jax.data.sources.find import Package, Release
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.movielens import CITATION, LICENCE, PUBLISHER, films, profiles, strings
from metarec_jax.data.sources.source import register_layout
from metarec_jax.data.sources.text import read_text
from metarec_jax.data.text import profile_text

GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)

RELEASE = Release(
    url=f"{PUBLISHER}/ml-100k.zip",
    stems=("ml-100k",),
    md5="0e33842e24a9c977be4e0107933c0723",
    package=Package(
        "recbole",
        version="1.2.1",
        folder="dataset_example/ml-100k",
        files={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
    ),
)


@register_layout(
    "movielens-100k",
    title="MovieLens-100K",
    marks=("u.data", "ml-100k.inter"),
    release=RELEASE,
    licence=LICENCE,
)
def read(folder: Folder, *, source: str) -> Interactions:
    """Read MovieLens-100K.

    Args:
        folder: the files.
        source: value of `Interactions.source`.

    Returns:
        The data set.
    """
    if "u.data" not in folder:
        return movielens_recbole.read(folder, source=source)
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
        scale=STARS,
        source=source,
        citation=CITATION,
    )
