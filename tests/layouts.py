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
