"""Ranges of rows answer as the array of their rows does."""

import numpy as np
import pytest

from metarec_jax.core import stored_columns
from metarec_jax.core.row_ranges import Ranges, expand, holds, runs, where

FIRST, COUNT = np.array([3, 10, 11, 15, 50]), np.array([2, 0, 4, 1, 3])
ROWS = np.array([3, 4, 11, 12, 13, 14, 15, 50, 51, 52])


@pytest.fixture(params=[2, 1 << 20])
def made(request, monkeypatch):
    monkeypatch.setattr(stored_columns, "BLOCK", request.param)
    return Ranges(FIRST, COUNT)


def test_they_are_read_as_the_array_of_their_rows(made):
    np.testing.assert_array_equal(np.asarray(made), ROWS, strict=True)
    np.testing.assert_array_equal(made[2:9], ROWS[2:9], strict=True)
    np.testing.assert_array_equal(made[np.array([[9, 0], [-1, 3]])], ROWS[[[9, 0], [-1, 3]]], strict=True)
    assert (len(made), len(Ranges(FIRST[:0], COUNT[:0]))) == (len(ROWS), 0)


def test_ranges_may_come_in_any_order():
    np.testing.assert_array_equal(np.asarray(Ranges(np.array([9, 2]), np.array([2, 3]))), [9, 10, 2, 3, 4])


def test_they_hold_their_rows_alone(made):
    want = np.isin(np.arange(60), ROWS)
    for selected in (made, ROWS):
        found = holds(selected, 60)
        np.testing.assert_array_equal(np.asarray(found), want, strict=True)
        np.testing.assert_array_equal(found[np.array([[3, 5], [59, 52]])], want[[[3, 5], [59, 52]]])


@pytest.mark.parametrize("keep", [lambda rows: rows % 2 == 0, lambda rows: rows > 4, lambda rows: rows < 0])
def test_what_is_kept_of_them_is_what_is_kept_of_the_array(made, keep):
    found = where(made, keep)
    assert isinstance(found, Ranges)
    np.testing.assert_array_equal(np.asarray(found), ROWS[keep(ROWS)])
    np.testing.assert_array_equal(where(ROWS, keep), ROWS[keep(ROWS)])


def test_memory_grows_with_ranges_and_not_with_rows():
    many = Ranges(np.array([0, 5 << 40]), np.array([1 << 40, 1 << 40]))
    np.testing.assert_array_equal(many[np.array([5, 1 << 40, (1 << 41) - 1])], [5, 5 << 40, (6 << 40) - 1])
    assert many.holds(1 << 44)[np.array([1 << 40, 5 << 40])].tolist() == [False, True]


def test_runs_and_expanded_ranges_without_any():
    none = np.zeros(0, np.int64)
    assert [part.tolist() for part in runs(none)] == [[], []]
    assert expand(none, none).tolist() == []
