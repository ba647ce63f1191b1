"""Numbers at places of a stream are those of the whole stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarec_jax.data.random_streams import random_at

SEED, LENGTH = [3, 1, 0], 5000
WHOLE = {
    np.float64: np.random.default_rng(SEED).random(LENGTH),
    np.float32: np.random.default_rng(SEED).random((LENGTH, 2), np.float32)[:, 0],
}


@pytest.mark.parametrize("dtype", WHOLE)
@given(ranges=st.lists(st.tuples(st.integers(0, LENGTH - 100), st.integers(0, 100)), max_size=9))
def test_any_ranges_in_any_order(dtype, ranges):
    first, count = np.array(ranges, np.int64).reshape(-1, 2).T
    want = np.concatenate([np.zeros(0, dtype), *(WHOLE[dtype][a : a + n] for a, n in ranges)])
    np.testing.assert_array_equal(random_at(SEED, first, count, dtype), want, strict=True)
