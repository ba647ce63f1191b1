"""`metarec recommend --users`, `feedback` and `serve` as commands."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from trained import trained_run

from metarec_jax.cli import main
from metarec_jax.serving.rows import Event, Shown, ShownList
from metarec_jax.serving.store import Store


@pytest.fixture(autouse=True)
def quiet_setup(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def metarec(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def test_lists_for_the_users_of_a_file(metarec, tmp_path):
    (tmp_path / "ratings.csv").write_text("who,item_id,rating\nann,7,5\nann,8,1\nbob,9,2\n")
    options = [
        "--users",
        "ratings.csv",
        "--data.columns.user",
        "who",
        "--data.columns.time",
        "",
        "--out",
        "lists.parquet",
    ]
    status, out, _ = metarec("recommend", trained_run(), *options, "-k", 3, "--json")
    said = json.loads(out)
    assert (status, said["users"], said["computed"], said["out"]) == (0, 2, 2, "lists.parquet")
    table = pq.read_table("lists.parquet").to_pydict()
    assert table["user_id"] == ["ann"] * 3 + ["bob"] * 3
    assert {"7", "8"}.isdisjoint(table["item_id"][:3])
    status, out, err = metarec("recommend", trained_run(), *options)
    assert (status, out) == (2, "")
    assert "lists.parquet is there already" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "RUN", "--users", "x.csv"], "--users FILE and --out FOLDER go together"),
        (["recommend", "RUN", "--users", "x.csv", "--out", "y.parquet", "--rate", "A=5"], "leave out --rate"),
        (["feedback", "RUN", "--store", "empty"], "nothing was served from there yet"),
        (["feedback", "RUN", "--merge"], "--merge changes what --export writes"),
        (["serve", "RUN", "--host", "0.0.0.0"], "must show a token"),
        (["serve", "RUN", "--explore", "2"], "--explore is 2; it must lie between 0 and 1"),
        (["simulate", "RUN", "--address", "ftp://x"], "is no address of a service"),
    ],
)
def test_mistakes_are_one_message(metarec, arguments, message):
    status, out, err = metarec(*[trained_run() if a == "RUN" else a for a in arguments])
    assert (status, out) == (2, "")
    assert message in err


def test_feedback_as_json_and_an_export(metarec, tmp_path):
    store = Store(tmp_path / "service")
    filters = '{"details": {}, "between": {}, "exclude": [], "exclude_seen": true}'
    places = [Shown(1, "3", "a", 4.0, 1.0, 1), Shown(2, "4", "a", 3.0, 1.0, 2)]
    store.add(
        [ShownList("L", "u", "a", "m", "single", [("1", 5.0)], filters, 10, 0.0, places)],
        [Event("u", "3", "click", 1.0, "L")],
    )
    store.close()
    options = ["--store", tmp_path / "service", "--export", "log.csv", "--json"]
    status, out, err = metarec("feedback", trained_run(), *options)
    assert status == 0
    found = json.loads(out)["arms"]["a"]
    assert (found["impressions"], found["clicks"], found["ctr"]["value"]) == (2, 1, 0.5)
    assert "1 interactions: train with --data.source table --data.path log.csv" in err
    assert (tmp_path / "log.csv").read_text().splitlines()[1].startswith('"u","1",5')
