import jax
import numpy as np
import pytest
from helpers import assert_each_close
from hypothesis import given, settings
from hypothesis import strategies as st
from made_vectors import InMemory, drawn, queries, sorted_rows

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.retrieval.build import build_index
from metarec_jax.recommender.retrieval.quantised import CPU_TILE, quantise, query_of, upper_bounds
from metarec_jax.recommender.retrieval.scan import highest


def scan_of(vectors):
    return build_index(InMemory(vectors))


@pytest.mark.parametrize("count", [1, 7, CPU_TILE, CPU_TILE + 1, 5000])
def test_the_highest_products_are_found_and_proven(count):
    vectors = drawn(count)
    index = scan_of(vectors)
    for query in queries(vectors.shape[1]):
        for wanted in (1, 10, 300):
            found = index.top(query, wanted)
            assert found.exact
            np.testing.assert_array_equal(found.rows, sorted_rows(vectors, query, wanted))
            assert_each_close(
                found.scores,
                vectors[found.rows].astype(np.float64) @ query,
                floor=1e-10,
                because="sums in float64 of numbers of the size of 100",
            )


def test_few_rows_are_read_once_the_table_is_built():
    vectors = InMemory(drawn(20_000, width=24))
    index = build_index(vectors)
    vectors.read = 0
    assert index.top(queries(24)[0], 100).exact
    assert vectors.read < 2000


@pytest.mark.parametrize("spread", [0.0, 1e-30, 1e-7, 1e18])
def test_equal_or_tiny_or_large_vectors_fall_back_to_float32(spread):
    """Rounding then decides nothing: as many products are computed as the proof needs, in the end all of them."""
    vectors = drawn(3000, spread=spread)
    for query in queries(12, 2):
        found = scan_of(vectors).top(query, 20)
        assert found.exact
        np.testing.assert_array_equal(found.rows, sorted_rows(vectors, query, 20))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]), st.sampled_from([0.5, 3.0]))
def test_no_product_exceeds_its_bound(width, seed, size, tail):
    rng = np.random.default_rng(seed)
    vectors = (np.sign(rng.normal(size=(50, width))) * rng.gamma(1 / tail, size=(50, width)) ** tail * size).astype(
        np.float32
    )
    table = quantise(InMemory(vectors))
    query = rng.normal(size=width) ** 3
    asked = query_of(table, query)
    bounds = np.asarray(jax.jit(upper_bounds)(table.values, table.scale, asked.weights, asked.slack)).reshape(-1)[:50]
    products = vectors.astype(np.float64) @ query
    assert (products - asked.offset <= bounds + 1e-12 * np.abs(vectors).max() * np.abs(query).sum()).all()


def test_filters_and_rows_left_out():
    vectors = drawn(4000)
    index = scan_of(vectors)
    query = queries(12)[0]
    order = sorted_rows(vectors, query, 4000)
    for share in (0.5, 0.01, 0.0):
        allowed = np.random.default_rng(2).random(4000) < share
        found = index.top(query, 50, allowed, order[:30])
        np.testing.assert_array_equal(found.rows, sorted_rows(vectors, query, 50, allowed, order[:30]))
        assert found.exact


def test_added_and_changed_rows_are_found_without_building_again():
    vectors = InMemory(drawn(3000))
    index = build_index(vectors)
    query = queries(12)[0]
    best = drawn(1)[0] + 100 * query.astype(np.float32)
    vectors.rows = np.concatenate([vectors.rows, best[None], drawn(5, seed=9)])
    index.put(np.arange(3000, 3006))
    vectors.rows[[3002, 17]] = best + query.astype(np.float32), best
    index.put(np.array([3002, 17]))
    found = index.top(query, 10, without=[3000])
    np.testing.assert_array_equal(found.rows, sorted_rows(vectors.rows, query, 10, without=[3000]))
    assert found.rows[:2].tolist() == [3002, 17]
    none_of_them = np.ones(3006, bool)
    none_of_them[[3000, 3002, 17]] = False
    found = index.top(query, 10, none_of_them)
    np.testing.assert_array_equal(found.rows, sorted_rows(vectors.rows, query, 10, none_of_them))


def test_rows_and_queries_that_are_not_finite_are_refused():
    vectors = drawn(40)
    index = scan_of(vectors)
    with pytest.raises(MetarecError, match=r"updater\.rate"):
        index.top(np.full(12, np.nan), 3)
    vectors[31, 2] = np.inf
    with pytest.raises(MetarecError, match=r"row 31 .* restore the run"):
        scan_of(vectors)


@pytest.mark.parametrize("number", [1, 5, 999, 1000, 2000])
def test_highest_numbers(number):
    values = np.random.default_rng(0).integers(0, 50, 1000).astype(np.float32)  # many are equal
    rows, others = highest(values, number)
    assert len(np.unique(rows)) == len(rows) == min(number, 1000)
    left = np.delete(values, rows)
    assert left.max(initial=-np.inf) <= others
    assert values[rows].min() >= others
