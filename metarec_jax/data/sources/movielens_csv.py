"""MovieLens-latest, -25M and -32M as GroupLens publishes them: ratings.csv and movies.csv.

Layout: https://files.grouplens.org/datasets/movielens/ml-latest-README.html
"""

from __future__ import annotations

from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.find import Release
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.movielens import CITATION, HALF_STARS, PUBLISHER, films, strings
from metarec_jax.data.sources.source import register_layout
from metarec_jax.data.sources.text import read_text

RELEASE = Release(f"{PUBLISHER}/ml-latest-small.zip", stems=("ml-latest-small", "ml-latest", "ml-25m", "ml-32m"))


@register_layout("movielens-latest", title="MovieLens", marks=("ratings.csv",), release=RELEASE)
def read(folder: Folder, *, source: str) -> Interactions:
    """Read MovieLens-latest, -25M or -32M.

    Args:
        folder: the files.
        source: value of `Interactions.source`.

    Returns:
        The data set.
    """
    wanted = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
    ratings = read_text(folder.read("ratings.csv"), wanted, separator=",", quoted=True, numeric=True)
    wanted = {"item": "movieId", "title": "title", "genres": "genres"}
    items = read_text(folder.read("movies.csv"), wanted, separator=",", quoted=True)
    genres = [text.split("|") for text in strings(items, "genres")]
    return build(
        ratings, items=films(items, strings(items, "title"), genres), scale=HALF_STARS, source=source, citation=CITATION
    )
