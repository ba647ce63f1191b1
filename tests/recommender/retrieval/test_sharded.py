import jax
import numpy as np
import pytest
from helpers import assert_close
from made_vectors import InMemory, drawn, queries, sorted_rows

from metarec_jax.recommender.retrieval.quantised import quantise, query_of
from metarec_jax.recommender.retrieval.scan import Scan, highest_bounds
from metarec_jax.recommender.retrieval.sharded import ShardedBounds


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("count", [10, 9000])
def test_devices_together_find_what_one_does(devices, count):
    vectors = InMemory(drawn(count))
    table = quantise(vectors)
    sharded = ShardedBounds(table, count, jax.devices()[:devices])
    allowed = np.random.default_rng(0).random(count) < 0.3
    for query in queries(12, 2):
        asked = query_of(table, query)
        for wanted in (1, min(40, count)):
            for may in (None, allowed):
                rows, bounds, others = sharded(asked, wanted, may)
                _, known, limit = highest_bounds(table, count, asked, wanted, may)
                some = np.isfinite(known).sum()
                assert np.isfinite(bounds).sum() == some
                assert_close(-np.sort(-bounds)[:some], -np.sort(-known)[:some])
                assert others <= limit or others - limit <= 1e-5 * abs(limit)  # the programs may add in another order
                assert len(np.unique(rows[np.isfinite(bounds)])) == np.isfinite(bounds).sum()
        found = Scan(vectors, table, sharded).top(query, 7, allowed)
        assert found.exact
        np.testing.assert_array_equal(found.rows, sorted_rows(vectors.rows, query, 7, allowed))


def test_an_approximate_maximum_proves_nothing():
    vectors = InMemory(drawn(9000))
    table = quantise(vectors)
    sharded = ShardedBounds(table, 9000, jax.devices()[:2], approximate=True)
    query = queries(12)[0]
    found = Scan(vectors, table, sharded, proves=False).top(query, 20)
    assert not found.exact
    # On CPUs `approx_max_k` is exact, so that the rows are right; that they are is not claimed.
    np.testing.assert_array_equal(found.rows, sorted_rows(vectors.rows, query, 20))
