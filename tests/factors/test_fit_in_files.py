"""A fit whose rows are in files is that with rows in memory, and takes no memory for them."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_equal, random_interactions

from metarec_jax.core import stored_columns
from metarec_jax.core.scratch import Scratch
from metarec_jax.core.stored_columns import StoredColumn
from metarec_jax.data.sources.row_store import open_store
from metarec_jax.data.splits import rows_of_users
from metarec_jax.data.store.save import save
from metarec_jax.factors import sorted_rows
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.fit_cache import Cache, kept
from metarec_jax.factors.row_batches import layout, rows_by_owner
from metarec_jax.factors.sorted_rows import sort_by_owner

USERS, ITEMS = 300, 40


@pytest.fixture
def small_parts(monkeypatch):
    """Columns are read in many slices, and rows sorted in many parts."""
    monkeypatch.setattr(stored_columns, "BLOCK", 1000)
    monkeypatch.setattr(sorted_rows, "_PART", 500)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("in_files", [False, True])
def test_rows_are_sorted_by_owner_and_stay_in_their_order(tmp_path, in_files):
    rng = np.random.default_rng(0)
    owner = np.concatenate([np.full(1700, 5), rng.integers(0, 50, 4000)]).astype(np.int32)  # one has several parts
    other, value, held = np.arange(len(owner), dtype=np.int32), rng.random(len(owner)), rng.random(len(owner)) < 0.1
    start = np.append(0, np.cumsum(np.bincount(owner, minlength=60)))
    found = sort_by_owner(owner, other, value, held, start, Scratch(tmp_path if in_files else None))
    order = np.argsort(owner, kind="stable")
    np.testing.assert_array_equal(found["owner"], owner[order])
    np.testing.assert_array_equal(found["other"], np.where(held, -1 - other, other)[order])
    np.testing.assert_array_equal(found["value"], value[order].astype(np.float32))
    assert len(sort_by_owner(owner[:0], other[:0], value[:0], held[:0], np.zeros(61, np.int64), Scratch())) == 0


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("most_whole", [0, 30])
def test_batches_in_files_are_those_in_memory(tmp_path, most_whole):
    rng = np.random.default_rng(1)
    owner, other = rng.integers(0, 300, 5000), rng.integers(0, 40, 5000)
    columns = owner, other, rng.normal(size=5000), rng.random(5000) < 0.1, layout(300, 2, 64), layout(40, 2), 8
    memory, files = (rows_by_owner(*columns, most_whole=most_whole, scratch=s) for s in (None, Scratch(tmp_path)))
    assert_equal([list(block) for block in files.batches], [list(block) for block in memory.batches])
    np.testing.assert_array_equal(files.count, np.bincount(owner[~columns[3]], minlength=300))
    assert files.whole == memory.whole


@pytest.mark.usefixtures("small_parts")
def test_factors_of_a_store_in_files_are_those_of_its_rows_in_memory(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    memory = random_interactions(rng, users=USERS, items=ITEMS, least=20, most=30)
    (tmp_path / "store").mkdir()
    save(memory, tmp_path / "store")
    stored = open_store(tmp_path / "store")
    columns = {name: np.asarray(getattr(stored, name)) for name in ("user", "item", "rating", "time")}
    memory = dataclasses.replace(memory, **columns)
    texts, profiles = rng.normal(size=(ITEMS, 5)).astype(np.float32), np.zeros((USERS, 0), np.float32)
    chosen = np.arange(USERS) % 7 != 0
    found = []
    for data, least in ((memory, 1 << 30), (stored, 0)):
        monkeypatch.setattr(sorted_rows, "IN_FILES", least)
        rows = rows_of_users(data, chosen)
        cache = Cache(tmp_path / "cache") if least == 0 else None
        beliefs, folded = believe_all(4, data, texts, rows, profiles, 0, cache=cache)
        found.append([beliefs.table, beliefs.noise, beliefs.of_new, beliefs.tastes, folded.tables, folded.fold])
    assert_equal(*found)


def test_a_fit_is_kept_under_the_same_name_whatever_its_columns_are(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_columns, "BLOCK", 7)
    column = np.arange(100, dtype=np.int32)
    lazy = StoredColumn(100, np.int32, lambda rows: column[rows])
    names = []
    for given in (column, lazy):
        files = kept(Cache(tmp_path, worth=-1), 3, given)
        files.finish({"a": np.zeros(1)})
        names.append(sorted(path.name for path in tmp_path.iterdir()))
    assert names[0] == names[1]
    assert len(names[0]) == 1


MEMORY = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks.factors import Memory, anonymous
from metarec_jax.core.stored_columns import StoredColumn
from metarec_jax.factors import sorted_rows
from metarec_jax.factors.fit import Known, fit
from metarec_jax.factors.fit_cache import Cache
from metarec_jax.factors.row_products import one_device

def rows_of(rows):
    number = lambda some: np.arange(some.start, some.stop) if isinstance(some, slice) else some
    hashed = lambda some: (number(some).astype(np.uint64) * np.uint64(11400714819323198485)) >> np.uint64(40)
    user = StoredColumn(rows, np.int32, lambda some: (number(some) // 160).astype(np.int32))
    item = StoredColumn(rows, np.int32, lambda some: (hashed(some) % 2000).astype(np.int32))
    value = StoredColumn(rows, np.float32, lambda some: (hashed(some) % 5).astype(np.float32) - 2)
    return user, item, value

known = Known(np.ones((2000, 1)), np.array([-1]), np.ones((2000, 1)), np.zeros((2000, 1)))
sorted_rows.IN_FILES = 0
found = []
for rows in (16_000, int(sys.argv[2])):  # the first compiles the programs
    before = anonymous()
    with Memory() as memory:
        fit(*rows_of(rows), known, mesh=one_device(), sweeps=1, cache=Cache(Path(sys.argv[1])))
    found.append(memory.most - before)
print(json.dumps(found))
"""


def test_memory_of_a_fit_does_not_grow_with_its_rows(tmp_path):
    """4 million rows are 48 MB as numbers, and 160 MB in memory while they are grouped."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path), "4000000"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    _, grown = json.loads(done.stdout.splitlines()[-1])
    assert grown < 130e6
