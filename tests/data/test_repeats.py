"""Several rows of one user and item: refused for ratings, unless it is said which counts; normal for clicks."""

import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

ROWS = ["a,x,1,30", "b,x,5,5", "a,x,4,10", "a,y,2,1", "a,x,2,20", "b,y,3,6", "b,y,4,6"]


def read(tmp_path, rows=ROWS, header="user_id,item_id,rating,timestamp", **options):
    path = tmp_path / "r.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return load(DataConfig(path=str(path), **options))


def rows_of(data):
    return {
        (data.users.ids[u] + data.items.ids[i]): (float(r), int(t))
        for u, i, r, t in zip(data.user, data.item, data.scale.decimal(data.rating), data.time)
    }


@pytest.mark.parametrize("rule", ["auto", "refuse"])
def test_repeated_ratings_are_refused_with_the_option(tmp_path, rule):
    with pytest.raises(MetarecError) as caught:
        read(tmp_path, repeats=rule)
    assert_says(str(caught.value), "r.csv, line 4", "user 'a' and item 'x'", "line 2", "keep one of the two")
    assert ("--data.repeats latest" in str(caught.value)) == (rule == "auto")


@pytest.mark.parametrize(
    ("rule", "ax", "by"),
    [
        ("latest", (1, 30), (4, 6)),
        ("first", (4, 10), (3, 6)),
        ("mean", (7 / 3, 30), (3.5, 6)),
        ("sum", (7, 30), (7, 6)),
    ],
)
def test_repeated_ratings_are_merged(tmp_path, rule, ax, by):
    data = read(tmp_path, repeats=rule)
    wanted = {"ax": (round(ax[0], 6), ax[1]), "by": by, "ay": (2.0, 1), "bx": (5.0, 5)}
    assert rows_of(data) == wanted
    assert [round(level, 6) for level in data.scale.levels] == sorted({rating for rating, _ in wanted.values()})
    assert_says(" ".join(data.notes), "r.csv: 3 of 7 rows repeat a user and an item", "counts")


def test_without_times_the_order_of_the_file_counts(tmp_path):
    rows = [row.rsplit(",", 1)[0] for row in ROWS]
    header = "user_id,item_id,rating"
    assert rows_of(read(tmp_path, rows, header, repeats="latest"))["ax"] == (2, 0)
    assert rows_of(read(tmp_path, rows, header, repeats="first"))["ax"] == (1, 0)


def test_repeated_clicks_are_one_click_with_a_remark(tmp_path):
    rows = ["a,x,0,30", "a,x,1,10", "a,y,0,1", "a,y,0,2", "b,x,1,3"]
    data = read(tmp_path, rows, kind="click")
    assert rows_of(data) == {"ax": (1, 30), "ay": (0, 2), "bx": (1, 3)}
    assert_says(" ".join(data.notes), "2 of 5 rows", "one click")
    with pytest.raises(MetarecError, match="line 3"):
        read(tmp_path, rows, kind="click", repeats="refuse")
    data = read(tmp_path, ["a,x,1", "a,x,2", "a,y,3"], "user_id,item_id,timestamp", kind="click")
    assert rows_of(data) == {"ax": (1, 2), "ay": (1, 3)}


def test_clicks_in_words_may_repeat(tmp_path):
    data = read(tmp_path, ["a,x,True,1", "a,x,False,3", "b,x,False,2", "b,x,false,1", "b,y,1,4"], kind="click")
    assert rows_of(data) == {"ax": (1, 3), "bx": (0, 2), "by": (1, 4)}


def test_plays_are_counted(tmp_path):
    rows, header = ["a,x,1", "a,x,2", "a,y,3", "a,x,9"], "user_id,item_id,timestamp"
    for columns in (Columns(), Columns(rating="")):
        data = read(tmp_path, rows, header, repeats="sum", columns=columns)
        assert rows_of(data) == {"ax": (3, 9), "ay": (1, 3)}
    with pytest.raises(MetarecError, match=r"--data\.repeats sum counts"):
        read(tmp_path, rows, header, columns=Columns(rating=""))


def test_a_mistake_among_repeats_is_still_named(tmp_path):
    with pytest.raises(MetarecError, match=r"r\.csv, line 4: the rating .* 'bad'"):
        read(tmp_path, ["a,x,1,1", "a,x,2,2", "a,x,bad,3"], repeats="mean")
    with pytest.raises(MetarecError, match=r"r\.csv, line 5: the rating .* 'bad'"):
        read(tmp_path, ["a,x,1,1", "a,x,2,2", "b,x,1,3", "b,y,bad,4"], repeats="latest")
    with pytest.raises(MetarecError, match=r"r\.csv, line 3: the click .* is 2"):
        read(tmp_path, ["a,x,1,1", "a,x,2,2"], kind="click")


def test_texts_of_merged_rows_are_read(tmp_path):
    rows, header = ["a,x,1,A lamp", "a,x,2,A lamp", "b,y,3,A desk"], "user_id,item_id,rating,words"
    data = read(tmp_path, rows, header, repeats="mean", columns=Columns(item_text="words"))
    assert data.items.texts == ("A lamp", "A desk")
    assert data.scale.decimal(data.rating).tolist() == [1.5, 3.0]


def test_repeats_in_a_typed_table_of_floats_are_merged():
    """Columns of floats are read without a copy, and cannot be written to."""
    table = {"user_id": ["u1", "u1", "u2"], "item_id": ["i1", "i1", "i2"], "rating": [1.0, 0.0, 1.0]}
    assert load(table, kind="click").rating.tolist() == [1, 1]
    data = load(table | {"rating": [1.0, 4.0, 5.0]}, repeats="mean")
    assert data.scale.decimal(data.rating).tolist() == [2.5, 5]
