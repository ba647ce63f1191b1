"""MovieTweetings: ratings of films from 0 to 10 that people sent to Twitter, in the files of MovieLens-1M.

Layout: https://github.com/sidooms/MovieTweetings. Films have their IMDb number, of seven digits or more; users.dat has
numbers of Twitter accounts, which are not read.
"""

from __future__ import annotations

import re

from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.movielens import rated_films
from metarec_jax.data.sources.source import register_layout

CITATION = (
    "Simon Dooms, Toon De Pessemier and Luc Martens. 2013. MovieTweetings: a Movie Rating Dataset Collected From "
    "Twitter. CrowdRec at RecSys 2013. https://github.com/sidooms/MovieTweetings"
)
SCALE = Scale("rating", tuple(float(n) for n in range(11)), 0.0, 10.0)


def numbered_by_imdb(folder: Folder) -> bool:
    """Whether the first film has an IMDb number, which no film of MovieLens has."""
    return "movies.dat" in folder and bool(re.match(rb"\d{7,}::", bytes(folder.read("movies.dat").data[:16])))


@register_layout(
    "movietweetings",
    title="MovieTweetings",
    marks=("ratings.dat",),
    holds=numbered_by_imdb,
    licence="MIT (https://github.com/sidooms/MovieTweetings)",
)
def read(folder: Folder, *, source: str) -> Interactions:
    """Read MovieTweetings.

    Args:
        folder: the files.
        source: value of `Interactions.source`.

    Returns:
        The data set.
    """
    ratings, items = rated_films(folder, numeric=False, latin1=False)
    return build(ratings, items=items, scale=SCALE, source=source, citation=CITATION)
