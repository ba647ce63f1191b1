"""A stored column answers as the array of its values does."""

import numpy as np
import pytest

from metarec_jax.core import stored_columns
from metarec_jax.core.stored_columns import OwnerColumn, coded, rows_of, widened

COUNTS = np.array([0, 3, 0, 0, 5, 1, 0, 11, 0])
OWNERS = np.repeat(np.arange(len(COUNTS)), COUNTS).astype(np.int32)
CODES = np.random.default_rng(0).integers(0, 3, len(OWNERS)).astype(np.uint8)
LEVELS = np.array([1, 2.5, 5], np.float32)
TIMES = np.random.default_rng(1).integers(-5, 9, len(OWNERS)).astype(np.int32)
COLUMNS = {
    "owners": (OwnerColumn(np.append(0, np.cumsum(COUNTS))), OWNERS),
    "codes": (coded(CODES, LEVELS), LEVELS[CODES]),
    "narrow": (widened(TIMES, np.int64), TIMES.astype(np.int64)),
    "some rows": (rows_of(coded(CODES, LEVELS), np.array([5, 0, 19, 5])), LEVELS[CODES[[5, 0, 19, 5]]]),
}

READS = {
    "all": lambda x: x[:],
    "one": lambda x: x[3],
    "the last": lambda x: x[-1],
    "a slice": lambda x: x[1:3],
    "an empty slice": lambda x: x[3:2],
    "every other row": lambda x: x[::-2],
    "rows": lambda x: x[np.array([[3, 0], [-1, 0]])],
    "no rows": lambda x: x[np.array([], int)],
    "a mask": lambda x: x[np.arange(len(x)) % 2 == 0],
    "array": np.asarray,
    "float64": lambda x: x.astype(np.float64),
    "list": lambda x: x.tolist(),
    "iteration": list,
    "comparison": lambda x: x >= 2,
    "comparison with an array": lambda x: np.arange(len(x)) < x,
    "difference of its own": lambda x: x - x,
    "negative": lambda x: -x,
    "in another shape": lambda x: x * np.ones((2, 1), np.float32),
    "sum": np.sum,
    "bounds": lambda x: (x.min(), x.max(), x.any(), x.all()),
    "counts": lambda x: np.bincount(x[x[:] > 0].astype(int)),
    "membership": lambda x: np.isin(x, [1, 5]),
    "distinct": np.unique,
    "as an index": lambda x: np.arange(100)[np.asarray(x, np.int64)],
    "shape": lambda x: (len(x), x.shape, x.size, x.ndim, x.dtype),
}


@pytest.mark.parametrize("block", [2, 1 << 20])
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("name", COLUMNS)
def test_it_reads_as_an_array(monkeypatch, name, read, block):
    monkeypatch.setattr(stored_columns, "BLOCK", block)
    column, values = COLUMNS[name]
    got, want = READS[read](column), READS[read](values)
    if isinstance(want, np.ndarray):
        np.testing.assert_array_equal(got, want, strict=True)
    else:
        assert got == want


@pytest.mark.parametrize("rows", [20, -21, [3, 20], np.ones(3, bool)])
def test_rows_that_are_not_there_are_refused(rows):
    with pytest.raises(IndexError):
        COLUMNS["owners"][0][rows]


def test_some_rows_keep_their_owners():
    rows = np.array([0, 2, 3, 9, 19])
    column = COLUMNS["owners"][0].of(rows)
    np.testing.assert_array_equal(np.asarray(column), OWNERS[rows], strict=True)
    assert len(column.offsets) == len(COUNTS) + 1
