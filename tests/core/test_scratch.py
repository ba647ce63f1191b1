"""Temporary arrays are the same in memory and in files, and leave nothing behind."""

import resource
import subprocess
import sys

import numpy as np
import pytest

from metarec_jax.core.scratch import Scratch


@pytest.mark.parametrize("in_files", [False, True])
def test_what_is_kept_is_read_again(tmp_path, in_files):
    scratch, rng = Scratch(tmp_path / "new" if in_files else None), np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(dtype) for shape, dtype in [((3, 2), "f4"), ((0, 5), "f8"), ((7,), "i4")]]
    kept = [scratch.keep(array) for array in arrays]
    filled = scratch.empty(1000, np.dtype([("a", "<i4"), ("b", "<f8")]))
    filled["a"] = np.arange(1000)
    for array, found in zip(arrays, kept):
        np.testing.assert_array_equal(found.read(), array, strict=True)
    assert isinstance(filled, np.memmap) == in_files
    assert filled["a"][[999, 3]].tolist() == [999, 3]
    assert scratch.empty(0, np.dtype("i4")).shape == (0,)
    assert not in_files or list((tmp_path / "new").iterdir()) == []


def test_a_file_that_cannot_be_as_large_is_named_with_a_remedy(tmp_path):
    """A limit that is set for real, in a process of its own."""
    code = (
        "import resource, signal, sys, numpy as np; from pathlib import Path; "
        "from metarec_jax.core.scratch import Scratch; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)); "
        "Scratch(Path(sys.argv[1])).empty(1 << 20, np.dtype('f8'))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "MetarecError" in last
    assert str(tmp_path) in last
    assert "ulimit -f" in last
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1 << 16
