"""The benchmarks of sweeps on clicks and of half-sweeps that are compiled ahead of time, small."""

import importlib.util

import pytest
from helpers import assert_close, assert_each_close

from benchmarks import factors_aot, implicit_sweep


@pytest.mark.parametrize("peer", ["implicit", "iALS in NumPy"])
def test_a_sweep_of_ours_is_that_of_the_others(peer):
    if peer == "implicit" and importlib.util.find_spec("implicit") is None:
        pytest.skip("implicit is not installed: pip install 'metarec_jax[bench]'")
    made = implicit_sweep.problem(20_000, 8)
    one, other = (implicit_sweep.CONTENDERS[name](made)() for name in ("metarec_jax", peer))
    assert_close(one, other, tolerance=1e-4, because="float32, solved in other ways")
    losses = (implicit_sweep.loss(made, *factors) for factors in (one, other))
    assert_each_close(*losses, tolerance=1e-6, because="float32 near a minimum")


def test_half_sweeps_compile_for_several_devices_and_exchange_rows_alone():
    found = factors_aot.compile_all("here", users=40_000, items=30_000, rows=1_000_000, rank=8)
    assert [row["program"].partition(":")[0] for row in found] == ["clicks", "clicks", "ratings", "ratings"]
    for row in found:
        assert row["fits"]
        assert row["chips"] == 8
        assert row["calls"] > 0
        assert row["peak_memory"] < 30_000**2  # bytes: nothing of items x items
        if row["program"] == "clicks: a block of users":
            assert row["collectives"] == {}
        if row["program"].endswith("batch of rows"):
            assert row["collectives"].keys() <= {"all-gather", "reduce-scatter", "all-reduce"}
            assert row["collectives"]
