"""Code shared by the layouts of MovieLens: item and user tables, scales, citation, publisher.

The md5 of a release is the one that GroupLens publishes next to the zip (NAME.zip.md5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metarec_jax.core.scale import Scale
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.text import read_text
from metarec_jax.data.text import item_text, natural_title, title_year
from metarec_jax.data.values import Table

PUBLISHER = "https://files.grouplens.org/datasets/movielens"
CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. ACM Transactions on "
    "Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
)
LICENCE = (
    "research use with acknowledgement; neither redistribution nor commercial use without permission of GroupLens "
    "(https://files.grouplens.org/datasets/movielens/ml-100k-README.txt)"
)
HALF_STARS = Scale("rating", tuple(n / 2 for n in range(1, 11)), 0.5, 5.0)

_NO_GENRE = ("", "unknown", "(no genres listed)")


def rated_films(folder: Folder, *, numeric: bool, latin1: bool) -> tuple[Table, Table]:
    """Read ratings.dat and movies.dat, whose columns are separated by "::" and whose genres by "|".

    Args:
        folder: the files.
        numeric: whether ids are integers, as for `metarec_jax.data.sources.text.read_text`; otherwise zeros at their
            beginning count.
        latin1: as for `read_text`, for the titles.

    Returns:
        (columns user, item, rating and time; the item table of `metarec_jax.data.interactions.build`).
    """
    names = ("user", "item", "rating", "time")
    ratings = read_text(folder.read("ratings.dat"), {n: n for n in names}, separator="::", names=names, numeric=numeric)
    names = ("item", "title", "genres")
    items = read_text(folder.read("movies.dat"), {n: n for n in names}, separator="::", names=names, latin1=latin1)
    genres = [text.split("|") for text in strings(items, "genres")]
    return ratings, films(items, strings(items, "title"), genres)


def films(table: Table, titles: Sequence[str], genres: Sequence[Sequence[str]]) -> Table:
    """The item table of `metarec_jax.data.interactions.build` from a file of films.

    Args:
        table: the file; its column "item" is read.
        titles: titles of each film, with its year, as MovieLens writes it: "Big Blue, The (1988)".
        genres: genres of each film.

    Returns:
        The item table.
    """
    titles = [natural_title(title) for title in titles]
    named = [[genre for genre in of_film if genre not in _NO_GENRE] for of_film in genres]
    return Table(
        name=table.name,
        columns={
            "item": table.columns["item"],
            "title": titles,
            "text": [item_text(title, of_film) for title, of_film in zip(titles, named)],
            "genres": [", ".join(of_film) for of_film in named],
            "year": [title_year(title) for title in titles],
        },
        place=table.place,
        labels=table.labels,
    )


def profiles(table: Table, text: Callable[[str, str, str], str]) -> Table:
    """The user table of `metarec_jax.data.interactions.build` from a file of users.

    Args:
        table: the file: columns user, age, gender and occupation.
        text: (age, gender, occupation) -> the text of the profile.

    Returns:
        The user table.
    """
    rows = zip(*(strings(table, column) for column in ("age", "gender", "occupation")))
    return Table(
        name=table.name,
        columns={"user": table.columns["user"], "text": [text(*row) for row in rows]},
        place=table.place,
        labels=table.labels,
    )


def strings(table: Table, column: str) -> list[str]:
    """A column of strings, without surrounding white space.

    Args:
        table: the file.
        column: its column.

    Returns:
        [rows].
    """
    return [value.strip() for value in table.columns[column].to_pylist()]
