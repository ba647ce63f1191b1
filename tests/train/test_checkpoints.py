"""Checkpoints: whole or refused, the two latest kept, and nothing in them is code."""

import concurrent.futures
import dataclasses
import json
import os
import pickle
import shutil
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_equal

from metarec_jax.core.atomic_files import write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.train.checkpoints import Checkpoints, Progress, _file_names


class State(NamedTuple):
    """One leaf of each kind that a training state has."""

    theta: Any
    phi: Any
    step: Any
    key: Any


def state_of(step, seed=0):
    rng = np.random.default_rng([seed, step])
    theta = {
        "kernel": jnp.asarray(rng.normal(size=(40, 3)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=3), jnp.bfloat16),
        "of no rows": jnp.zeros((0, 3)),
    }
    return State(theta, {}, jnp.int32(step), jax.random.key(step))


def progress_of(step, **changes):
    return dataclasses.replace(Progress.at_start(), step=step, position={"next_index": step}, **changes)


def plain(state):
    return state._replace(key=jax.random.key_data(state.key))


def save(folder, *steps):
    """Save `state_of(step)` for each of `steps`."""
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(state_of(step), progress_of(step))


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def test_what_was_saved_comes_back_bit_by_bit(tmp_path):
    sums = {"loss": (0.1 + 0.2, 3.0), "another": (1e-30, 1.0)}
    progress = Progress(7, 2, {"next_index": 7, "nested": {"a": [1, 2]}}, sums, 1, 3, 0.7, False)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        checkpoints.save(state_of(7), progress)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == progress
        got = checkpoints.load(state_of(0), 7)
    assert_equal(plain(got), plain(state_of(7)))
    assert got.key.dtype == jax.random.key(0).dtype
    assert_equal(jax.random.uniform(got.key, 3), jax.random.uniform(jax.random.key(7), 3))


def test_shapes_alone_are_enough_to_load_by(tmp_path):
    save(tmp_path, 1)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), plain(state_of(0)))
    with Checkpoints(tmp_path, tidy=False) as checkpoints:
        got = checkpoints.load(like._replace(key=jax.random.key(0)), 1)
    assert_equal(plain(got), plain(state_of(1)))
    assert {leaf.sharding for leaf in jax.tree.leaves(got.theta)} == {here}


@pytest.mark.parametrize(("steps", "kept"), [([1, 2, 3, 4], [3, 4]), ([3, 9], [3, 9]), ([5], [5])])
def test_the_two_latest_are_kept(tmp_path, steps, kept):
    save(tmp_path, *steps)
    assert steps_in(tmp_path) == kept
    with Checkpoints(tmp_path) as checkpoints:
        for step in kept:
            assert_equal(plain(checkpoints.load(state_of(0), step)), plain(state_of(step)))


@pytest.mark.parametrize(("rows", "sums"), [(12.0, {"loss": (0.1 + 0.2, 12.0)}), (0.0, {})])
def test_progress_of_version_0_1_is_read(rows, sums):
    more = {"step": 6, "epoch": 1, "best_epoch": 1, "best_step": 4, "best_loss": 0.7, "finished": False}
    query = 0.1 + 0.2 if rows else 0.0
    old = {**more, "iterator": {"next_index": 6}, "epoch_query": query, "epoch_rows": rows}
    found = Progress.from_json(json.loads(json.dumps(old)))
    assert found == Progress(**more, position={"next_index": 6}, sums=sums)
    assert Progress.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_a_step_that_is_taken_again_replaces_its_checkpoint(tmp_path):
    save(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(plain(checkpoints.load(state_of(0), 1)), plain(state_of(1)))
        checkpoints.save(state_of(1, seed=9), progress_of(1, epoch=4))
        checkpoints.wait()
        assert checkpoints.latest().epoch == 4
        assert_equal(plain(checkpoints.load(state_of(0), 1)), plain(state_of(1, seed=9)))


# Damage


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the latest checkpoint, 2, and the one before, 1."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    save(folder, 1, 2)
    return folder


DAMAGE = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "one byte changed": lambda path: path.write_bytes(_changed(path.read_bytes())),
}


def _changed(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def damaged_copies(saved, place, step, how):
    """A copy of `saved` for each file of checkpoint `step`, with that file damaged."""
    files = [path.relative_to(saved) for path in sorted((saved / str(step)).rglob("*")) if path.is_file()]
    for number, name in enumerate(files):
        copy = place / str(number) / "checkpoints"
        shutil.copytree(saved, copy)
        DAMAGE[how](copy / name)
        yield name, copy


@pytest.mark.parametrize("how", ["cut in half", "emptied", "deleted"])
def test_a_checkpoint_with_a_damaged_file_is_refused_or_comes_back_whole(saved, tmp_path, how):
    """Whichever file it is: never other numbers, never another exception, and after the remedy the older is there."""
    refused = set()
    for name, folder in damaged_copies(saved, tmp_path, 2, how):
        try:
            with Checkpoints(folder) as checkpoints:
                assert checkpoints.latest() == progress_of(2), name
                got = checkpoints.load(state_of(0), 2)
            assert_equal(plain(got), plain(state_of(2)))
        except MetarecError as error:
            refused.add(name.parts[-1] if len(name.parts[-1]) < 32 else "data")
            message = str(error)
            assert str(folder / "2") in message, name
            assert "damaged" in message
            assert message.endswith("restore it from a copy, or delete that folder to go on from step 1")
            shutil.rmtree(folder / "2")
            with Checkpoints(folder) as checkpoints:
                assert checkpoints.latest() == progress_of(1)
                assert_equal(plain(checkpoints.load(state_of(0), 1)), plain(state_of(1)))
    # The files without which there is no checkpoint; the rest repeats them, or says who made them and how.
    assert refused >= {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "data"}


def test_numbers_with_a_changed_byte_are_refused(saved, tmp_path):
    changed = 0
    for name, folder in damaged_copies(saved, tmp_path, 2, "one byte changed"):
        if name.parts[1:3] != ("state", "d"):
            continue
        changed += 1
        with Checkpoints(folder) as checkpoints, pytest.raises(MetarecError, match=r"checkpoints/2.*damaged"):
            checkpoints.load(state_of(0), 2)
    assert changed


def test_the_remedy_for_the_older_is_not_the_later_one(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for path in (folder / "1" / "state" / "d").iterdir():
        path.unlink()
    with Checkpoints(folder) as checkpoints, pytest.raises(MetarecError) as caught:
        checkpoints.load(state_of(0), 1)
    assert str(folder / "1") in str(caught.value)
    assert str(caught.value).endswith("restore it from a copy, or train the run again")


def test_a_checkpoint_that_is_not_there_is_named(saved):
    with Checkpoints(saved, tidy=False) as checkpoints, pytest.raises(MetarecError, match=r"/7: .*missing or damaged"):
        checkpoints.load(state_of(0), 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda theta: theta | {"kernel": jnp.zeros((40, 4))},
            r"theta/kernel is float32\[40, 3\] in the checkpoint and float32\[40, 4\] by the config",
            id="shape",
        ),
        pytest.param(
            lambda theta: theta | {"bias": jnp.zeros(3)},
            r"theta/bias is bfloat16\[3\] in the checkpoint and float32\[3\] by the config",
            id="dtype",
        ),
        pytest.param(
            lambda theta: theta | {"more": jnp.zeros(2)},
            r"theta/more is absent in the checkpoint and float32\[2\] by the config",
            id="a leaf more",
        ),
        pytest.param(
            lambda theta: {"kernel": theta["kernel"]},
            r"theta/bias is bfloat16\[3\] in the checkpoint and absent by the config",
            id="a leaf less",
        ),
        pytest.param(
            lambda theta: theta | {"of no rows": jnp.zeros((1, 3))},
            r"theta/of no rows is absent in the checkpoint and float32\[1, 3\] by the config",
            id="rows where there were none",
        ),
    ],
)
def test_a_checkpoint_of_another_config_is_refused_by_the_leaf_that_differs(saved, change, message):
    like = state_of(0)
    with Checkpoints(saved, tidy=False) as checkpoints, pytest.raises(MetarecError, match=message) as caught:
        checkpoints.load(like._replace(theta=change(like.theta)), 2)
    assert str(saved / "2") in str(caught.value)
    assert "config.json" in str(caught.value)


def test_what_a_killed_training_left_half_saved_is_removed_by_the_next_but_not_by_a_reader(tmp_path):
    save(tmp_path, 1)
    half = tmp_path / "2.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "part").write_bytes(b"half")
    with Checkpoints(tmp_path, tidy=False) as checkpoints:
        assert checkpoints.latest() == progress_of(1)
    assert half.exists()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == progress_of(1)
    assert steps_in(tmp_path) == [1]


# A disk that is full


def test_a_disk_that_cannot_take_a_checkpoint_is_no_traceback_and_what_was_saved_stays(tmp_path):
    """The limit on the size of a file stands for a full disk: the system says no in the middle of a write."""
    resource = pytest.importorskip("resource")
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"kernel": jax.random.normal(jax.random.key(0), (300, 300))}

    def save_more():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(large, progress_of(2))
            checkpoints.wait()

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(MetarecError, match=rf"^{tmp_path}: cannot be written: that is larger than a file may be"):
            save_more()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == progress_of(1)
        assert_equal(plain(checkpoints.load(state_of(0), 1)), plain(state_of(1)))
    assert steps_in(tmp_path) == [1]


# No code


def test_no_pickle_is_written_or_read(saved, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    with Checkpoints(saved, tidy=False) as checkpoints:
        assert checkpoints.latest() == progress_of(2)
        checkpoints.load(state_of(0), 2)
    for path in saved.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            # A pickle of protocol 2 or later begins with PROTO; one of an object names its module with GLOBAL.
            assert not any(bytes([0x80, protocol]) == data[:2] for protocol in range(2, 6)), path
            assert b"cbuiltins" not in data, path
            assert os.path.splitext(path.name)[1] not in (".pkl", ".pickle", ".pt"), path


def test_files_of_other_processes_that_come_and_go_are_not_listed(tmp_path):
    kept = ["_METADATA", "state/ocdbt.process_1/d/1", "state/ocdbt.process_1/manifest"]
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    ended = threading.Event()

    def write():
        while not ended.is_set():
            write_text(tmp_path / "digests.1.json", "{}")

    with concurrent.futures.ThreadPoolExecutor(1) as worker:
        writing = worker.submit(write)
        try:
            for _ in range(200):
                assert _file_names(tmp_path) == kept
        finally:
            ended.set()
        writing.result()
