"""The benchmark of row stores, small."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.row_store import write_rows
from metarec_jax.data import load


def measured(folder, *options):
    """The document that the command writes; it leaves nothing else."""
    command = [sys.executable, "-m", "benchmarks.row_store", *options]
    command += ["--folder", str(folder), "--json", str(folder / "f")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert [path.name for path in folder.iterdir()] == ["f"]
    return json.loads((folder / "f").read_text())


def test_a_small_number_of_rows_is_measured(tmp_path):
    document = measured(tmp_path, "--rows", "16000", "32000", "--train", "0")
    assert [found["rows"] for found in document["stores"]] == [16000, 32000]
    assert all(9 < found["bytes_a_row"] < 12 for found in document["stores"])
    assert min(min(found["seconds"], found["milliseconds_of_a_batch"]) for found in document["stores"]) > 0
    assert document["linear"].keys() >= {"seconds", "gigabytes"}
    line = document["linear"]["seconds"]
    assert line["for_a_billion_rows"] == line["start"] + 1000 * line["for_a_million_rows"]


@pytest.mark.slow  # compiles the usual learner
def test_factors_and_an_epoch_are_measured(tmp_path):
    (found,) = measured(tmp_path, "--rows", "16000", "--rank", "2", "--steps", "1")["stores"]
    assert found["steps"] == 1
    assert 0 < found["share_blocked"] < 1
    assert min(found["gigabytes_of_factors"], found["gigabytes_of_an_epoch"]) > 0


def test_made_up_rows_have_160_different_items_a_user_and_mix_users(tmp_path):
    write_rows(tmp_path / "r.csv", 3200)
    data = load(tmp_path / "r.csv")
    assert np.bincount(data.user).tolist() == [160] * 20
    first = [line.split(",")[0] for line in (tmp_path / "r.csv").read_text().splitlines()[1:50]]
    assert len(set(first)) > 10
