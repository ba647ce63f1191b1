"""The benchmark of item factors, small."""

import json
import subprocess
import sys

import pytest
from helpers import assert_each_close

from benchmarks.factors import linear, made_up


@pytest.mark.slow
def test_a_small_number_of_ratings_is_measured(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.factors",
        "--rows",
        "2000",
        "4000",
        "--rank",
        "4",
        "--json",
        str(tmp_path / "f"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    document = json.loads((tmp_path / "f").read_text())
    one, two = document["fits"]
    assert (one["rows"], two["rows"]) == (2000, 4000)
    assert one["folds"] == 5
    assert min(one["seconds"], one["seconds_of_a_sweep"], one["gigabytes"]) > 0
    assert document["linear"].keys() == {"seconds", "seconds_of_a_sweep"}


def test_a_line_is_found_with_what_it_explains():
    exact = [{"rows": n * 1_000_000, "seconds": 3.0 + 2.0 * n} for n in (1, 5, 25)]
    found = linear(exact, "seconds")
    assert_each_close(list(found.values()), [3.0, 2.0, 1.0], tolerance=1e-9, because="roundings of a fit")
    bent = [{"rows": n * 1_000_000, "seconds": float(n**3)} for n in (1, 5, 25)]
    assert linear(bent, "seconds")["r2"] < 0.99


def test_ratings_are_the_same_for_a_seed_and_within_the_scale():
    (one, texts), (two, _) = made_up(5000), made_up(5000)
    for name in ("user", "item", "rating"):
        assert (getattr(one, name) == getattr(two, name)).all()
    assert set(one.rating.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert len(texts) == len(one.items)
