"""The benchmark of item factors, small."""

import json
import subprocess
import sys

from benchmarks.factors import made_up


def test_a_small_number_of_ratings_is_measured(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.factors",
        "--rows",
        "2000",
        "--rank",
        "4",
        "--json",
        str(tmp_path / "f"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (one,) = json.loads((tmp_path / "f").read_text())["fits"]
    assert one["rows"] == 2000
    assert one["folds"] == 5
    assert min(one["seconds"], one["gigabytes"]) > 0


def test_ratings_are_the_same_for_a_seed_and_within_the_scale():
    (one, texts), (two, _) = made_up(5000), made_up(5000)
    for name in ("user", "item", "rating"):
        assert (getattr(one, name) == getattr(two, name)).all()
    assert set(one.rating.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert len(texts) == len(one.items)
