"""A changed bit in any file of numbers of a run is noticed, or changes nothing that is read."""

import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import assert_equal
from trained import trained_run

from metarec_jax.core.checked_files import read_arrays, read_table, write_arrays, write_table
from metarec_jax.core.errors import MetarecError
from metarec_jax.train import catalogue, run_folder
from metarec_jax.train.checkpoints import Checkpoints, Progress
from metarec_jax.train.parameters import load_trainable

BITS = 40
"""Changed in each kind of file, one at a time."""


def change_a_bit(path: Path, number: int) -> None:
    data = bytearray(path.read_bytes())
    draw = random.Random(f"{path.name} {number}")
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def test_a_changed_bit_of_a_checkpoint_is_refused_with_the_one_before_as_the_remedy(tmp_path):
    state = {"kernel": jax.random.normal(jax.random.key(0), (30, 30)), "key": jax.random.key(1)}
    good = tmp_path / "good"
    with Checkpoints(good) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state, Progress(step, 1, {"next_index": step}, {}, 0, 0, 1.0, False))
    assert sorted(path.name for path in good.iterdir()) == ["2", "3"]
    files = [p for p in sorted((good / "3").rglob("*")) if p.stat().st_size and p.is_file()]
    assert any(path.name == "digests.0.json" for path in files)
    for number in range(BITS):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(good, copy)
        file = copy / files[number % len(files)].relative_to(good)
        change_a_bit(file, number)
        with (
            Checkpoints(copy) as checkpoints,
            pytest.raises(MetarecError, match=r"/3: .*or delete that folder to go on from step 2$"),
        ):
            checkpoints.load(state, 3)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A run folder, what is read of it, and how."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(trained_run(), folder)

    def read():
        run = run_folder.open_run(folder)
        items = catalogue.load(run)
        return items, load_trainable(run, items)

    return folder, read(), read


@pytest.mark.parametrize("name", ["parameters.safetensors", "tables.safetensors", "catalogue.parquet"])
def test_a_changed_bit_of_a_file_is_refused_or_changes_nothing(parts, name):
    folder, (items, trainable), read = parts
    whole, refused, unchanged = (folder / name).read_bytes(), 0, 0
    for number in range(BITS):
        change_a_bit(folder / name, number)
        try:
            got_items, got = read()
        except MetarecError as error:
            refused += str(error).startswith(str(folder)) and len(str(error)) < 600
        else:
            assert got_items.items == items.items
            assert got_items.scale == items.scale
            assert_equal(got_items.embeddings, items.embeddings)
            assert_equal(got_items.statistics.total, items.statistics.total)
            assert_equal(got, trainable)
            unchanged += 1
        (folder / name).write_bytes(whole)
    assert refused + unchanged == BITS, "each is refused in one short message, or changes nothing"
    assert refused > BITS / 2


def test_arrays_and_tables_come_back_and_are_of_the_usual_mode(tmp_path):
    import pyarrow as pa

    arrays = {"a": np.arange(6.0).reshape(2, 3), "one": np.float32(2), "none": np.zeros((0, 3))}
    write_arrays(tmp_path / "arrays", arrays, {"more": "text"})
    got, texts = read_arrays(tmp_path / "arrays")
    assert texts == {"more": "text"}
    assert got.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array, strict=name != "one")
    table = pa.table({"id": ["a", None], "n": np.arange(2)})
    write_table(tmp_path / "table", table, {"more": "text"})
    assert read_table(tmp_path / "table")[0].equals(table)
    (tmp_path / "plain").write_text("")
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}
