"""Text tables with padded columns and single quotes, and frames of polars."""

import datetime

import numpy as np
import polars as pl
import pytest
from helpers import assert_equal

import metarec_jax
from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

PLAIN = "user_id item_id rating timestamp\nu1 i1 5 100\nu1 i2 3 200\nu22 i10 1 300\n"
PADDED = {
    "left": "user_id  item_id  rating  timestamp\nu1       i1       5       100\nu1       i2       3       200\n"
    "u22      i10      1       300\n",
    "right": " user_id item_id rating timestamp\n      u1      i1      5       100\n      u1      i2      3       200\n"
    "     u22     i10      1       300\n",
    "trailing": PLAIN.replace("\n", "   \n"),
    "carriage returns": PLAIN.replace(" ", "    ").replace("\n", "  \r\n"),
    "body alone": PLAIN.replace("u1 i1 5", "u1   i1   5"),
}


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("separator", ["", "space"])
def test_runs_of_spaces_are_one_separator(tmp_path, name, separator):
    (tmp_path / "plain.txt").write_text(PLAIN)
    (tmp_path / "padded.txt").write_bytes(PADDED[name].encode())
    want = load(DataConfig(path=str(tmp_path / "plain.txt")))
    data = load(DataConfig(path=str(tmp_path / "padded.txt"), separator=separator))
    assert (data.users, data.items) == (want.users, want.items)
    assert_equal((data.user, data.item, data.rating, data.time), (want.user, want.item, want.rating, want.time))


REFUSED = {
    "a gap in padded columns": (PADDED["left"].replace("i2 ", "   "), ("line 3", "3 values where there must be 4")),
    "all in single quotes": (
        "'user_id','item_id','rating'\n'u1','i1','5'\n'u1','i2','4'\n",
        ("line 2", "'u1'", "double"),
    ),
    "ids in single quotes": ("user_id,item_id,rating\n'u1',i1,5\n'u2',i2,4\n", ("line 2", "'u1'", "column 1")),
    "after an empty line": ("\n\nuser_id;item_id;rating\n\n'u1';i1;5\n", ("line 5", "'u1'", "double quotes")),
    "a separator in single quotes": (
        "user_id,item_id,rating,title\nu1,i1,5,Plain\nu1,i2,4,'One, two'\n",
        ("line 3", "5 values where there must be 4", "single quotes"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_with_its_line(tmp_path, name):
    content, says = REFUSED[name]
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(MetarecError) as caught:
        load(DataConfig(path=str(tmp_path / "r.csv")))
    for part in (str(tmp_path / "r.csv"), *says):
        assert part in str(caught.value)


def test_titles_with_apostrophes_are_texts(tmp_path):
    (tmp_path / "r.csv").write_text("user_id,item_id,rating\nu1,i1,5\nu1,i2,4\nu2,i1,1\n")
    (tmp_path / "i.csv").write_text("item_id,title\ni1,'Round Midnight'\ni2,'Tis Pity\n")
    data = load(DataConfig(path=str(tmp_path / "r.csv"), items_path=str(tmp_path / "i.csv")))
    assert data.items.titles == ("'Round Midnight'", "'Tis Pity")
    (tmp_path / "q.csv").write_text("user_id,item_id,rating\n'u1',i1,5\n'u2',i2,4\n")
    assert load(DataConfig(path=str(tmp_path / "q.csv"), quoting="none")).users.ids == ("'u1'", "'u2'")


def test_frames_of_polars(tmp_path):
    frame = pl.DataFrame({"who": ["u1", "u1", "u2"], "item_id": [1, 2, 10], "rating": [5, 3, 1]})
    frame = frame.with_columns(
        pl.col("who").cast(pl.Categorical),
        timestamp=pl.datetime_range(datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 3), "1d", eager=True),
    )
    items = pl.DataFrame({"item_id": [1, 2, 10], "title": ["A", "B", None], "tags": [["x", "y"], [], None]})
    data = metarec_jax.load(frame, items=items, columns={"user": "who"})
    assert data.users.ids == ("u1", "u2")
    assert data.items.ids == ("1", "2", "10")
    assert data.items.details["tags"] == ("x, y", "", "")
    assert np.diff(data.time).tolist() == [86400, 86400]
    assert "polars" in data.layout
    frame.rename({"who": "user_id"}).write_csv(tmp_path / "r.csv")
    from_file = load(DataConfig(path=str(tmp_path / "r.csv")))
    assert_equal(
        (data.user, data.item, data.rating, data.time),
        (from_file.user, from_file.item, from_file.rating, from_file.time),
    )


FRAMES = {
    "a missing id": ({"user_id": ["u1", None]}, ("row 2", "user")),
    "a missing rating": ({"rating": [5.0, None]}, ("row 2", "rating")),
    "lists as ids": ({"item_id": [["a"], ["b"]]}, ("item_id", "list")),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_mistake_in_a_frame_of_polars_is_named(name):
    change, says = FRAMES[name]
    frame = pl.DataFrame({"user_id": ["u1", "u2"], "item_id": ["a", "b"], "rating": [5, 1]} | change)
    with pytest.raises(MetarecError) as caught:
        metarec_jax.load(frame)
    for part in ("the table", *says):
        assert part in str(caught.value)
    lazy = frame.lazy()
    with pytest.raises(MetarecError, match="LazyFrame"):
        metarec_jax.load(lazy)
