"""The same few invented films, users and ratings, written in every layout that there is a reader for."""

import csv
import zipfile
from pathlib import Path

import numpy as np

GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
# id, title, year, genres; film 10 has no rating, film 4 no genre, film 3 no Latin-1-free title
FILMS = (
    ("1", "Quiet Harbour, The", "1995", ("Drama",)),
    ("2", "Seven Kites", "1988", ("Animation", "Children's")),
    ("3", "Été perdu, L' (Lost Summer, The)", "1970", ("Drama", "Romance")),
    ("4", "Nobody, Nowhere", "1999", ()),
    ("10", 'The "Iron" Orchard', "1951", ("Film-Noir", "Western")),
)
# id, age, gender, occupation; user 12 has no rating
PEOPLE = (("7", "24", "M", "technician"), ("9", "31", "F", "other"), ("12", "8", "F", "none"))
# user, item, rating, time; in no order
RATINGS = (
    ("9", "2", "4", "300"),
    ("7", "3", "1", "200"),
    ("7", "1", "5", "100"),
    ("9", "4", "3", "150"),
    ("7", "2", "2", "200"),
)


def _lines(path: Path, rows, separator: str, encoding: str = "utf-8", header: str = "") -> None:
    text = "".join(f"{separator.join(row)}\n" for row in rows)
    path.write_text(f"{header}\n{text}" if header else text, encoding=encoding, newline="\n")


def movielens_100k(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _lines(folder / "u.data", RATINGS, "\t")
    films = []
    for identity, title, year, genres in FILMS:
        flags = ["1" if name in genres or (name == "unknown" and not genres) else "0" for name in GENRES]
        films.append((identity, f"{title} ({year})", f"01-Jan-{year}", "", "http://example.org/?x", *flags))
    _lines(folder / "u.item", films, "|", "latin-1")
    _lines(folder / "u.user", [(*person, "00000") for person in PEOPLE], "|", "latin-1")
    return folder


def recbole(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    _lines(folder / "ml-100k.inter", RATINGS, "\t", header=header)
    films = [(i, title, year, " ".join(genres) or "unknown") for i, title, year, genres in FILMS]
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    _lines(folder / "ml-100k.item", films, "\t", header=header)
    header = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"
    _lines(folder / "ml-100k.user", [(*person, "00000") for person in PEOPLE], "\t", header=header)
    return folder


def movielens_1m(folder: Path, users: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _lines(folder / "ratings.dat", RATINGS, "::")
    films = [(i, f"{title} ({year})", "|".join(genres) or "unknown") for i, title, year, genres in FILMS]
    _lines(folder / "movies.dat", films, "::", "latin-1")
    if users:
        coded = (("7", "M", "18", "17", "00000"), ("9", "F", "1", "10", "00000"), ("12", "M", "56", "0", "00000"))
        _lines(folder / "users.dat", coded, "::")
    return folder


def movietweetings(folder: Path) -> Path:
    """The names of MovieLens-1M's files, films with IMDb numbers, ratings from 0 to 10, and accounts for users."""
    folder.mkdir(parents=True, exist_ok=True)
    ratings = [(user, f"{int(item):07d}", str(2 * int(rating)), time) for user, item, rating, time in RATINGS]
    _lines(folder / "ratings.dat", [("9", "0000010", "0", "301"), *ratings], "::")
    films = [(f"{int(i):07d}", f"{title} ({year})", "|".join(genres)) for i, title, year, genres in FILMS]
    _lines(folder / "movies.dat", films, "::")
    _lines(folder / "users.dat", (("7", "18405182"), ("9", "31260677"), ("12", "138805259")), "::")
    return folder


def movielens_1m_of(folder: Path, users: int = 60, films: int = 40, seed: int = 0) -> Path:
    """Drawn users who rate 30 of the films each, as MovieLens-1M is written; half of the films are of 1998 or later."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = [
        (str(user), str(film + 1), str(rng.integers(1, 6)), str(1000 + rng.integers(5000)))
        for user in range(1, users + 1)
        for film in rng.permutation(films)[:30]
    ]
    _lines(folder / "ratings.dat", rows, "::")
    titles = [(str(i + 1), f"Film {i + 1} ({1996 + i % 4})", "Drama|War" if i % 3 else "Comedy") for i in range(films)]
    _lines(folder / "movies.dat", titles, "::", "latin-1")
    people = [(str(u), "MF"[u % 2], ("1", "18", "25")[u % 3], str(u % 20), "00000") for u in range(1, users + 1)]
    _lines(folder / "users.dat", people, "::")
    return folder


def movielens_csv(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    films = [(i, f"{title} ({year})", "|".join(genres) or "(no genres listed)") for i, title, year, genres in FILMS]
    _csv(folder / "movies.csv", ("movieId", "title", "genres"), films)
    _csv(folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp"), RATINGS)
    return folder


def _csv(path: Path, header, rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        writer.writerows(rows)


def zipped(folder: Path, target: Path, top: str) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{top}{path.name}")
    return target


def made_up_ratings(
    users: int, items: int, each: int, levels: int, seed: int = 0
) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Ratings (user, item, 1 to `levels`) that follow an item's mean, a user's bias and two factors, popular items more
    often than others; and the kind of each item, which its first factor decides.

    Args:
        users, items: how many.
        each: of a user.
        levels: highest rating.
        seed: the draw.
    """
    rng = np.random.default_rng(seed)
    factors, tastes = rng.normal(size=(items, 2)), rng.normal(size=(users, 2))
    popular = rng.gumbel(size=(users, items)) + rng.normal(size=items)
    mean, bias = rng.normal(size=items) / 2, rng.normal(size=users) / 3
    rows = []
    for user in range(users):
        for item in np.argsort(popular[user])[-each:]:
            liking = mean[item] + bias[user] + 0.7 * factors[item] @ tastes[user] + 0.4 * rng.normal()
            rows.append((user, int(item), int(np.clip(round((1 + levels) / 2 + levels / 6 * liking), 1, levels))))
    return rows, (factors[:, 0] > 0).astype(int)


def movielens_1m_made_up(folder: Path) -> Path:
    """MovieLens-1M's layout; half of the films are of 1998 or later."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, kinds = made_up_ratings(90, 60, 40, 5)
    _lines(
        folder / "ratings.dat",
        [(str(u + 1), str(i + 1), str(r), str(900 + n)) for n, (u, i, r) in enumerate(rows)],
        "::",
    )
    films = [(str(i + 1), f"Film {i + 1} ({1996 + i % 4})", ("Drama|War", "Comedy")[k]) for i, k in enumerate(kinds)]
    _lines(folder / "movies.dat", films, "::", "latin-1")
    people = [(str(u), "MF"[u % 2], ("1", "18", "25")[u % 3], str(u % 20), "00000") for u in range(1, 91)]
    _lines(folder / "users.dat", people, "::")
    return folder


def anime_made_up(folder: Path) -> Path:
    """RecBole's atomic files of ratings 1 to 10 of titles with genres, without times."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, kinds = made_up_ratings(90, 60, 30, 10, seed=1)
    ratings = [(f"{u}", f"{i}", f"{r}") for u, i, r in rows]
    _lines(folder / "anime.inter", ratings, "\t", header="user_id:token\titem_id:token\trating:float")
    titles = [(f"{i}", f"Title {i}", ("Action, Mecha", "Slice of Life")[k], "TV") for i, k in enumerate(kinds)]
    header = "item_id:token\tname:token_seq\tgenre:token_seq\ttype:token"
    _lines(folder / "anime.item", titles, "\t", header=header)
    return folder


def book_crossing_made_up(folder: Path) -> Path:
    """Book-Crossing's layout: few ratings 1 to 10 of many books, and zeros, which are no ratings."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, kinds = made_up_ratings(90, 400, 30, 10, seed=2)
    ratings = [f'"{u}";"isbn{i}";"{r}"' for u, i, r in rows] + [f'"{u}";"isbn{u}";"0"' for u in range(20)]
    books = [f'"isbn{i}";"Book {i}";"Author {k}";"{1990 + i % 9}";"P";"http://x"' for i, k in enumerate(kinds)]
    _lines(
        folder / "BX-Book-Ratings.csv", [(row,) for row in ratings], ";", "latin-1", '"User-ID";"ISBN";"Book-Rating"'
    )
    header = '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S"'
    _lines(folder / "BX-Books.csv", [(book,) for book in books], ";", "latin-1", header)
    return folder
