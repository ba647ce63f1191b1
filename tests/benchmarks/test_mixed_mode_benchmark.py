"""The benchmark of mixed mode at its smallest size: ways agree, and each is measured."""

import json

import jax
import optax
import pytest
from helpers import assert_close

from benchmarks import harness, mixed_mode


@pytest.mark.slow
def test_all_ways_give_the_same_meta_gradient():
    for name, case in mixed_mode.cases(small=True).items():
        found = {way: mixed_mode.compiled(case, 3, way)[0]() for way in mixed_mode.WAYS}
        for way in ("stored", "remat"):
            assert_close(found["mixed"], found[way])
        assert optax.tree.norm(jax.tree.leaves(found["mixed"][0])) > 1e-4, name


@pytest.mark.slow
def test_memory_and_time_are_written(tmp_path):
    written = tmp_path / "mixed.json"
    mixed_mode.main(["--smoke", "--rounds", "2", "--steps", "5", "--json", str(written)])
    rows = json.loads(written.read_text())["rows"]
    barred = {(row["contender"], row["metric"]): row["bar"] for row in rows if row["bar"]}
    assert barred == {
        ("reverse over reverse", "temporaries_mb"): 3.0,
        ("reverse over reverse, recomputed", "gradients/s"): 1.0,
    }
    assert {row["metric"] for row in rows} == {"temporaries_mb", "gradients/s"}
    assert len(rows) == 3 * 2 * 2


@pytest.mark.slow
def test_a_program_that_needs_too_much_memory_is_not_run():
    cases = dict(list(mixed_mode.cases(small=True).items())[:1])
    rows = mixed_mode.compare(cases, [2], rounds=1, most_mb=0.0)
    assert {row.metric for row in rows} == {"temporaries_mb"}
    assert all(isinstance(row, harness.Row) for row in rows)
