import numpy as np
import pytest
from helpers import assert_equal

from metarec_jax.recommender.growing_rows import GrowingRows

FIRST = np.arange(12, dtype=np.float16).reshape(6, 2)
MORE = np.array([[20.0, 21.0], [22.0, 23.0]], np.float32)


def test_rows_of_the_source_and_appended_ones():
    rows, whole = GrowingRows(FIRST), np.concatenate([FIRST.astype(np.float32), MORE])
    rows.append(MORE[:1])
    rows.append(MORE[1:])
    assert rows.shape == (8, 2)
    for wanted in (
        slice(None),
        slice(2, 5),
        slice(4, 8),
        slice(7, 2, -2),
        np.array([7, 0, 6]),
        np.array([[1, 7], [6, 6]]),
    ):
        assert_equal(rows[wanted], whole[wanted])


def test_only_appended_rows_change():
    rows = GrowingRows(FIRST)
    rows.append(MORE)
    rows.replace(np.array([7]), MORE[:1])
    assert_equal(rows[5:8], np.concatenate([FIRST[5:].astype(np.float32), MORE[:1], MORE[:1]]))
    with pytest.raises(ValueError, match="row 3 was not appended"):
        rows.replace(np.array([7, 3]), MORE)
