"""`metarec data build`, and commands that read the store that it writes."""

from pathlib import Path

import pytest
from helpers import assert_says

pytestmark = pytest.mark.usefixtures("empty_folder")

OPTIONS = ("--data.columns.user", "who", "--data.repeats", "latest")


def write(users=40, items=25):
    rows = [
        f"u{u},i{i},{1 + (u * 3 + i * 5) % 5},{1000 + (u * 7 + i * 11) % 90}"
        for u in range(users)
        for i in range(items)
    ]
    Path("r.csv").write_text("\n".join(["who,item_id,rating,timestamp", *rows]) + "\n")


def test_a_store_is_built_and_read_by_its_path(metarec, printed_json):
    write()
    status, out, _ = metarec("data", "build", "r.csv", "stores/r", *OPTIONS)
    assert status == 0
    assert_says(out, "1,000 rows of 40 users and 25 items are in stores/r", "metarec train --data.path stores/r")
    stored, memory = printed_json("inspect", "stores/r"), printed_json("inspect", "r.csv", *OPTIONS)
    assert stored == memory
    assert printed_json("data", "build", "r.csv", "again", *OPTIONS) == {
        "store": "again", "rows": 1000, "users": 40, "items": 25
    }  # fmt: skip


def test_training_from_a_store_is_training_from_memory(metarec):
    write()
    assert metarec("data", "build", "r.csv", "store", *OPTIONS)[0] == 0
    small = ("--preset", "synthetic", "--data.source", "auto", "--train.epochs", 1, "--train.users-per-step", 40)
    small += ("--episodes.buckets", 16, "--learner.hidden", 8, "--updater.steps", 1, "--updater.order", "first")
    for name, options in (("memory", ("r.csv", *OPTIONS)), ("stored", ("store",))):
        status, _, err = metarec("train", *small, "--data.path", *options, "--out", name)
        assert status == 0, err
    assert Path("memory/parameters.safetensors").read_bytes() == Path("stored/parameters.safetensors").read_bytes()
    assert metarec("train", "--resume", "stored")[0] == 0


MISTAKES = {
    "no action": ((), ("metarec data build SOURCE OUT",)),
    "another action": (("bild", "r.csv", "o"), ("'bild'", "metarec data build SOURCE OUT")),
    "no file": (("build", "s.csv", "o"), ("s.csv: there is no such file",)),
    "a column that is not there": (
        ("build", "r.csv", "o"),
        ("r.csv has no column 'user_id'", "--data.columns.user NAME"),
    ),
    "an existing folder": (("build", "r.csv", "full", *OPTIONS), ("full exists already: name another folder",)),
    "two sources": (("build", "r.csv", "o", "--data.path", "r.csv"), ("SOURCE is r.csv and --data.path r.csv",)),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(refused, case):
    arguments, says = MISTAKES[case]
    write()
    Path("full").mkdir()
    Path("full/file").write_text("")
    assert_says(refused("data", *arguments), *says)


def test_options_of_tables_and_ratings_of_clicks_are_refused_of_a_store(metarec, refused):
    write()
    assert metarec("data", "build", "r.csv", "store", *OPTIONS, "--data.liked", "4", "--data.kind", "click")[0] == 0
    assert_says(refused("inspect", "store", "--data.separator", ";"), "row-store", "leave --data.separator out")
    Path("c.csv").write_text("user_id,item_id\na,x\nb,y\n")
    assert metarec("data", "build", "c.csv", "clicks", "--data.kind", "click")[0] == 0
    assert_says(refused("inspect", "clicks"), "clicks holds clicks: say --data.kind click")
