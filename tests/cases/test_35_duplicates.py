"""A log in which people rate the same thing again: refused by its line, and an option says which rating counts."""

from pathlib import Path

import pytest
from helpers import assert_says

from metarec_jax.cli import main
from metarec_jax.config.data import DataConfig
from metarec_jax.data import load

ROWS = [(u, i, (u + i) % 5 + 1, 1_400_000_000 + i) for u in range(20) for i in range(1, 13)]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = [(u, i, 6 - r, t + 10**7) for u, i, r, t in ROWS[::50]]
    lines = [",".join(map(str, row)) + "\n" for row in (*ROWS, *again)]
    Path("again.csv").write_text("user_id,item_id,rating,timestamp\n" + "".join(lines))
    return "again.csv"


def test_training_refuses_them_by_line_and_names_the_option(file, capsys):
    assert main.main(["train", "--data.path", file, "--encoder.path", "random", "--out", "r"]) == 2
    message = capsys.readouterr().err
    assert_says(message, "again.csv, line 242", "user '0' and item '1'", "line 2", "--data.repeats latest")
    assert not Path("r").exists()


@pytest.mark.parametrize(("rule", "rating"), [("latest", 4), ("first", 2), ("mean", 3), ("sum", 6)])
def test_the_option_merges_them(file, rule, rating):
    data = load(DataConfig(path=file, repeats=rule))
    assert len(data) == len(ROWS)
    assert data.scale.decimal(data.rating[(data.user == 0) & (data.item == 0)]).tolist() == [rating]
    assert_says(data.notes[0], "5 of 245 rows repeat", f"the {rule}")
