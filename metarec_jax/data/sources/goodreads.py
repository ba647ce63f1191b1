"""Goodreads (UCSD Book Graph): goodreads_interactions*.json.gz, or goodreads_interactions.csv with book_id_map.csv.

Layout: https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html. A rating is 1 to 5; 0 means that a book is on a shelf
without a rating. Ids of the CSV file are its own, which book_id_map.csv maps to those of goodreads_books*.json.gz.
"""

from __future__ import annotations

from metarec_jax.core.scale import STARS, Kind
from metarec_jax.core.types import Interactions
from metarec_jax.data.repeats import Rule
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.published import Form, Published
from metarec_jax.data.sources.published import read as read_published
from metarec_jax.data.sources.source import register_layout

_RATINGS = {"user": "user_id", "item": "book_id", "rating": "rating"}

DATA = Published(
    interactions=(
        Form(
            ("goodreads_interactions*.json", "goodreads_interactions*.json.gz"),
            {**_RATINGS, "time": "date_added"},
            time="%a %b %d %H:%M:%S %z %Y",
        ),
        Form(
            ("goodreads_interactions*.csv",),
            _RATINGS,
            separator=",",
            numeric=True,
            item_ids=("book_id_map.csv", "book_id_csv", "book_id"),
        ),
    ),
    items=(
        Form(
            ("goodreads_books*.json", "goodreads_books*.json.gz"),
            {
                "item": "book_id",
                "title": "title",
                "description": "description",
                "year": "publication_year",
                "publisher": "publisher",
                "language": "language_code",
            },
            text=("description",),
        ),
    ),
    scale=STARS,
    unrated=0,
    citation=(
        "Mengting Wan and Julian McAuley. 2018. Item Recommendation on Monotonic Behavior Chains. RecSys. "
        "https://doi.org/10.1145/3240323.3240369"
    ),
)


@register_layout(
    "goodreads",
    title="Goodreads",
    marks=("goodreads_interactions*",),
    options=("kind", "repeats"),
    licence="academic use; neither redistribution nor commercial use "
    "(https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html)",
)
def read(folder: Folder, *, source: str, kind: Kind, repeats: Rule) -> Interactions:
    """Read Goodreads.

    Args:
        folder: the files.
        source: value of `Interactions.source`.
        kind: "rating", which leaves rows without a rating out, or "click" to make every book on a shelf a click.
        repeats: rule of rows of the same user and book.

    Returns:
        The data set.
    """
    return read_published(DATA, folder, source, kind, repeats)
