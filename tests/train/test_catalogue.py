"""The catalogue of a run: what was saved comes back, and files that are damaged or of different runs are refused."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from metarec_jax.config.run import preset
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.data.splits import Statistics
from metarec_jax.train import catalogue, run_folder
from metarec_jax.train.catalogue import Catalogue, Scale

ITEMS = Items(
    ids=("7", "a,b", "07"),
    titles=("Amélie's \N{SNOWMAN}", "", 'Quote "this", please\n'),
    texts=("A text.", "Another\ttext", ""),
    details={"genres": ("drama", "", "comedy|war"), "detail:year": ("1999", "2001", "")},
)


HALVES = Scale("rating", (0.5, 1.0, 5.0), 0.5, 5.0)


def a_catalogue(items=ITEMS, scale=HALVES):
    rng = np.random.default_rng(0)
    return Catalogue(
        items=items,
        statistics=Statistics(*rng.uniform(0, 9, (2, len(items))).astype(np.float32)),
        embeddings=rng.normal(size=(len(items), 5)).astype(np.float32),
        scale=scale,
    )


@pytest.fixture
def run(tmp_path):
    return run_folder.create(tmp_path / "run", preset("synthetic"))


@pytest.fixture
def saved(run):
    catalogue.save(a_catalogue(), run)
    return run


@pytest.mark.parametrize(
    "scale",
    [
        HALVES,
        Scale("rating", (), -1.0, 10.0),  # continuous
        Scale("click", (0.0, 1.0), 0.0, 1.0),
    ],
)
def test_a_catalogue_comes_back_as_it_was(run, scale):
    catalogue.save(a_catalogue(scale=scale), run)
    got, want = catalogue.load(run), a_catalogue(scale=scale)
    assert got.items == want.items
    assert got.scale == want.scale
    assert type(got.scale.levels) is tuple
    for left, right in zip((*got.statistics, got.embeddings), (*want.statistics, want.embeddings)):
        np.testing.assert_array_equal(left, right, strict=True)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "catalogue.parquet",
        "config.json",
        "tables.safetensors",
    ]


def test_a_catalogue_without_details_or_items_comes_back(run):
    for items in (Items(("1",), ("One",), ("one",)), Items((), (), ())):
        catalogue.save(a_catalogue(items), run)
        got = catalogue.load(run)
        assert got.items == items
        assert got.embeddings.shape == (len(items), 5)


def test_embeddings_are_kept_row_by_row_whatever_their_layout_in_memory(run):
    want = a_catalogue()
    columns_first = dataclasses.replace(want, embeddings=np.asfortranarray(want.embeddings, np.float64))
    catalogue.save(columns_first, run)
    np.testing.assert_array_equal(catalogue.load(run).embeddings, want.embeddings, strict=True)


DAMAGE = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its end": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("id,title\n1,One\n"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", ["catalogue.parquet", "tables.safetensors"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_named(saved, name, how):
    DAMAGE[how](saved.folder / name)
    with pytest.raises(MetarecError) as caught:
        catalogue.load(saved)
    assert str(caught.value).startswith(f"{saved.folder / name} is damaged (")
    assert str(caught.value).endswith("): restore it from a copy, or train the run again")


@pytest.mark.parametrize("name", ["catalogue.parquet", "tables.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved.folder / name).unlink()
    with pytest.raises(MetarecError) as caught:
        catalogue.load(saved)
    assert str(caught.value) == (
        f"{saved.folder / name} does not exist: restore it from a copy, or train the run again"
    )


def table_without_digest(path):
    """The table of a file as an earlier version wrote it, which no digest guards."""
    table = pq.read_table(path)
    return table.replace_schema_metadata({k: v for k, v in table.schema.metadata.items() if k != b"sha256"})


@pytest.mark.parametrize("column", ["id", "title", "text", "rating_sum", "rating_count"])
def test_a_missing_column_is_named(saved, column):
    pq.write_table(table_without_digest(saved.catalogue).drop_columns([column]), saved.catalogue)
    with pytest.raises(MetarecError, match=rf"catalogue\.parquet is damaged \('{column}'\)"):
        catalogue.load(saved)


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(None, id="missing"),
        pytest.param("no json", id="no JSON"),
        pytest.param(json.dumps([1, 2]), id="no object"),
        pytest.param(json.dumps({"kind": "rating", "low": 1, "high": 5}), id="without levels"),
        pytest.param(json.dumps({"kind": "rating", "levels": 5, "low": 1, "high": 5}), id="levels that are no list"),
    ],
)
def test_a_damaged_scale_is_refused(saved, scale):
    table = pq.read_table(saved.catalogue)
    pq.write_table(table.replace_schema_metadata({} if scale is None else {"scale": scale}), saved.catalogue)
    with pytest.raises(MetarecError, match=r"catalogue\.parquet(, scale, line 1: not valid JSON| is damaged) .*train"):
        catalogue.load(saved)


@pytest.mark.parametrize("column", ["id", "title", "rating_sum"])
def test_a_value_that_is_missing_is_refused(saved, column):
    table = table_without_digest(saved.catalogue)
    values = table.column(column).to_pylist()
    values[1] = None
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), saved.catalogue)
    with pytest.raises(MetarecError, match=rf"catalogue\.parquet is damaged .*{column}"):
        catalogue.load(saved)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"items": np.zeros((4, 5), np.float32)}, r"tables\.safetensors has 4 rows, but .*parquet has 3 items"),
        ({"users": np.zeros((3, 5), np.float32)}, r"tables\.safetensors is damaged \('items'\)"),
        ({"items": np.zeros((3, 5), np.int64)}, r"tables\.safetensors is damaged .*int64"),
        ({"items": np.zeros(3, np.float32)}, r"tables\.safetensors is damaged .*\(3,\)"),
        ({"items": np.full((3, 5), np.nan, np.float32)}, r"tables\.safetensors is damaged .*finite"),
    ],
)
def test_embeddings_of_another_run_are_refused(saved, tensors, message):
    save_file(tensors, saved.embeddings)
    with pytest.raises(MetarecError, match=message):
        catalogue.load(saved)


def test_a_catalogue_that_could_not_be_written_leaves_the_one_before(saved, monkeypatch):
    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", broken)
    other = a_catalogue(dataclasses.replace(ITEMS, titles=("x", "y", "z")))
    with pytest.raises(MetarecError, match=r"catalogue\.parquet: cannot be written: No space left on device"):
        catalogue.save(other, saved)
    assert catalogue.load(saved).items == ITEMS
