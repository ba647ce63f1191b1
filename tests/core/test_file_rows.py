import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_says

from metarec_jax.core import file_rows
from metarec_jax.core.checked_files import read_arrays, write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.file_rows import FileRows

ROWS = np.random.default_rng(0).normal(size=(5000, 12)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, {"small": ROWS[:3], "large": ROWS, "half": ROWS.astype(np.float16), "line": ROWS[:, 0]})
    return path


def test_large_matrices_stay_in_the_file(path):
    arrays, _ = read_arrays(path, map_above=1000)
    assert {name for name, array in arrays.items() if isinstance(array, FileRows)} == {"large", "half"}
    large = arrays["large"]
    some = np.array([4999, 0, 7, 7])
    np.testing.assert_array_equal(large[some], ROWS[some])
    np.testing.assert_array_equal(large[4990:6000], ROWS[4990:])
    np.testing.assert_array_equal(np.concatenate(list(large.blocks())), ROWS)
    np.testing.assert_array_equal(arrays["half"][some], ROWS.astype(np.float16)[some])
    np.testing.assert_array_equal(arrays["line"], ROWS[:, 0])


def test_rows_are_copies(path):
    large = read_arrays(path, map_above=1000)[0]["large"]
    large[:2][:] = 0
    np.testing.assert_array_equal(large[:2], ROWS[:2])


def test_a_damaged_matrix_is_refused_before_any_row_is_used(path):
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(MetarecError) as raised:
        read_arrays(path, map_above=1000)
    assert_says(str(raised.value), str(path), "damaged")


@pytest.fixture(params=["mapped", "read"])
def rows(request, path, monkeypatch):
    """A matrix that is mapped, and one whose rows are read."""
    if request.param == "read":
        monkeypatch.setattr(file_rows, "RESIDENT", 1 << 10)
    return read_arrays(path, map_above=1000)[0]["large"]


@pytest.mark.parametrize(
    "which",
    [3, -1, slice(None), slice(7, 3), slice(None, None, -7), np.array([[4999, 0], [-5000, 7]]), ROWS[:, 0] > 1],
    ids=["one", "last", "all", "none", "backwards", "matrix", "mask"],
)
def test_rows_are_those_of_an_array(rows, which):
    np.testing.assert_array_equal(rows[which], ROWS[which])


@pytest.mark.parametrize("row", [5000, -5001])
def test_a_row_that_does_not_exist_is_refused(rows, row):
    with pytest.raises(IndexError, match=str(row)):
        rows[np.array([0, row])]


def test_a_file_that_is_too_short_is_named(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    path.write_bytes(ROWS.tobytes())
    with pytest.raises(MetarecError) as raised:
        FileRows(path, 4, ROWS.shape, ROWS.dtype)
    assert_says(str(raised.value), str(path), "5,000 rows", "restore")
    monkeypatch.setattr(file_rows, "RESIDENT", 1 << 10)
    rows = FileRows(path, 0, ROWS.shape, ROWS.dtype)
    os.truncate(path, ROWS.nbytes - 1)
    np.testing.assert_array_equal(rows[4998], ROWS[4998])
    with pytest.raises(MetarecError) as raised:
        rows[[4999]]
    assert_says(str(raised.value), str(path), "5,000 rows", "restore")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of mapped files is read from /proc")
def test_rows_of_a_large_file_take_no_memory(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    whole = np.ones((1 << 14, 1 << 10), np.float32)  # 64 MB
    path.write_bytes(whole.tobytes())
    monkeypatch.setattr(file_rows, "RESIDENT", 1 << 23)
    rows, before = FileRows(path, 0, whole.shape, whole.dtype), of_files()
    for start in range(0, len(whole), 256):
        assert rows[start : start + 256].sum() == 256 << 10
    assert rows[np.arange(0, len(whole), 4)].all()
    assert of_files() - before < 4e6


def of_files():
    """Resident bytes of this process that belong to mapped files."""
    return 1024 * int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1])
