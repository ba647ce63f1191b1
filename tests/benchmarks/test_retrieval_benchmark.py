import pytest
from trained import believing_run

from benchmarks import retrieval
from metarec_jax.recommender.call_shapes import Limits


@pytest.mark.slow
def test_two_stages_are_measured(tmp_path):
    limits = Limits(whole_items=500, candidates=200, device_floats=0)
    found = retrieval.measure(believing_run(), 2000, 3, 1.0, tmp_path, limits=limits, rounds=2)
    assert found["recall@10"] == 1
    assert found["lists of candidates proven exact"] == 1
    assert 0 < found["share of the network"] < 3
    assert set(found["seconds"]) == {"two stages", "scan alone", "whole model on all items"}
    assert found["peak gigabytes"] > 0
    rows = retrieval.rows_of(found)
    assert [row.metric for row in rows] == ["ms", "GB/s", "recall@10", "GB at most"]
    assert all(row.ratio["median"] > 0 for row in rows)
    assert rows[0].bar == retrieval.BARS["times faster"]
    del found["seconds"]["whole model on all items"]
    assert retrieval.rows_of(found)[0].bar is None


@pytest.mark.slow
def test_a_scaled_network_has_a_larger_share(tmp_path):
    limits = Limits(whole_items=500, candidates=200)
    shares = []
    for factor in (0.0, 1.0):
        folder = tmp_path / str(factor)
        folder.mkdir()
        found = retrieval.measure(believing_run(), 1000, 2, factor, folder, limits=limits, rounds=1)
        shares.append(found["share of the network"])
    assert shares[0] < shares[1]
