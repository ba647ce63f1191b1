import re
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_says

from metarec_jax.core import mapped_rows
from metarec_jax.core.checked_files import read_arrays, write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.mapped_rows import MappedRows

ROWS = np.random.default_rng(0).normal(size=(5000, 12)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, {"small": ROWS[:3], "large": ROWS, "half": ROWS.astype(np.float16), "line": ROWS[:, 0]})
    return path


def test_large_matrices_stay_in_the_file(path):
    arrays, _ = read_arrays(path, map_above=1000)
    assert {name for name, array in arrays.items() if isinstance(array, MappedRows)} == {"large", "half"}
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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of mapped files is read from /proc")
def test_pages_are_given_back(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    whole = np.ones((1 << 14, 1 << 10), np.float32)  # 64 MB
    path.write_bytes(whole.tobytes())
    monkeypatch.setattr(mapped_rows, "RESIDENT", 1 << 23)
    rows = MappedRows(path, 0, whole.shape, whole.dtype)
    before, most = of_files(), 0
    for start in range(0, len(whole), 256):
        assert rows[start : start + 256].sum() == 256 << 10
        most = max(most, of_files() - before)
    assert most < 24e6


def of_files():
    """Resident bytes of this process that belong to mapped files."""
    return 1024 * int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1])
