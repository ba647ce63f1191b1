import numpy as np
import pytest
from helpers import assert_says
from made_vectors import InMemory, drawn, queries

from metarec_jax.core.checked_files import read_arrays, write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.retrieval import index_file
from metarec_jax.recommender.retrieval.build import build_index

VECTORS = InMemory(drawn(1500))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "index.safetensors"
    index_file.save(build_index(VECTORS), path, "this run")
    return path


def test_a_saved_index_answers_as_before(path):
    query = queries(12)[0]
    found, again = build_index(VECTORS).top(query, 30), index_file.load(VECTORS, path, "this run").top(query, 30)
    np.testing.assert_array_equal(found.rows, again.rows)
    np.testing.assert_array_equal(found.scores, again.scores)


def test_a_saved_graph_answers_as_before(tmp_path):
    graph = build_index(VECTORS, "graph")
    index_file.save(graph, tmp_path / "index", "this run")
    query = queries(12)[0]
    again = index_file.load(VECTORS, tmp_path / "index", "this run")
    np.testing.assert_array_equal(graph.top(query, 10).rows, again.top(query, 10).rows)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def of_other_items(path):
    arrays, texts = read_arrays(path)
    write_arrays(path, arrays | {"values": arrays["values"][:1]}, texts)


def without_scale(path):
    arrays, texts = read_arrays(path)
    del arrays["scale"]
    write_arrays(path, arrays, texts)


def of_another_kind(path):
    arrays, texts = read_arrays(path)
    write_arrays(path, arrays, texts | {"kind": "tree"})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip, "damaged"),
        (cut, "damaged"),
        (of_other_items, "int8 of shape"),
        (without_scale, "scale"),
        (of_another_kind, "tree"),
        (lambda path: path.unlink(), "does not exist"),
    ],
)
def test_a_damaged_index_is_refused(path, damage, named):
    damage(path)
    with pytest.raises(MetarecError) as raised:
        index_file.load(VECTORS, path, "this run")
    assert_says(str(raised.value), str(path), named, "delete it, and save the index of this run again")


def test_the_index_of_another_run_is_refused(path):
    with pytest.raises(MetarecError) as raised:
        index_file.load(VECTORS, path, "another run")
    assert_says(str(raised.value), str(path), "another run", "save the index")


def test_there_is_no_other_kind():
    with pytest.raises(MetarecError, match="'tree'; it must be one of 'scan'"):
        build_index(VECTORS, "tree")
