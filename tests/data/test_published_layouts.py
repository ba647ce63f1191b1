"""Data sets as their publishers ship them: recognised by their files, and refused with file, line and remedy."""

import numpy as np
import published
import pytest
from helpers import assert_equal

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

BOOKS = {
    "amazon-2014": published.amazon_2014,
    "amazon-2018": published.amazon_2018,
    "amazon-2023": published.amazon_2023,
    "goodreads": published.goodreads,
    "goodreads-csv": published.goodreads_csv,
    "book-crossing": published.book_crossing,
    "book-crossing-commas": published.book_crossing_commas,
    "recbole": published.recbole,
}


def rows_of(data):
    """The rows in words: (user, title, rating), by user and title."""
    ratings = (
        np.asarray(data.scale.decimal(data.rating)).tolist() if data.scale.kind == "rating" else data.rating.tolist()
    )
    return sorted(
        (data.users.ids[u], data.items.titles[i], r) for u, i, r in zip(data.user.tolist(), data.item.tolist(), ratings)
    )


def refusal(path, **options):
    with pytest.raises(MetarecError) as caught:
        load(DataConfig(path=str(path), **options))
    return str(caught.value)


@pytest.mark.parametrize("name", BOOKS)
def test_rows_titles_and_texts(tmp_path, name):
    data = load(DataConfig(path=str(BOOKS[name](tmp_path))))
    assert data.layout == name.split("-20")[0].removesuffix("-csv").removesuffix("-commas")
    doubled = 2 if data.layout == "book-crossing" else 1
    users = {"u1": "0", "u2": "1"} if name == "goodreads-csv" else {"u1": "u1", "u2": "u2"}
    want = [(users[u], published.ITEMS[i][0], doubled * r) for u, i, r, _ in published.ROWS]
    assert rows_of(data) == sorted(want)
    assert len(data.items) == 3  # items without an interaction are left out
    texts = dict(zip(data.items.titles, data.items.texts))
    assert texts['A "Quiet" Sea'].startswith('A "Quiet" Sea.')
    if data.layout == "book-crossing":
        assert texts["Winter, Twice"] == "Winter, Twice. Zoë A."
        assert (data.scale.low, data.scale.high, len(data.scale.levels)) == (1, 10, 10)
    else:
        assert texts["Winter, Twice"] == "Winter, Twice. Said to be short!"
        if not name.endswith("csv"):
            assert sorted({"s": 1, "ms": 1000}[data.time_unit] * t for *_, t in published.ROWS) == sorted(data.time)


def test_details_are_the_other_columns_of_words(tmp_path):
    details = load(DataConfig(path=str(published.amazon_2014(tmp_path / "a")))).items.details
    assert details["category"][0] == "Books, Novels, Gifts"
    details = load(DataConfig(path=str(published.recbole(tmp_path / "r")))).items.details
    assert details["pages"] == ("100.5",) * 3
    assert "vector" not in details


@pytest.mark.parametrize("name", ["goodreads", "goodreads-csv", "book-crossing", "book-crossing-commas"])
def test_rows_without_a_rating_are_left_out_of_ratings_and_are_clicks(tmp_path, name):
    path = str(BOOKS[name](tmp_path))
    assert any("1 of 4 rows have no rating" in note for note in load(DataConfig(path=path)).notes)
    clicks = load(DataConfig(path=path, kind="click"))
    assert clicks.rating.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("write", [published.lastfm_hetrec, published.lastfm_360k, published.lastfm_1k])
def test_plays_are_ratings_or_clicks(tmp_path, write):
    path = str(write(tmp_path))
    data = load(DataConfig(path=path))
    assert data.layout == "lastfm"
    # 360K has two rows of one artist, whose plays add up.
    quiet = 5 if write is published.lastfm_360k else 1
    assert [(title, plays) for _, title, plays in rows_of(data)] == [
        ("The Paper Garden", 5),
        ("Winter, Twice", 3),
        ('A "Quiet" Sea', quiet),
    ]
    assert load(DataConfig(path=path, kind="click")).rating.tolist() == [1, 1, 1]
    if write is published.lastfm_360k:
        assert any("1 of 5 rows name no user or no item" in note for note in data.notes)


@pytest.mark.parametrize("zipped", [False, True])
def test_mind_of_train_and_dev(tmp_path, zipped):
    import layouts

    path = published.mind(tmp_path / "mind")
    if zipped:
        path = layouts.zipped(path / "MINDsmall_train", tmp_path / "one.zip", "MINDsmall_train/")
    data = load(DataConfig(path=str(path), kind="click"))
    assert data.layout == "mind"
    garden, winter, sea = (title for title, _ in published.ITEMS.values())
    # b1 was in the history of u1, so that it is clicked, though it was not when it was shown.
    train = [("u1", garden, 1.0), ("u1", winter, 1.0), ("u2", garden, 0.0)]
    assert rows_of(data) == sorted(train if zipped else [*train, ("u2", winter, 0.0), ("u2", sea, 1.0)])
    times = {(data.users.ids[u], data.items.ids[i]): t for u, i, t in zip(data.user, data.item, data.time)}
    assert times["u1", "b2"] == np.datetime64("2019-11-11T09:05:58", "s").astype(int)
    assert times["u2", "b1"] == np.datetime64("2019-11-12T18:11:30", "s").astype(int)
    assert data.items.texts[0] == "The Paper Garden. A novel."


def test_history_of_mind_is_before_the_first_impression(tmp_path):
    path = published.mind(tmp_path)
    published.table(path / "MINDsmall_dev" / "behaviors.tsv", [(1, "u3", "11/15/2019 8:55:22 AM", "b3", "b2-0")], "\t")
    data = load(DataConfig(path=str(path), kind="click"))
    mine = data.user == data.users.ids.index("u3")
    assert [data.items.ids[i] for i in data.item[mine]] == ["b3", "b2"]
    assert np.diff(data.time[mine]).tolist() == [1]


def test_ratings_alone_of_amazon(tmp_path):
    by_user = [(u, i, float(r), t) for u, i, r, t in published.ROWS]
    want = sorted((u, i, float(r)) for u, i, r, _ in published.ROWS)
    published.table(tmp_path / "2014" / "ratings_Books.csv", by_user, ",")
    assert rows_of(load(DataConfig(path=str(tmp_path / "2014")))) == want
    published.amazon_2018(tmp_path / "2018")
    (tmp_path / "2018" / "Books_5.json.gz").unlink()
    published.table(tmp_path / "2018" / "Books.csv", [(i, u, r, t) for u, i, r, t in by_user], ",")
    assert [user for user, *_ in rows_of(load(DataConfig(path=str(tmp_path / "2018"))))] == ["u1", "u1", "u2"]
    folder = published.amazon_2023(tmp_path / "2023")
    (folder / "review_categories" / "Books.jsonl").unlink()
    header = ("user_id", "parent_asin", "rating", "timestamp")
    for part, rows in (("train", by_user[:1]), ("valid", by_user[1:2]), ("test", by_user[2:])):
        published.table(folder / "rating_only" / f"Books.{part}.csv", [header, *rows], ",")
    data = load(DataConfig(path=str(folder)))
    assert [r for *_, r in rows_of(data)] == [5, 3, 1]


def test_the_latest_review_counts_unless_another_rule_is_given(tmp_path):
    path = published.amazon_2018(tmp_path)
    again = {"overall": 2.0, "reviewerID": "u1", "asin": "b1", "unixReviewTime": 1_600_000_000}
    published.lines(path / "Gifts_5.json.gz", [again])
    for rule, rating in (("auto", 2), ("first", 5), ("mean", 3.5)):
        data = load(DataConfig(path=str(path), repeats=rule))
        assert ("u1", "The Paper Garden", rating) in rows_of(data)
    assert "already in" in refusal(path, repeats="refuse")


def test_items_that_are_not_in_the_item_file_are_read_by_their_id_with_a_remark(tmp_path):
    path = published.amazon_2018(tmp_path)
    published.lines(path / "Gifts_5.json.gz", [{"overall": 2.0, "reviewerID": "u1", "asin": "x9", "unixReviewTime": 1}])
    data = load(DataConfig(path=str(path)))
    assert data.items.texts[data.items.ids.index("x9")] == "x9"
    assert any("1 of 4 items of the interactions are not in it" in note for note in data.notes)


def test_a_later_type_of_a_field_is_read(tmp_path):
    path = published.amazon_2023(tmp_path)
    reviews = [
        {"rating": 5 if n < 1500 else 4.0, "parent_asin": f"b{n % 3 + 1}", "user_id": f"w{n}", "timestamp": n}
        for n in range(1600)
    ]
    published.lines(path / "review_categories" / "Books.jsonl", reviews)
    assert len(load(DataConfig(path=str(path)))) == 1600


@pytest.mark.parametrize("kind", ["rating", "click"])
def test_recbole_without_ratings_has_clicks(tmp_path, kind):
    header = ("user_id:token", "item_id:token", "label:float")
    published.table(tmp_path / "ads.inter", [header, ("u1", "i1", 1), ("u1", "i2", 0), ("u2", "i2", 1)], "\t")
    if kind == "rating":
        assert "say --data.kind click" in refusal(tmp_path)
    else:
        assert rows_of(load(DataConfig(path=str(tmp_path), kind=kind))) == [
            ("u1", "i1", 1.0),
            ("u1", "i2", 0.0),
            ("u2", "i2", 1.0),
        ]


def test_recbole_in_parts_and_with_other_names(tmp_path):
    header = ("user_id:token", "artist_id:token", "weight:float")
    for part, row in (("train", ("u1", "a1", 3)), ("valid", ("u1", "a2", 1)), ("test", ("u2", "a2", 9))):
        published.table(tmp_path / f"fm.{part}.inter", [header, row], "\t")
    published.table(tmp_path / "fm.item", [("artist_id:token", "name:token_seq"), ("a1", "One"), ("a2", "Two")], "\t")
    data = load(DataConfig(path=str(tmp_path), kind="click"))
    assert rows_of(data) == [("u1", "One", 1.0), ("u1", "Two", 1.0), ("u2", "Two", 1.0)]


def test_movielens_10m_has_half_stars(tmp_path):
    import layouts

    path = layouts.movielens_1m(tmp_path)
    rows = (tmp_path / "ratings.dat").read_text().replace("7::1::5::", "7::1::4.5::")
    (tmp_path / "ratings.dat").write_text(rows)
    data = load(DataConfig(path=str(path)))
    assert data.scale.low == 0.5
    assert max(r for *_, r in rows_of(data)) == 4.5


MISTAKES = {
    "mind needs clicks": (published.mind, {}, "", "", ("MIND", "--data.kind click")),
    "mind without labels": (
        published.mind,
        {"kind": "click"},
        "MINDsmall_train/behaviors.tsv",
        ("b2-1 b1-0", "b2 b1"),
        ("MINDsmall_train/behaviors.tsv, line 1", "'b2'", "-1 (clicked)", "test"),
    ),
    "mind with another time": (
        published.mind,
        {"kind": "click"},
        "MINDsmall_train/behaviors.tsv",
        ("11/12/2019 6:11:30 PM", "2019-11-12"),
        ("MINDsmall_train/behaviors.tsv, line 2", "'2019-11-12'", "%m/%d/%Y"),
    ),
    "goodreads without its map": (published.goodreads_csv, {}, "book_id_map.csv", None, ("no file book_id_map.csv",)),
    "goodreads of another map": (
        published.goodreads_csv,
        {},
        "book_id_map.csv",
        ("2,b3\n", ""),
        ("goodreads_interactions.csv, line 4", "item '2'", "book_id_map.csv"),
    ),
    "a rating beyond the scale": (
        published.book_crossing,
        {},
        "BX-Book-Ratings.csv",
        ('"u1";"b2";"6"', '"u1";"b2";"16"'),
        ("BX-Book-Ratings.csv, line 3", "16", "outside 1 to 10"),
    ),
    "a line of ratings with fewer values": (
        published.book_crossing,
        {},
        "BX-Book-Ratings.csv",
        ('"u1";"b2";"6"', '"u1";"b2"'),
        ("BX-Book-Ratings.csv, line 3", "2 values where there must be 3"),
    ),
    "columns that are not published": (
        published.book_crossing_commas,
        {},
        "Ratings.csv",
        ("Book-Rating", "stars"),
        ("no interactions", "Book-Rating", "Ratings.csv has the columns User-ID, ISBN, stars"),
    ),
    "no type in an atomic file": (
        published.recbole,
        {},
        "books.inter",
        ("rating:float", "rating"),
        ("books.inter, line 1", "rating has no type", "name:type"),
    ),
    "options of tables": (published.recbole, {"separator": "tab"}, "", "", ("leave --data.separator out",)),
    "a log without a rule": (published.lastfm_1k, {"repeats": "latest"}, "", "", ("--data.kind click", "sum")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place(tmp_path, name):
    write, options, file, change, says = MISTAKES[name]
    path = write(tmp_path)
    if change is None:
        (path / file).unlink()
    elif change:
        content = (path / file).read_text("latin-1")
        assert content.count(change[0]) == 1
        (path / file).write_text(content.replace(*change), "latin-1")
    message = refusal(path, **options)
    for part in says:
        assert part in message
    assert len(message) < 1500


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{'asin': __import__('os').getcwd()}", "no Python literal"),
        ("{'asin': 'b1', 'title': '" + "x" * (1 << 20) + "'}", "at most 1,048,576 bytes"),
        ("{'asin': " + "[" * 5000 + "]" * 5000 + "}", "no Python literal"),
        ("{'asin': " + "-" * 50_000 + "1}", "no Python literal"),
        ("['asin']", "no Python literal"),
    ],
)
def test_literals_of_amazon_2014_are_data_within_limits(tmp_path, line, says):
    path = published.amazon_2014(tmp_path)
    published.text(path / "meta_Books.json.gz", f"{{'asin': 'b1', 'title': 'x'}}\n{line}\n")
    message = refusal(path)
    assert f"{path / 'meta_Books.json.gz'}, line 2" in message
    assert says in message


def test_a_zip_reads_as_its_folder(tmp_path):
    import layouts

    path = published.amazon_2014(tmp_path / "folder")
    ours = load(DataConfig(path=str(layouts.zipped(path, tmp_path / "a.zip", "x/"))))
    theirs = load(DataConfig(path=str(path)))
    assert_equal((ours.user, ours.item, ours.rating), (theirs.user, theirs.item, theirs.rating))
    assert ours.items == theirs.items
