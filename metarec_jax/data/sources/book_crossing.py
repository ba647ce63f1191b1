"""Book-Crossing: BX-Book-Ratings.csv and BX-Books.csv, or the copy with commas, Ratings.csv and Books.csv.

Layout: http://www2.informatik.uni-freiburg.de/~cziegler/BX/ (semicolons, quotes escaped by backslashes, Latin-1). A
rating is 1 to 10; 0 means that a book was not rated. A few lines of the file of books have too few values.
"""

from __future__ import annotations

from metarec_jax.core.scale import Kind, Scale
from metarec_jax.core.types import Interactions
from metarec_jax.data.repeats import Rule
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.published import Form, Published
from metarec_jax.data.sources.published import read as read_published
from metarec_jax.data.sources.source import register_layout

_RATINGS = {"user": "User-ID", "item": "ISBN", "rating": "Book-Rating"}
_BOOKS = {
    "item": "ISBN",
    "title": "Book-Title",
    "author": "Book-Author",
    "year": "Year-Of-Publication",
    "publisher": "Publisher",
}

DATA = Published(
    interactions=(
        Form(("BX-Book-Ratings.csv",), _RATINGS, separator=";", quoted=True),
        Form(("Ratings.csv",), _RATINGS, separator=",", quoted=True),
    ),
    items=(
        Form(("BX-Books.csv", "BX_Books.csv"), _BOOKS, text=("author",), separator=";", quoted=True, skip=True),
        Form(("Books.csv",), _BOOKS, text=("author",), separator=",", quoted=True, skip=True),
    ),
    scale=Scale("rating", tuple(map(float, range(1, 11))), 1.0, 10.0),
    unrated=0,
    citation=(
        "Cai-Nicolas Ziegler, Sean M. McNee, Joseph A. Konstan and Georg Lausen. 2005. Improving Recommendation Lists "
        "Through Topic Diversification. WWW. https://doi.org/10.1145/1060745.1060754"
    ),
)


@register_layout(
    "book-crossing",
    title="Book-Crossing",
    marks=("BX-Book-Ratings.csv", "Ratings.csv with Books.csv"),
    options=("kind", "repeats"),
    licence="research use with acknowledgement (http://www2.informatik.uni-freiburg.de/~cziegler/BX/)",
)
def read(folder: Folder, *, source: str, kind: Kind, repeats: Rule) -> Interactions:
    """Read Book-Crossing.

    Args:
        folder: the files.
        source: value of `Interactions.source`.
        kind: "rating", which leaves rows without a rating out, or "click" to make every row a click.
        repeats: rule of rows of the same user and book.

    Returns:
        The data set.
    """
    return read_published(DATA, folder, source, kind, repeats)
