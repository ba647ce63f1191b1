"""`metarec inspect` prints what would be read, or the message that training would end with."""

import json
from pathlib import Path

import pytest
from helpers import assert_says

pytestmark = pytest.mark.usefixtures("empty_folder")

ROWS = "a;x;4,5;2014-05-13 16:53:20.5\nb;y;1;2014-05-14\na;y;2;2014-05-15\nb;y;3;2014-05-16\n"
OPTIONS = ("--data.repeats", "latest", "--data.columns.user", "who")


@pytest.fixture
def file():
    Path("r.txt").write_text(f"who;item_id;rating;timestamp\n{ROWS}", encoding="utf-8-sig")
    Path("i.csv").write_text("item_id,title,brand\nx,A lamp,Acme\ny,,Bold\nz,A chair,Acme\n")
    return "r.txt"


def test_json_says_what_is_read_and_nothing_is_written(metarec, contents, file):
    before = contents(Path.cwd())
    status, out, _ = metarec("inspect", file, "--data.items-path", "i.csv", *OPTIONS, "--json")
    assert status == 0
    tree = json.loads(out)
    notes = " ".join(tree.pop("notes"))
    assert tree == {
        "source": "the table r.txt with the items of i.csv",
        "layout": "r.txt: values between semicolons, no quotes, a header, UTF-8; "
        "i.csv: values between commas, no quotes, a header, UTF-8",
        "rows": 3,
        "users": 2,
        "items": 3,
        "items_without_rows": 1,
        "rows_of_a_user": {"least": 1, "median": 1.5, "most": 2},
        "kind": "rating",
        "low": 2.0,
        "high": 4.5,
        "levels": [2.0, 3.0, 4.5],
        "times": {"first": "2014-05-13 16:53:20.500", "last": "2014-05-16 00:00:00", "unit": "ms"},
        "texts": {"item": "A lamp", "user": None},
        "details": ["brand"],
        "first": [
            {"user": "a", "item": "x", "title": "A lamp", "rating": 4.5, "time": "2014-05-13 16:53:20.500"},
            {"user": "a", "item": "y", "title": "Bold", "rating": 2.0, "time": "2014-05-15 00:00:00"},
            {"user": "b", "item": "y", "title": "Bold", "rating": 3.0, "time": "2014-05-16 00:00:00"},
        ],
    }
    assert_says(notes, "1 of 4 rows repeat a user and an item", "1 text is blank", "brand is read instead")
    assert contents(Path.cwd()) == before


def test_a_table_says_the_same_to_people(metarec, file):
    status, out, _ = metarec("inspect", "--data.path", file, *OPTIONS)
    assert status == 0
    assert_says(
        out, "values between semicolons", "one of 2, 3, 4.5", "unit ms", "First rows", "note: r.txt: 1 of 4 rows"
    )


def test_a_published_data_set_is_inspected_without_a_path(metarec):
    status, out, _ = metarec("inspect", "--json")
    assert status == 0
    tree = json.loads(out)
    assert (tree["rows"], tree["users"], tree["items"]) == (100_000, 943, 1682)
    assert (tree["layout"], tree["times"]["unit"], tree["notes"]) == ("movielens-100k", "s", [])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("r.txt",), ["r.txt has no column 'user_id'", "it has who, item_id", "--data.columns.user"]),
        (("r.txt", *OPTIONS[2:]), ["r.txt, line 5", "--data.repeats latest"]),
        (("r.txt", "--data.path", "r.txt"), ["FILE is r.txt", "one of the two"]),
        (("none.csv",), ["--data.path none.csv", "no such file"]),
        (("r.txt", "--data.encoding", "hex"), ["data.encoding is 'hex'"]),
    ],
)
def test_mistakes_are_those_of_training(refused, file, arguments, names):
    assert_says(refused("inspect", *arguments), *names)
