"""A few invented users, items and ratings, as the publishers of data sets write them."""

import gzip
import json
from pathlib import Path

ITEMS = {
    "b1": ("The Paper Garden", "A novel."),
    "b2": ("Winter, Twice", "Said to be short!"),
    "b3": ('A "Quiet" Sea', ""),
}
ROWS = (("u1", "b1", 5, 1_500_000_000), ("u1", "b2", 3, 1_500_000_100), ("u2", "b3", 1, 1_500_000_200))


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path.parent


def lines(path: Path, rows, write=json.dumps) -> Path:
    return text(path, "".join(f"{write(row)}\n" for row in rows))


def table(path: Path, rows, separator: str, encoding: str = "utf-8") -> Path:
    return text(path, "".join(f"{separator.join(map(str, row))}\n" for row in rows), encoding)


def amazon_2014(folder: Path) -> Path:
    reviews = [
        {"reviewerID": u, "asin": i, "helpful": [0, 1], "overall": float(r), "unixReviewTime": t, "reviewText": "x"}
        for u, i, r, t in ROWS
    ]
    lines(folder / "reviews_Books_5.json.gz", reviews)
    meta = [
        {
            "asin": i,
            "title": n,
            "description": d,
            "categories": [["Books", "Novels"], ["Gifts"]],
            "salesRank": {"Books": 3},
        }
        for i, (n, d) in ITEMS.items()
    ]
    return lines(folder / "meta_Books.json.gz", [*meta, {"asin": "other", "title": "never reviewed"}], repr)


def amazon_2018(folder: Path) -> Path:
    reviews = [
        {
            "overall": float(r),
            "verified": True,
            "reviewerID": u,
            "asin": i,
            "unixReviewTime": t,
            "style": {f"s{t}": "a"},
        }
        for u, i, r, t in ROWS
    ]
    lines(folder / "Books_5.json.gz", reviews)
    ranks = ("5 in Books", ["3 in Books", "1 in Gifts"], None)  # of several types, as it is published
    meta = [
        {"category": ["Books", "Novels"], "description": [d] if d else [], "title": n, "rank": rank, "asin": i}
        for (i, (n, d)), rank in zip(ITEMS.items(), ranks)
    ]
    return lines(folder / "meta_Books.json.gz", [*meta, meta[0] | {"title": "The same again"}])


def amazon_2023(folder: Path) -> Path:
    reviews = [
        {"rating": float(r), "title": "t", "asin": f"v{i}", "parent_asin": i, "user_id": u, "timestamp": t * 1000}
        for u, i, r, t in ROWS
    ]
    lines(folder / "review_categories" / "Books.jsonl", reviews)
    prices = (None, 3.5, "from 2.99")
    meta = [
        {
            "title": n,
            "features": [],
            "description": [d] if d else [],
            "price": p,
            "parent_asin": i,
            "categories": ["Books"],
        }
        for (i, (n, d)), p in zip(ITEMS.items(), prices)
    ]
    lines(folder / "meta_categories" / "meta_Books.jsonl", meta)
    return folder


def goodreads(folder: Path) -> Path:
    added = ("Thu Jul 13 19:40:00 -0700 2017", "Thu Jul 13 19:41:40 -0700 2017", "Fri Jul 14 02:43:20 +0000 2017")
    rows = [
        {"user_id": u, "book_id": i, "is_read": True, "rating": r, "date_added": t, "read_at": ""}
        for (u, i, r, _), t in zip(ROWS, added)
    ]
    rows.append(
        {"user_id": "u2", "book_id": "b1", "is_read": False, "rating": 0, "date_added": added[0], "read_at": ""}
    )
    lines(folder / "goodreads_interactions_poetry.json.gz", rows)
    return _goodreads_books(folder)


def goodreads_csv(folder: Path) -> Path:
    rows = [(n, int(i[1]) - 1, 1, r, 0) for n, (_, i, r, _) in zip((0, 0, 1), ROWS)]
    table(
        folder / "goodreads_interactions.csv",
        [("user_id,book_id,is_read,rating,is_reviewed",), *rows, (1, 0, 0, 0, 0)],
        ",",
    )
    table(folder / "book_id_map.csv", [("book_id_csv", "book_id"), *((n, i) for n, i in enumerate(ITEMS))], ",")
    return _goodreads_books(folder)


def _goodreads_books(folder: Path) -> Path:
    books = [
        {"book_id": i, "title": n, "description": d, "publisher": "P", "popular_shelves": [{"count": "3", "name": "x"}]}
        for i, (n, d) in ITEMS.items()
    ]
    return lines(folder / "goodreads_books_poetry.json.gz", books)


def _quoted(values, escaped: str) -> list[str]:
    return ['"' + str(value).replace('"', escaped) + '"' for value in values]


def book_crossing(folder: Path) -> Path:
    header = ("User-ID", "ISBN", "Book-Rating")
    rows = [(u, i, 2 * r) for u, i, r, _ in ROWS] + [("u2", "b1", 0)]
    table(folder / "BX-Book-Ratings.csv", [_quoted(row, r"\"") for row in (header, *rows)], ";", "latin-1")
    header = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-S")
    books = [_quoted((i, n, "Zoë A.", 1999, "P &amp; Q", "http://x"), r"\"") for i, (n, _) in ITEMS.items()]
    broken = ['"b9"', r'"Readers (Level 4)\";An Author"', '"2000"', '"P"', '"http://x"']
    return table(folder / "BX-Books.csv", [_quoted(header, ""), *books, broken], ";", "latin-1")


def book_crossing_commas(folder: Path) -> Path:
    rows = [(u, i, 2 * r) for u, i, r, _ in ROWS] + [("u2", "b1", 0)]
    table(folder / "Ratings.csv", [("User-ID", "ISBN", "Book-Rating"), *rows], ",")
    books = [_quoted((i, n, "Zoë A.", 1999, "P & Q", "http://x"), '""') for i, (n, _) in ITEMS.items()]
    header = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-S")
    table(folder / "Users.csv", [("User-ID", "Location", "Age"), ("u1", '"nyc, usa"', "")], ",")
    return table(folder / "Books.csv", [header, *books], ",")


def lastfm_hetrec(folder: Path) -> Path:
    rows = [(u[1], i[1], r) for u, i, r, _ in ROWS]
    table(folder / "user_artists.dat", [("userID", "artistID", "weight"), *rows], "\t")
    artists = [(i[1], n, "http://x", "http://y") for i, (n, _) in ITEMS.items()]
    table(folder / "tags.dat", [("tagID", "tagValue"), (1, "metal")], "\t", "latin-1")
    return table(folder / "artists.dat", [("id", "name", "url", "pictureURL"), *artists], "\t")


def lastfm_360k(folder: Path) -> Path:
    rows = [(u, "" if i == "b2" else f"mbid-{i}", ITEMS[i][0], r) for u, i, r, _ in ROWS]
    rows += [("u2", "", "", 7), ("u2", "mbid-0", ITEMS["b3"][0], 4)]
    return table(folder / "usersha1-artmbid-artname-plays.tsv", rows, "\t")


def lastfm_1k(folder: Path) -> Path:
    rows = [
        (u, f"2009-04-0{n + 1}T01:57:{second:02}Z", "", ITEMS[i][0], "", f"track {second}")
        for n, (u, i, r, _) in enumerate(ROWS)
        for second in range(r)
    ]
    return table(folder / "userid-timestamp-artid-artname-traid-traname.tsv", rows, "\t")


def mind(folder: Path) -> Path:
    """Folders of train and dev, of which dev has one piece of news more."""
    news = [(i, "lifestyle", "books", n, d, "https://x", "[]", '[{"Label": "x"}]') for i, (n, d) in ITEMS.items()]
    table(folder / "MINDsmall_train" / "news.tsv", news[:2], "\t")
    table(folder / "MINDsmall_dev" / "news.tsv", news[1:], "\t")
    train = [
        (1, "u1", "11/11/2019 9:05:58 AM", "b1", "b2-1 b1-0"),
        (2, "u2", "11/12/2019 6:11:30 PM", "", "b1-0"),
    ]
    table(folder / "MINDsmall_train" / "behaviors.tsv", train, "\t")
    table(folder / "MINDsmall_dev" / "behaviors.tsv", [(1, "u2", "11/15/2019 8:55:22 AM", "", "b3-1 b2-0")], "\t")
    return folder


def recbole(folder: Path) -> Path:
    text(folder / "README.md", "of another program")
    rows = [("user_id:token", "item_id:token", "rating:float", "timestamp:float"), *ROWS]
    table(folder / "books.inter", rows, "\t")
    header = ("item_id:token", "title:token_seq", "pages:float", "about:token_seq", "vector:float_seq", "brand:token")
    items = [(i, n, 100.5, d, "0.1 0.2", "B") for i, (n, d) in ITEMS.items()]
    return table(folder / "books.item", [header, *items, ("b9", "never rated", 1.0, "", "0 0", "")], "\t")
