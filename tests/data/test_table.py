"""CSV and Parquet files with columns of any name."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import CLICKS
from metarec_jax.data import load

HEADER = "user_id,item_id,rating,timestamp\n"


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def read(path, **options):
    return load(DataConfig(source=options.pop("source", "table"), path=str(path), **options))


def refusal(path, **options):
    with pytest.raises(MetarecError) as caught:
        read(path, **options)
    return str(caught.value)


def test_a_csv_with_the_usual_columns(tmp_path):
    path = write(tmp_path / "r.csv", HEADER + "b,x,4,20\na,y,1.5,10\na,x,3,5\n")
    data = read(path)
    assert data.users.ids == ("a", "b")
    assert data.users.texts is None
    assert data.items.ids == data.items.texts == data.items.titles == ("x", "y")
    np.testing.assert_array_equal(data.user, [0, 0, 1])
    np.testing.assert_array_equal(data.item, [0, 1, 0])
    np.testing.assert_array_equal(data.scale.decimal(data.rating), [3, 1.5, 4])
    np.testing.assert_array_equal(data.time, [5, 10, 20])
    assert (data.scale.levels, data.scale.low, data.scale.high) == ((1.5, 3.0, 4.0), 1.5, 4.0)
    assert data.source == f"the table {path}"
    assert data.citation == ""


def test_a_csv_path_is_a_table_whatever_the_source(tmp_path):
    path = write(tmp_path / "r.csv", HEADER + "b,x,4,20\na,y,1,10\n")
    assert len(read(path, source="movielens-100k")) == len(read(path, source="auto")) == 2


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_by_any_name_and_separator(tmp_path, separator):
    text = "who,what,stars,words,about\nu1,i1,5,A blue lamp,old\nu2,i2,2,A red lamp,young\nu1,i2,4,A red lamp,old\n"
    path = write(tmp_path / "r.csv", text.replace(",", separator))
    columns = Columns(user="who", item="what", rating="stars", time="", item_text="words", user_text="about")
    data = read(path, columns=columns)
    assert data.items.texts == data.items.titles == ("A blue lamp", "A red lamp")
    assert data.users.texts == ("old", "young")
    assert not data.time.any()


def test_an_item_file_brings_texts_titles_and_items_without_ratings(tmp_path):
    ratings = write(tmp_path / "r.csv", HEADER + "a,2,4,20\nb,2,1,10\n")
    items = write(
        tmp_path / "i.csv", 'brand,item_id,title,text\nAcme,10,Lamp,"A lamp, ""blue""\nand tall"\nAcme,2,Desk,A desk\n'
    )
    data = read(ratings, items_path=str(items))
    assert data.items.ids == ("2", "10")
    assert data.items.titles == ("Desk", "Lamp")
    assert data.items.texts == ("A desk", 'A lamp, "blue"\nand tall')
    assert data.items.details == {"brand": ("Acme", "Acme")}
    assert str(items) in data.source
    assert read(ratings, items_path=str(items), columns=Columns(item_text="brand")).items.texts == ("Acme", "Acme")


def test_the_only_other_column_of_an_item_file_is_its_text(tmp_path):
    ratings = write(tmp_path / "r.csv", HEADER + "a,x,4,20\na,y,1,10\n")
    items = write(tmp_path / "i.csv", "item_id,words\nx,A lamp\ny,A desk\n")
    assert read(ratings, items_path=str(items)).items.texts == ("A lamp", "A desk")
    write(items, "item_id,words,more\nx,A lamp,1\ny,A desk,2\n")
    assert_says(refusal(ratings, items_path=str(items)), str(items), "item_id, words, more", "--data.columns.item-text")


def test_many_distinct_ratings_are_continuous(tmp_path):
    rows = "".join(f"a,i{n},{n / 10},0\n" for n in range(20))
    path = write(tmp_path / "r.csv", HEADER + rows)
    data = read(path)
    assert len(data.scale.levels) == 20
    assert np.isin(data.rating, np.float32(data.scale.standardised().levels)).all()
    assert data.scale.levels == tuple(n / 10 for n in range(20)) == tuple(np.sort(data.scale.decimal(data.rating)))
    write(path, HEADER + rows + "a,j,7.25,0\n")
    data = read(path)
    assert (data.scale.levels, data.scale.low, data.scale.high) == ((), 0.0, 7.25)


def test_clicks_without_a_column(tmp_path):
    path = write(tmp_path / "r.csv", "user_id,item_id\na,x\na,y\n")
    data = read(path, kind="click", columns=Columns(rating="", time=""))
    np.testing.assert_array_equal(data.rating, [1, 1])
    assert data.scale == CLICKS
    assert_says(refusal(path, columns=Columns(rating="", time="")), "every row is a click", "--data.kind click")


def test_clicks_with_a_column(tmp_path):
    path = write(tmp_path / "r.csv", HEADER + "a,x,1,0\na,y,0,0\n")
    np.testing.assert_array_equal(read(path, kind="click").rating, [1, 0])
    write(path, HEADER + "a,x,1,0\na,y,3,0\n")
    assert_says(refusal(path, kind="click"), f"{path}, line 3", "is 3", "0 or 1", "--data.kind rating")


def test_clicks_may_be_truth_values(tmp_path):
    for yes, no in (("True", "False"), ("true", "false"), ("TRUE", "0")):
        path = write(tmp_path / "r.csv", f"{HEADER}a,x,{yes},0\na,y,{no},0\n")
        np.testing.assert_array_equal(read(path, kind="click").rating, [1, 0])
        assert_says(refusal(path), f"{path}, line 2", repr(yes), "not a finite number")


def test_ids_are_kept_as_they_are_written(tmp_path):
    path = write(tmp_path / "r.csv", HEADER + "007,10,1,0\n7,9,2,0\nx,9,3,0\n1e3,9,3,0\n")
    data = read(path)
    assert data.users.ids == ("007", "7", "1e3", "x")
    assert data.items.ids == ("9", "10")


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + "a,x,1,0\na,y,2,0\n").replace("\n", "\r\n").encode())
    assert read(path).users.ids == ("a",)
    path.write_bytes(path.read_bytes().replace(b"a,y,2,0", b"a,y,two,0"))
    assert_says(refusal(path), f"{path}, line 3", "'two'")


def test_times_too_far_apart_for_one_sort_key_still_sort(tmp_path):
    far = 2**62
    rows = f"b,x,1,{far}\nb,y,2,{-far}\na,y,3,0\na,x,4,0\n"
    data = read(write(tmp_path / "r.csv", HEADER + rows))
    np.testing.assert_array_equal(data.time, [0, 0, -far, far])
    np.testing.assert_array_equal(data.scale.decimal(data.rating), [4, 3, 2, 1])


# Mistakes


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("b,z,five,3", ["the rating (rating) is 'five'", "correct it"]),
        ("b,z,,3", ["the rating (rating) is empty"]),
        ("b,z,nan,3", ["'nan'", "not a finite number"]),
        ("b,z,-inf,3", ["'-inf'", "not a finite number"]),
        ("b,z,1e39,3", ["1e+39", "not a finite number"]),
        ("b,z,4,later", ["the time (timestamp) is 'later'", "--data.columns.time ''"]),
        ("b,z,4,", ["the time (timestamp) is empty"]),
        ("a,x,4,3", ["user 'a' and item 'x'", "already in line 2"]),
        (",z,4,3", ["the user (user_id) is empty"]),
        ("b,,4,3", ["the item (item_id) is empty"]),
        ("b,z,4", ["3 values where there must be 4", "','"]),
        ("b,z,4,3,9", ["5 values where there must be 4"]),
        ('b,"z,4,3', ["a double quote opens", "not closed at the end of the file", "--data.quoting none"]),
    ],
)
def test_a_broken_row_is_named(tmp_path, row, says):
    path = write(tmp_path / "r.csv", f"{HEADER}a,x,1,0\na,y,2,0\n{row}\nc,x,2,0\n")
    assert_says(refusal(path), f"{path}, line 4", *says)


def test_whole_numbers_may_be_written_as_decimals_or_with_space(tmp_path):
    path = write(tmp_path / "r.csv", HEADER + "a,x,1.0,881250949.0\na,y, +2 ,5\n")
    data = read(path)
    np.testing.assert_array_equal(data.time, [5, 881250949])
    np.testing.assert_array_equal(data.scale.decimal(data.rating), [2, 1])


def test_a_line_number_counts_the_lines_inside_quotes(tmp_path):
    text = 'user_id,item_id,rating,timestamp,words\na,x,1,0,"two\nlines"\n\na,y,bad,0,one\n'
    path = write(tmp_path / "r.csv", text)
    assert_says(refusal(path, columns=Columns(item_text="words")), f"{path}, line 5:", "'bad'")


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("user", "userid", ["no column 'userid'", "it has user_id, item_id, rating", "--data.columns.user user_id"]),
        ("item", "Item_ID", ["no column 'Item_ID'", "--data.columns.item item_id"]),
        ("rating", "stars", ["no column 'stars'", "--data.columns.rating NAME", "--data.kind click"]),
        ("time", "zzz", ["no column 'zzz'", "--data.columns.time NAME", "'' where there is none"]),
        ("item_text", "words", ["no column 'words'", "--data.columns.item-text NAME"]),
        ("user", "", ["--data.columns.user is empty"]),
        ("item", "", ["--data.columns.item is empty"]),
    ],
)
def test_a_missing_column_is_named_with_its_option(tmp_path, field, given, says):
    path = write(tmp_path / "r.csv", HEADER + "a,x,1,0\na,y,2,0\n")
    assert_says(refusal(path, columns=Columns(**{field: given})), *says)


@pytest.mark.parametrize(
    ("content", "place", "says"),
    [
        (b"", " is empty", []),
        (HEADER.encode(), " holds no interaction", []),
        (b"user_id,item_id,rating,rating,timestamp\na,x,1,2,0\n", ", line 1", ["'rating'", "rename"]),
        (f"{HEADER}a,x,1,0\na,\xe9,2,0\n".encode("latin-1"), ", line 3", ["0xe9", "save the file as UTF-8"]),
        (f"{HEADER}a,x,1,0\n".encode("utf-16-le"), ", line 1", ["NUL", "--data.encoding utf-16-le"]),
        (f"{HEADER}a,x,1,0\na,y,1,0\n".encode(), "", ["every rating (rating) is 1", "--data.kind click"]),
    ],
    ids=["no byte", "no row", "two columns of one name", "Latin-1", "UTF-16 without a mark", "one rating"],
)
def test_a_file_that_is_no_table_of_ratings(tmp_path, content, place, says):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    assert_says(refusal(path), f"{path}{place}", *says)


@pytest.mark.parametrize(
    ("content", "place", "says"),
    [
        ("item_id,text\nx,A lamp\n", "r.csv, line 3", ["item 'y' is not in", "i.csv"]),
        ("item_id,text\nx,A lamp\ny,B\nx,C\n", "i.csv, line 4", ["item 'x' is already in line 2"]),
        ("id,text\nx,A lamp\n", "i.csv", ["no column 'item_id'", "it has id, text", "rename"]),
    ],
    ids=["an item is missing", "an item is there twice", "a column is missing"],
)
def test_mistakes_of_an_item_file(tmp_path, content, place, says):
    ratings = write(tmp_path / "r.csv", HEADER + "a,x,4,20\na,y,1,10\n")
    items = write(tmp_path / "i.csv", content)
    assert_says(refusal(ratings, items_path=str(items)), str(tmp_path / place), *says)


def test_files_that_do_not_exist(tmp_path):
    ratings = write(tmp_path / "r.csv", HEADER + "a,x,4,20\na,y,1,10\n")
    assert_says(refusal(ratings, items_path=str(tmp_path / "no.csv")), "--data.items-path", "no such file")
    assert_says(refusal(tmp_path / "no.csv"), "--data.path", "no such file")


@pytest.mark.parametrize(
    ("rows", "line", "says"),
    [
        ("a,x,1,0,lamp,old\nb,y,2,0,desk,old\nb,x,2,0,Lamp,old\n", 4, ["'Lamp'", "'lamp' in line 2", "item 'x'"]),
        ("a,x,1,0,lamp,old\nb,y,2,0,desk,old\nb,x,2,0,lamp,new\n", 4, ["'new'", "'old' in line 3", "user 'b'"]),
    ],
    ids=["an item's", "a user's"],
)
def test_one_id_with_two_texts(tmp_path, rows, line, says):
    path = write(tmp_path / "r.csv", f"user_id,item_id,rating,timestamp,words,about\n{rows}")
    message = refusal(path, columns=Columns(item_text="words", user_text="about"))
    assert_says(message, f"{path}, line {line}", *says)


# Parquet


def parquet(path, **columns):
    pa.parquet.write_table(pa.table(columns), path)
    return path


def test_parquet_equals_csv(tmp_path):
    text = write(tmp_path / "r.csv", HEADER + "3,12,4,20\n1,7,1.5,10\n1,12,3,5\n")
    binary = parquet(
        tmp_path / "r.parquet", user_id=[3, 1, 1], item_id=["12", "7", "12"], rating=[4, 1.5, 3], timestamp=[20, 10, 5]
    )
    ours, theirs = read(binary), read(text)
    assert (ours.users, ours.items, ours.scale.levels) == (theirs.users, theirs.items, theirs.scale.levels)
    for name in ("user", "item", "rating", "time"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype


def test_parquet_of_other_types(tmp_path):
    moment = datetime.datetime(2001, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    path = parquet(
        tmp_path / "r.parquet",
        user_id=pa.array([1.0, 2.0]),
        item_id=pa.array(["x", "y"]).dictionary_encode(),
        rating=pa.array([True, False]),
        timestamp=pa.array([moment, moment], pa.timestamp("us", "UTC")),
    )
    data = read(path, kind="click")
    assert data.users.ids == ("1", "2")
    assert data.items.ids == ("x", "y")
    np.testing.assert_array_equal(data.rating, [1, 0])
    np.testing.assert_array_equal(data.time, [int(moment.timestamp())] * 2)


@pytest.mark.parametrize("ids", [[30, 2, 30], [-5, 2, -5], [2**40, 2, 2**40]], ids=["small", "negative", "large"])
def test_integer_ids_of_any_size(tmp_path, ids):
    path = parquet(tmp_path / "r.parquet", user_id=ids, item_id=[1, 1, 2], rating=[1, 2, 3], timestamp=[0, 0, 0])
    data = read(path)
    assert data.users.ids == ("2", str(ids[0]))
    np.testing.assert_array_equal(data.scale.decimal(data.rating), [2, 1, 3])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rating": [1.0, None]}, ["row 2", "the rating"]),
        ({"rating": [1.0, float("inf")]}, ["row 2", "'inf'"]),
        ({"rating": ["1", "two"]}, ["row 2", "'two'"]),
        ({"rating": [[1], [2]]}, ["'rating' holds list", "not numbers"]),
        ({"timestamp": [1, None]}, ["row 2", "the time"]),
        ({"timestamp": [1.0, float("nan")]}, ["row 2", "'nan'"]),
        ({"timestamp": pa.array([1, None], pa.timestamp("us"))}, ["row 2", "the time", "empty"]),
        ({"timestamp": pa.array([1, 2], pa.time64("us"))}, ["'timestamp' holds time64[us]", "--data.columns.time"]),
        ({"user_id": ["a", None]}, ["row 2", "the user", "empty"]),
        ({"user_id": [[1], [2]]}, ["'user_id' holds list"]),
        ({"user_id": ["a", "a"], "item_id": ["x", "x"]}, ["row 2", "already in row 1"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_broken_row_of_parquet_is_named(tmp_path, changes, says):
    good = {"user_id": ["a", "b"], "item_id": ["x", "y"], "rating": [1.0, 2.0], "timestamp": [1, 2]}
    path = parquet(tmp_path / "r.parquet", **(good | changes))
    assert_says(refusal(path), str(path), *says)


def test_parquet_that_is_none(tmp_path):
    path = write(tmp_path / "r.parquet", HEADER + "a,x,1,0\n")
    assert_says(refusal(path), str(path), "not a Parquet file")
    whole = parquet(tmp_path / "w.parquet", user_id=["a"], item_id=["x"], rating=[1.0], timestamp=[1])
    path.write_bytes(whole.read_bytes()[:-20])
    assert_says(refusal(path), str(path), "not a Parquet file")
    parquet(path, user_id=["a"])
    assert_says(refusal(path), "no column 'item_id'", "--data.columns.item")


def test_an_item_file_in_parquet(tmp_path):
    ratings = write(tmp_path / "r.csv", HEADER + "a,1,4,20\na,2,1,10\n")
    items = parquet(tmp_path / "i.parquet", item_id=[2, 1], text=["A desk", "A lamp"], price=[3, None])
    data = read(ratings, items_path=str(items))
    assert data.items.texts == ("A lamp", "A desk")
    assert data.items.details == {"price": ("", "3")}


RATED = HEADER + "b,x,4,20\na,y,1,10\na,x,3,5\na,z,2,6\n"
NAMED = "item_id,title\nz,Zebra\nx,Xylophone\ny,Yak\n"


def with_items(tmp_path, **options):
    ratings, items = write(tmp_path / "r.csv", RATED), write(tmp_path / "i.csv", NAMED)
    return read(ratings, items_path=str(items), **options)


def test_vectors_in_a_file_are_in_the_order_of_the_item_file(tmp_path):
    np.save(tmp_path / "v.npy", np.array([[3.0, 4], [np.nan, np.nan], [1, 2]]))
    data = with_items(tmp_path, vectors=str(tmp_path / "v.npy"))
    assert data.items.ids == ("x", "y", "z")
    np.testing.assert_array_equal(data.items.vectors, np.float32([[np.nan, np.nan], [1, 2], [3, 4]]))
    assert "item_vector" not in data.items.details


def test_vectors_in_a_column_of_a_parquet_file(tmp_path):
    ratings = write(tmp_path / "r.csv", RATED)
    names, lists = ["z", "x", "y"], [[3.0, 4.0], None, [1.0, 2.0]]
    pa.parquet.write_table(pa.table({"item_id": names, "title": names, "look": lists}), tmp_path / "i.parquet")
    columns = Columns(item_vector="look")
    data = read(ratings, items_path=str(tmp_path / "i.parquet"), columns=columns)
    np.testing.assert_array_equal(data.items.vectors, np.float32([[np.nan, np.nan], [1, 2], [3, 4]]))
    assert "look" not in data.items.details


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3)), ["shape (2, 3)", "there are 3 items"]),
        (np.zeros((3, 0)), ["shape (3, 0)"]),
        (np.zeros(3), ["float64 of shape (3,)", "[items, width]"]),
        (np.array([["a"], ["b"], ["c"]]), ["<U1 of shape (3, 1)"]),
        (np.zeros((3, 1), complex), ["complex"]),
        (np.array([[1.0, 2], [3, np.inf], [5, 6]]), ["row 2", "inf"]),
        (np.array([[1.0, 2], [3, 4], [5, np.nan]]), ["row 3", "nan"]),
    ],
)
def test_a_file_of_vectors_that_cannot_be_right(tmp_path, array, said):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(MetarecError) as caught:
        with_items(tmp_path, vectors=str(tmp_path / "v.npy"))
    assert_says(str(caught.value), "--data.vectors", *said)


def test_a_pickle_is_no_file_of_vectors(tmp_path):
    np.save(tmp_path / "v.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(MetarecError, match=r"not a \.npy file of numbers"):
        with_items(tmp_path, vectors=str(tmp_path / "v.npy"))
    with pytest.raises(MetarecError, match="there is no such file"):
        with_items(tmp_path, vectors=str(tmp_path / "w.npy"))


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ([[1.0, 2.0], [3.0], [4.0, 5.0]], ["row 2", "1 numbers, but others have 2"]),
        ([["a"], ["b"], ["c"]], ["'look'", "not of numbers"]),
        ([None, None, pa.scalar([], pa.list_(pa.float64()))], ["no vector at all"]),
        ([[1.0, 2.0], [None, 3.0], None], ["row 2", "nan"]),
        ([1.0, 2.0, 3.0], ["'look'", "no lists"]),
    ],
)
def test_a_column_of_vectors_that_cannot_be_right(tmp_path, lists, said):
    ratings, names = write(tmp_path / "r.csv", RATED), ["z", "x", "y"]
    kind = pa.list_(pa.float64()) if lists[0] is None else None
    table = pa.table({"item_id": names, "title": names, "look": pa.array(lists, kind)})
    pa.parquet.write_table(table, tmp_path / "i.parquet")
    message = refusal(ratings, items_path=str(tmp_path / "i.parquet"), columns=Columns(item_vector="look"))
    assert_says(message, "i.parquet", *said)


def test_vectors_need_an_item_file_and_one_source(tmp_path):
    path = write(tmp_path / "r.csv", RATED)
    assert_says(refusal(path, columns=Columns(item_vector="look")), "--data.items-path")
    with pytest.raises(MetarecError, match="vectors come from one of the two"):
        DataConfig(vectors="v.npy", columns=Columns(item_vector="look"))
