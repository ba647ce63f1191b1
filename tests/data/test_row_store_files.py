"""A store that is damaged, or that a build left behind, is never read; builds at once do not disturb each other."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_equal, assert_says

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.stored_columns import OwnerColumn
from metarec_jax.data import load
from metarec_jax.data.sources import row_store
from metarec_jax.data.sources.row_store import build_store, digest
from metarec_jax.data.store.files import HEADER, open_store

BUILD = """
import sys
from pathlib import Path
from metarec_jax.config.data import DataConfig
from metarec_jax.data.sources import row_store
print("begins", flush=True)
row_store.build_store(DataConfig(path=sys.argv[1]), Path(sys.argv[2]))
"""


def write(path, users=40, items=30, seed=0):
    rng = np.random.default_rng(seed)
    lines = [f"u{u},i{i},{rng.integers(1, 6)},{rng.integers(9, 99)}" for u in range(users) for i in range(items)]
    Path(path).write_text("\n".join(["user_id,item_id,rating,timestamp", *rng.permutation(lines)]) + "\n")
    return DataConfig(path=str(path))


@pytest.fixture
def config(tmp_path):
    return write(tmp_path / "ratings.csv")


@pytest.fixture
def store(config, tmp_path):
    build_store(config, tmp_path / "store")
    return tmp_path / "store"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


FILES = ["item.npy", "items.arrow", "offsets.npy", "rating.npy", "time.npy", "users.arrow", HEADER]


def test_these_are_its_files(store):
    assert sorted(path.name for path in store.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("fault", [flip, cut, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named(store, name, fault):
    fault(store / name)
    with pytest.raises(MetarecError) as error:
        open_store(store)
    assert_says(str(error.value), name, f"remove {store}, and build the store again")


HEADERS = {
    "another version": ({"version": 2}, ("version 2", "reads 1")),
    "a changed number": ({"rows": 7}, ("is damaged",)),
    "no version": (None, ("not the description of a row store",)),
}


@pytest.mark.parametrize("case", HEADERS)
def test_descriptions_that_are_not_ours_are_refused(store, case):
    changes, says = HEADERS[case]
    header = json.loads((store / HEADER).read_text())
    (store / HEADER).write_text(json.dumps([] if changes is None else {**header, **changes}))
    with pytest.raises(MetarecError) as error:
        load(DataConfig(path=str(store)))
    assert_says(str(error.value), str(store / HEADER), *says)


def test_pickles_are_not_loaded(store):
    np.save(store / "item.npy", np.array([{}], object), allow_pickle=True)
    header = json.loads((store / HEADER).read_text())
    from metarec_jax.data.store import files

    header["files"]["item.npy"] = files._state(store / "item.npy")
    del header["sha256"]
    (store / HEADER).write_text(json.dumps({**header, "sha256": files._digest_of_header(header)}))
    with pytest.raises(MetarecError, match="damaged"):
        open_store(store)


def test_a_folder_that_is_in_the_way_is_named(config, tmp_path, store):
    other = tmp_path / "file"
    other.write_text("x")
    for place in (store, other):
        with pytest.raises(MetarecError, match=re.escape(f"{place.name} exists already: name another folder")):
            build_store(config, place)
    assert len(open_store(store)) == 1200


def test_a_mistake_in_the_data_has_the_message_of_training_and_leaves_nothing(tmp_path):
    config = write(tmp_path / "r.csv")
    path = Path(config.path)
    path.write_text(path.read_text() + "u1,,4,3\n")
    with pytest.raises(MetarecError) as of_training:
        load(config)
    with pytest.raises(MetarecError) as of_store:
        build_store(config, tmp_path / "store")
    assert str(of_store.value) == str(of_training.value)
    assert_says(str(of_store.value), "line 1202", "the item (item_id) is empty")
    assert os.listdir(tmp_path) == ["r.csv"]


def test_a_killed_build_leaves_nothing_that_is_taken_for_a_store(tmp_path):
    config = write(tmp_path / "r.csv", users=3000, items=60)
    store = tmp_path / "store"
    for wait in (0.0, 0.15, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-c", BUILD, config.path, str(store)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "begins\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if store.exists():
            shutil.rmtree(store)  # whole: it became a store before the signal
    assert_equal(np.asarray(build_store(config, store).item), load(config).item)
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "store"]


def test_of_two_builds_at_once_one_is_refused_or_finds_the_store(tmp_path):
    config = write(tmp_path / "r.csv", users=3000, items=60)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, config.path, str(tmp_path / "store")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1]
    assert re.search("is in use by|exists already", "".join(errors))
    assert_equal(np.asarray(open_store(tmp_path / "store").item), load(config).item)


# The cache


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Every file counts as large, and the cache is in a folder of its own."""
    monkeypatch.setattr(row_store, "LARGE", 100)
    monkeypatch.setenv("METAREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "row-stores"


def test_large_files_are_read_through_a_store_in_the_cache(config, monkeypatch, small):
    memory = row_store.SOURCES.get("auto").load(config, 0)
    for _ in range(2):
        data = load(config)
        assert isinstance(data.user, OwnerColumn)
        assert_equal([np.asarray(data.item), np.asarray(data.rating)], [memory.item, memory.rating])
    (place,) = small.iterdir()
    assert place.name == digest(config)
    assert os.listdir(place) == ["store"]


def test_other_content_or_options_are_another_store(config, small):
    before = digest(config)
    assert digest(DataConfig(path=config.path, liked="3", cache="elsewhere")) == before
    assert digest(DataConfig(path=config.path, repeats="latest")) != before
    Path(config.path).write_text(Path(config.path).read_text().replace("i3,", "i99,", 1))
    assert digest(config) != before


def test_damage_in_the_cache_is_named_and_removing_it_helps(config, small):
    load(config)
    (place,) = small.iterdir()
    flip(place / "store" / "item.npy")
    with pytest.raises(MetarecError) as error:
        load(config)
    assert_says(str(error.value), "item.npy is damaged", f"remove {place / 'store'}, and build the store again")
    shutil.rmtree(place / "store")
    assert len(load(config)) == 1200


def test_a_store_is_not_stored_again(store, small):
    assert len(load(DataConfig(path=str(store)))) == 1200
    assert not small.exists()
