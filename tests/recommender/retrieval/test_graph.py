import sys

import numpy as np
import pytest
from helpers import assert_says
from made_vectors import InMemory, drawn, queries, sorted_rows

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.retrieval.build import build_index, recall
from metarec_jax.recommender.retrieval.graph import Graph

COUNT = 3000


@pytest.fixture(scope="module")
def vectors():
    return InMemory(drawn(COUNT))


@pytest.fixture(scope="module")
def graph(vectors):
    return build_index(vectors, "graph")


def test_its_recall_is_measured_and_it_proves_nothing(vectors, graph):
    found = graph.top(queries(12)[0], 20)
    assert not found.exact
    assert recall(graph, graph.scan, queries(12), 20) > 0.8
    assert recall(graph.scan, graph.scan, queries(12), 20) == 1
    np.testing.assert_array_equal(found.rows[:1], sorted_rows(vectors.rows, queries(12)[0], 1))


def test_filters_and_rows_left_out(vectors, graph):
    query = queries(12)[1]
    allowed = np.arange(COUNT) % 50 == 0
    best = sorted_rows(vectors.rows, query, 5)
    np.testing.assert_array_equal(graph.top(query, 10, allowed).rows, sorted_rows(vectors.rows, query, 10, allowed))
    assert not set(best) & set(graph.top(query, 30, without=best).rows)


def test_added_and_changed_rows_are_found(vectors):
    graph = build_index(vectors, "graph")
    query = queries(12)[2]
    best = vectors.rows.mean(axis=0) + 30 * query.astype(np.float32)
    more = InMemory(np.concatenate([vectors.rows, [best, best * 2]]))
    graph._vectors = graph.scan._vectors = more  # what a table that grows does
    graph.put(np.array([COUNT, COUNT + 1]))
    more.rows[5] = best * 3
    graph.put(np.array([5]))
    assert graph.top(query, 3).rows.tolist() == sorted_rows(more.rows, query, 3).tolist()


def test_without_the_package_the_message_names_it(vectors, graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(MetarecError) as raised:
        Graph(vectors, graph.scan)
    assert_says(str(raised.value), "usearch", "metarec_jax[ann]", '"scan"')
