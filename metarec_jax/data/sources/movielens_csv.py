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
from metarec_jax.data.sources.text import open_text, read_text
from metarec_jax.data.store.batches import Batches
from metarec_jax.data.values import Table

RELEASE = Release(f"{PUBLISHER}/ml-latest-small.zip", stems=("ml-latest-small", "ml-latest", "ml-25m", "ml-32m"))


LICENCE = (
    "research use with acknowledgement; redistribution under the same conditions alone, and no commercial use without "
    "permission of GroupLens (https://files.grouplens.org/datasets/movielens/ml-latest-README.html)"
)
_COLUMNS = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}


def read_batches(folder: Folder, *, source: str) -> Batches:
    """Read the same as `read`, in batches.

    Args:
        folder: the files.
        source: value of `Interactions.source`.

    Returns:
        The batches.
    """
    opened = open_text(folder.read("ratings.csv"), separator=",", quoted=True)
    tables, done = opened.batches(_COLUMNS, numeric=True)
    return Batches(tables, opened.size, done, _films(folder), "rating", source, HALF_STARS, CITATION)


@register_layout(
    "movielens-latest",
    title="MovieLens",
    marks=("ratings.csv",),
    release=RELEASE,
    batches=read_batches,
    licence=LICENCE,
)
def read(folder: Folder, *, source: str) -> Interactions:
    """Read MovieLens-latest, -25M or -32M.

    Args:
        folder: the files.
        source: value of `Interactions.source`.

    Returns:
        The data set.
    """
    ratings = read_text(folder.read("ratings.csv"), _COLUMNS, separator=",", quoted=True, numeric=True)
    return build(ratings, items=_films(folder), scale=HALF_STARS, source=source, citation=CITATION)


def _films(folder: Folder) -> Table:
    wanted = {"item": "movieId", "title": "title", "genres": "genres"}
    items = read_text(folder.read("movies.csv"), wanted, separator=",", quoted=True)
    return films(items, strings(items, "title"), [text.split("|") for text in strings(items, "genres")])
