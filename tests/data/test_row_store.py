"""A data set from a row store is that from memory bit by bit, whatever it was read from."""

import bz2
import codecs
import dataclasses
import gzip
import hashlib
import json
import mmap
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import assert_equal

from metarec_jax.config.data import Columns, DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import SPLITS
from metarec_jax.core.progress import Quiet
from metarec_jax.core.row_ranges import Ranges, holds
from metarec_jax.core.stored_columns import OwnerColumn, StoredColumn
from metarec_jax.core.stored_strings import StoredStrings
from metarec_jax.data import load
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.fingerprint import fingerprint, fingerprint_with_texts, input_digests
from metarec_jax.data.histories import histories
from metarec_jax.data.protocols import divide
from metarec_jax.data.sources import clicks_of
from metarec_jax.data.sources.folder import read_table_file
from metarec_jax.data.sources.row_store import build_store
from metarec_jax.data.splits import counts_of, item_statistics, row_statistics
from metarec_jax.data.tasks import TaskSource

USERS, ITEMS = 90, 70
EPISODES = EpisodeConfig(min_ratings=5, max_ratings=40, query=3, buckets=(6, 20), validation=0.2, test=0.2)


def rows(seed=0, half=True):
    """Columns of made-up ratings, in random order, with some times equal."""
    rng = np.random.default_rng(seed)
    pair = rng.permutation(USERS * ITEMS)[: USERS * 15]
    return {
        "user_id": (pair // ITEMS).tolist(),
        "item_id": [f"i{n}" for n in pair % ITEMS],
        "rating": (rng.integers(1, 11, len(pair)) / 2 if half else rng.integers(0, 2, len(pair))).tolist(),
        "timestamp": (1_000_000_000 + rng.integers(0, 400, len(pair))).tolist(),
    }


def write_csv(path, columns, separator=","):
    lines = [separator.join(columns)] + [separator.join(map(str, row)) for row in zip(*columns.values())]
    Path(path).write_text("\n".join(lines) + "\n")
    return str(path)


def write_items(path):
    lines = [f"i{n},Film {n},{1980 + n % 20},{'drama' if n % 2 else 'comedy'}" for n in range(ITEMS + 3)]
    Path(path).write_text("\n".join(["item_id,title,year,genre", *lines]) + "\n")
    return str(path)


def assert_same(stored, memory):
    for name in ("user", "item", "rating", "time"):
        assert_equal(np.asarray(getattr(stored, name)), getattr(memory, name))
    for field in dataclasses.fields(memory):
        if field.name not in ("user", "item", "rating", "time"):
            assert getattr(stored, field.name) == getattr(memory, field.name), field.name
    assert fingerprint_with_texts(stored, "") == fingerprint_with_texts(memory, "")
    assert input_digests(stored, "") == input_digests(memory, "")


@pytest.fixture
def config(tmp_path):
    ratings, items = write_csv(tmp_path / "ratings.csv", rows()), write_items(tmp_path / "items.csv")
    return DataConfig(path=ratings, items_path=items)


class Notes(Quiet):
    """Keeps the lines that are shown."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def with_times(columns, times):
    return {**columns, "timestamp": [times(time) for time in columns["timestamp"]]}


def iso(time):
    return str(np.datetime64(time, "s")).replace("T", " ")


def repeated(columns, times=1):
    """Some rows again, with another rating, half of them at the same time."""
    rng = np.random.default_rng(4)
    again = {name: values[:times] for name, values in columns.items()}
    if "rating" in again:
        again["rating"] = rng.permutation(columns["rating"])[:times].tolist()
    if "timestamp" in again:
        again["timestamp"] = [time + n % 2 * 100 for n, time in enumerate(again["timestamp"])]
    order = rng.permutation(len(columns["user_id"]) + times)
    return {name: [(values + again[name])[n] for n in order] for name, values in columns.items()}


IN_BATCHES = {
    "clicks that repeat": (repeated(rows(half=False), 300), {"kind": "click"}),
    "clicks that repeat, in words": (
        repeated({**rows(half=False), "rating": ["True" if r else "0" for r in rows(half=False)["rating"]]}, 300),
        {"kind": "click"},
    ),
    "plays that repeat": ({n: c for n, c in repeated(rows(), 300).items() if n != "rating"}, {"kind": "click"}),
    "the latest rating": (repeated(rows(), 300), {"repeats": "latest"}),
    "the first rating": (repeated(rows(), 300), {"repeats": "first"}),
    "the latest click": (repeated(rows(half=False), 300), {"kind": "click", "repeats": "latest"}),
    "half stars": (rows(), {}),
    "ids that are numbers": ({**rows(), "item_id": [int(i[1:]) for i in rows()["item_id"]]}, {}),
    "clicks of 0 and 1": (rows(half=False), {"kind": "click", "repeats": "refuse"}),
    "every row a click": ({n: c for n, c in rows().items() if n != "rating"}, {"kind": "click"}),
    "no times": ({n: c for n, c in rows().items() if n != "timestamp"}, {}),
    "milliseconds": (with_times(rows(), lambda time: time * 1000 + 7), {}),
    "dates": (with_times(rows(), iso), {}),
    "dates of which one has a fraction": (
        with_times(rows(), lambda time: iso(time) + (".5" if time == max(rows()["timestamp"]) else "")), {}
    ),
    "many levels": ({**rows(), "rating": np.random.default_rng(1).random(USERS * 15).round(6).tolist()}, {}),
    "decimal commas": ({**rows(), "rating": [f"{r}".replace(".", ",") for r in rows()["rating"]]}, {"separator": ";"}),
}  # fmt: skip


@pytest.fixture
def small_parts(monkeypatch):
    """Has rows come in many batches, and be sorted in many parts."""
    monkeypatch.setattr("metarec_jax.data.sources.text._BLOCK", 1 << 10)
    monkeypatch.setattr("metarec_jax.data.sources.parquet._BATCH", 100)
    monkeypatch.setattr("metarec_jax.data.sources.json_text.BLOCK", 1 << 10)
    monkeypatch.setattr("metarec_jax.data.sources.files.IN_FILE", 1 << 12)
    monkeypatch.setattr("metarec_jax.data.store.external_sort.BUCKET", 100)
    monkeypatch.setattr("metarec_jax.data.store.external_sort._AT_ONCE", 70)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("case", IN_BATCHES)
def test_tables_in_batches_are_read_as_in_memory(tmp_path, case):
    columns, options = IN_BATCHES[case]
    path = write_csv(tmp_path / "r.csv", columns, options.get("separator", ","))
    chosen, notes = DataConfig(path=path, **options), Notes()
    stored = build_store(chosen, tmp_path / "store", reporter=notes)
    assert notes.lines == []
    assert isinstance(stored.user, StoredColumn)
    assert_same(stored, load(chosen))
    assert_same(load(DataConfig(path=str(tmp_path / "store"), kind=chosen.kind)), load(chosen))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", ["int", "text", "float32", "timestamp"])
def test_parquet_in_batches_is_read_as_in_memory(tmp_path, kind):
    columns = {name: pa.array(values) for name, values in rows().items()}
    if kind == "text":
        columns = {name: pa.array([str(value) for value in values.to_pylist()]) for name, values in columns.items()}
    if kind == "float32":
        columns["rating"] = pa.array(np.asarray(rows()["rating"], np.float32) / 10)
    if kind == "timestamp":
        columns["timestamp"] = columns["timestamp"].cast(pa.timestamp("s")).cast(pa.timestamp("ns"))
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "r.parquet", row_group_size=300)
    chosen, notes = DataConfig(path=str(tmp_path / "r.parquet")), Notes()
    assert_same(build_store(chosen, tmp_path / "store", reporter=notes), load(chosen))
    assert notes.lines == []


JSON_LINES = {
    "numbers": (rows(), ""),
    "ids that are numbers": ({**rows(), "item_id": [int(i[1:]) for i in rows()["item_id"]]}, ""),
    "whole ratings first": ({**rows(), "rating": [4] * 600 + rows()["rating"][600:]}, ""),
    "dates": (with_times(rows(), iso), ""),
    "a field that comes late": ({**rows(), "timestamp": [None] * 1200 + rows()["timestamp"][1200:]}, "whole"),
    "no times": ({n: c for n, c in rows().items() if n != "timestamp"}, ""),
    "other fields, of several types": ({**rows(), "more": [1, "a", {"b": [2]}] * (USERS * 5)}, ""),
    "clicks in words": ({**rows(half=False), "rating": [bool(r) for r in rows(half=False)["rating"]]}, "click"),
}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("case", JSON_LINES)
def test_json_lines_in_batches_are_read_as_in_memory(tmp_path, case, mark):
    columns, how = JSON_LINES[case]
    lines = [json.dumps(dict(zip(columns, row))) for row in zip(*columns.values())]
    (tmp_path / "r.jsonl").write_bytes(mark + "\n".join(lines).encode())
    chosen = DataConfig(path=str(tmp_path / "r.jsonl"), kind="click" if how == "click" else "rating")
    try:
        memory = load(chosen)
    except MetarecError as error:
        with pytest.raises(MetarecError, match=re.escape(str(error))):
            build_store(chosen, tmp_path / "store")
        assert how == "whole"
        return
    notes = Notes()
    assert_same(build_store(chosen, tmp_path / "store", reporter=notes), memory)
    assert notes.lines == []


def packed(path, how):
    """A file, compressed; the zip has it in a folder."""
    if how == "zip":
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, f"folder/{path.name}")
        return path.with_suffix(".zip")
    made = path.with_name(f"{path.name}.{how}")
    made.write_bytes(gzip.compress(path.read_bytes()) if how == "gz" else bz2.compress(path.read_bytes()))
    return made


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("how", ["gz", "bz2", "zip"])
def test_compressed_tables_are_unpacked_to_a_file_and_read_in_batches(tmp_path, how, monkeypatch):
    path = packed(Path(write_csv(tmp_path / "r.csv", rows())), how)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    chosen, notes = DataConfig(path=str(path)), Notes()
    memory = load(chosen)
    assert isinstance(read_table_file(path, "").data, mmap.mmap)
    assert_same(build_store(chosen, tmp_path / "store", reporter=notes), memory)
    assert notes.lines == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["r.csv", path.name, "store"])


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("zipped", [False, True])
def test_movielens_in_batches_is_read_as_in_memory(tmp_path, zipped):
    folder = tmp_path / "ml"
    folder.mkdir()
    columns = dict(zip(("userId", "movieId", "rating", "timestamp"), rows().values()))
    columns["movieId"] = [int(i[1:]) for i in columns["movieId"]]
    write_csv(folder / "ratings.csv", columns)
    films = [f'{n},"Film, {n} ({1980 + n % 20})",Drama|War' for n in range(ITEMS + 3)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]) + "\n")
    path = shutil.make_archive(str(folder), "zip", folder) if zipped else str(folder)
    chosen, notes = DataConfig(path=path), Notes()
    memory = load(chosen)
    assert_same(build_store(chosen, tmp_path / "store", reporter=notes), memory)
    assert notes.lines == []


AS_A_WHOLE = {
    "a scale that loses its end": (
        {n: [*c, c[0], c[0]] if n != "rating" else [*c, 5.5, 3.0] for n, c in rows().items()}, {"repeats": "latest"}
    ),
    "ratings that repeat": (repeated(rows(), 5), {"repeats": "mean"}),
    "plays that are counted": ({n: c for n, c in repeated(rows(), 5).items() if n != "rating"}, {"repeats": "sum"}),
    "times with fractions": (with_times(rows(), lambda time: f"{time}.25" if time % 2 else f"{time}"), {}),
    "texts of items": ({**rows(), "words": [f"Film {i}" for i in rows()["item_id"]]},
                       {"columns": Columns(item_text="words")}),
}  # fmt: skip


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("case", AS_A_WHOLE)
def test_other_tables_are_read_as_a_whole_and_are_the_same(tmp_path, case):
    columns, options = AS_A_WHOLE[case]
    chosen = DataConfig(path=write_csv(tmp_path / "r.csv", columns), **options)
    assert_same(build_store(chosen, tmp_path / "store"), load(chosen))


def test_other_sources_and_vectors_are_kept(tmp_path):
    made = load(DataConfig(source="synthetic"), seed=3)
    assert_same(build_store(DataConfig(source="synthetic"), tmp_path / "store", seed=3), made)
    vectors = np.random.default_rng(0).normal(size=(ITEMS + 3, 4)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    table = DataConfig(
        path=write_csv(tmp_path / "r.csv", rows()),
        items_path=write_items(tmp_path / "i.csv"),
        vectors=str(tmp_path / "v.npy"),
    )
    stored, memory = build_store(table, tmp_path / "other"), load(table)
    assert_same(stored, memory)
    assert_equal(np.asarray(stored.items.vectors), memory.items.vectors)


@pytest.fixture
def both(config, tmp_path):
    """The data set of `config` from a store, and from memory."""
    return build_store(config, tmp_path / "store"), load(config)


OF_CLICKS = ("strong-generalisation", "next-items", "cold-items")
SPLIT_OPTIONS = {"melu": {"year": 1992}, "next-items": {}, "few-shot": {"supports": (0, 1, 3)}}


@pytest.mark.parametrize("kind", SPLITS.names())
def test_divisions_statistics_and_episodes_are_the_same(both, kind):
    config = Config(split=SplitConfig(kind=kind, **SPLIT_OPTIONS.get(kind, {})), episodes=EPISODES)
    if kind in OF_CLICKS:
        both = [clicks_of(data) for data in both]
    found = [everything(data, divide(data, config, 5)) for data in both]
    assert_equal(*found)


def everything(data, division):
    """All that a division says, and batches of its episodes and tasks."""
    statistics = row_statistics(data, division.train)
    trains = holds(division.train, len(data))
    assert isinstance(division.train, Ranges) == isinstance(data.user, OwnerColumn)
    own = histories(data, division.train_users, trains)
    episodes = EpisodeSource(own, dataclasses.replace(EPISODES, query=1), statistics, True, 8, 1, epochs=2)
    parts = {"validation": division.validation} | {scenario.name: scenario.tasks for scenario in division.scenarios}
    tasks = {name: list(TaskSource(data, part, statistics, trains, (6, 20), 8)) for name, part in parts.items()}
    facts = [np.asarray(division.train), division.train_users, division.candidates, statistics[:2], counts_of(data)]
    return [facts, list(episodes), tasks]


def test_the_fingerprint_is_that_of_all_ids_and_columns(both, monkeypatch):
    memory = both[1]
    ids = "\n".join((*memory.users.ids, "", *memory.items.ids)).encode()
    columns = [column.tobytes() for column in (memory.user, memory.item, memory.rating, memory.time)]
    want = hashlib.sha256(b"".join([ids, *columns])).hexdigest()
    monkeypatch.setattr("metarec_jax.data.fingerprint._NAMES", 7)
    monkeypatch.setattr("metarec_jax.core.stored_columns.BLOCK", 100)
    assert [fingerprint(data) for data in both] == [want, want]


def test_statistics_of_users_are_the_same(both):
    users = np.array([3, 80, 5])
    assert_equal(*(item_statistics(data, users)[:2] for data in both))


def test_a_batch_reads_rows_of_its_users_alone(both, monkeypatch):
    """However many rows there are: those of the support and the query, and no whole column."""
    stored, read = both[0], []

    def counted(column):
        def take(rows):
            found = column[rows]
            read.append(len(found))
            return found

        return StoredColumn(len(column), column.dtype, take)

    monkeypatch.setattr("metarec_jax.core.stored_columns.BLOCK", 100)
    data = dataclasses.replace(stored, **{name: counted(getattr(stored, name)) for name in ("item", "rating", "time")})
    division = divide(data, Config(episodes=EPISODES), 5)
    statistics = row_statistics(data, division.train)
    trained = holds(division.train, len(data))
    own = histories(data, division.train_users, trained)
    source = EpisodeSource(own, EPISODES, statistics, True, 8, 1)
    assert max(read) <= 100
    assert all(isinstance(part, StoredColumn) for part in (own.row, own.item, own.rating, own.time, trained))
    read.clear()
    slots = source[0].support.mask.size + source[0].query.mask.size
    assert 0 < sum(read) <= 2 * 2 * slots  # items and ratings, of two batches


def test_strings_of_a_store_stay_in_its_files(tmp_path):
    table = DataConfig(path=write_csv(tmp_path / "r.csv", rows()), items_path=write_items(tmp_path / "i.csv"))
    items = build_store(table, tmp_path / "store").items
    assert all(isinstance(part, StoredStrings) for part in (items.ids, items.titles, items.texts))
    assert all(isinstance(part, StoredStrings) for part in items.details.values())
    assert len(items.details) == 2
