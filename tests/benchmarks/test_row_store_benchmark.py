"""The benchmark of row stores, small."""

import json
import subprocess
import sys

import numpy as np

from benchmarks.row_store import write_rows
from metarec_jax.data import load


def test_a_small_number_of_rows_is_measured(tmp_path):
    command = [sys.executable, "-m", "benchmarks.row_store", "--rows", "16000", "32000"]
    command += [
        "--train",
        "16000",
        "--sweeps",
        "1",
        "--rank",
        "2",
        "--steps",
        "1",
        "--folder",
        str(tmp_path),
        "--json",
        str(tmp_path / "f"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    document = json.loads((tmp_path / "f").read_text())
    assert [found["rows"] for found in document["stores"]] == [16000, 32000]
    assert all(9 < found["bytes_a_row"] < 12 for found in document["stores"])
    assert min(min(found["seconds"], found["milliseconds_of_a_batch"]) for found in document["stores"]) > 0
    trained, other = document["stores"]
    assert trained["steps"] == 1
    assert 0 < trained["share_blocked"] < 1
    assert "steps" not in other
    assert document["linear"].keys() >= {"seconds", "gigabytes"}
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_made_up_rows_have_160_different_items_a_user_and_mix_users(tmp_path):
    write_rows(tmp_path / "r.csv", 3200)
    data = load(tmp_path / "r.csv")
    assert np.bincount(data.user).tolist() == [160] * 20
    first = [line.split(",")[0] for line in (tmp_path / "r.csv").read_text().splitlines()[1:50]]
    assert len(set(first)) > 10
