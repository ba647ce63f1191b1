"""The benchmarks run, refuse to time contenders that disagree, and write the one layout."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from benchmarks import harness, inner_loop
from benchmarks.cases import SMOKE, STANDARD


def test_turns_are_interleaved_and_paired():
    turns = []
    contenders = [harness.Contender(name, lambda name=name: turns.append(name)) for name in ("a", "b")]
    seconds = harness.take_turns(contenders, rounds=3, warmup=1)
    assert turns == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_of_pairs():
    # The machine slows down threefold on the way; every pair still says 2.
    seconds = {"ours": np.array([1.0, 2.0, 3.0]), "theirs": np.array([2.0, 4.0, 6.0])}
    (row,) = harness.compare("case", seconds, ours="ours", work=6, metric="users/s", bars={"theirs": 2.0})
    assert row.ratio == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert (row.ours, row.theirs) == (3.0, 1.5)
    assert row.to_json()["met"] is True


def test_the_smoke_case_runs_and_is_written(tmp_path):
    rows = inner_loop.measure([SMOKE], rounds=3)
    harness.write(rows, tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert set(document) == {"environment", "rows"}
    (row,) = document["rows"]
    assert {"case", "contender", "metric", "ours", "theirs", "ratio", "bar", "met"} <= set(row)
    assert (row["case"], row["contender"], row["met"]) == ("smoke", "dense", None)


def test_contenders_that_disagree_are_not_timed():
    _, value = inner_loop.contender(SMOKE, "factored")
    with pytest.raises(SystemExit, match="disagree"):
        inner_loop.agree(value, jax.tree.map(lambda leaf: leaf * 1.001, value))


def test_the_standard_case_is_the_one_of_the_table():
    got = (STANDARD.users, STANDARD.support, STANDARD.query, STANDARD.features, STANDARD.hidden, STANDARD.classes)
    assert (*got, STANDARD.steps) == (256, 20, 10, 768, 128, 5, 5)
