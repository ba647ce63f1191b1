"""Stored strings are read as a tuple of them is."""

import numpy as np
import pyarrow as pa
import pytest

from metarec_jax.core import stored_strings
from metarec_jax.core.stored_strings import StoredStrings

WORDS = tuple(f"ü{n}" for n in range(23))
READS = {
    "length": len,
    "one": lambda x: x[4],
    "a number of NumPy": lambda x: x[np.int32(4)],
    "the last": lambda x: x[-1],
    "a slice": lambda x: tuple(x[3:17]),
    "an empty slice": lambda x: tuple(x[5:2]),
    "every other": lambda x: tuple(x[::-2]),
    "all": tuple,
    "place": lambda x: x.index("ü9"),
    "membership": lambda x: ("ü9" in x, "u" in x),
    "equality": lambda x: (x == WORDS, x == WORDS[:-1], x == (*WORDS[:-1], "x"), x != WORDS, x == list(WORDS)),
}


@pytest.fixture
def stored(monkeypatch):
    monkeypatch.setattr(stored_strings, "_AT_ONCE", 5)
    return StoredStrings(pa.chunked_array([WORDS[:10], WORDS[10:]], pa.large_string()))


@pytest.mark.parametrize("read", READS)
def test_they_read_as_a_tuple(stored, read):
    assert READS[read](stored) == READS[read](WORDS)


@pytest.mark.parametrize("number", [23, -24])
def test_strings_that_are_not_there_are_refused(stored, number):
    with pytest.raises(IndexError):
        stored[number]


def test_they_have_no_hash(stored):
    with pytest.raises(TypeError, match="unhashable"):
        hash(stored)
