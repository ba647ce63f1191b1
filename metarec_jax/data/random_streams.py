"""Numbers of a random stream at any place, without those before: the draws of a few rows of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metarec_jax.core.row_ranges import expand


def random_at(
    seed: Sequence[int], first: np.ndarray, count: np.ndarray, dtype: type[np.floating[Any]] = np.float64
) -> np.ndarray:
    """Draw the numbers of some ranges of the stream of ``np.random.default_rng(seed)``.

    Args:
        seed: seed of the stream.
        first: int [ranges], the place of the first number of each range.
        count: int [ranges], how many.
        dtype: np.float64 for the stream of ``random()``. np.float32 takes every other number of the stream of
            ``random(dtype=np.float32)``, of which two are made from the same random bits: those at even places.

    Returns:
        [sum of `count`], uniform between 0 and 1, one range after the other.
    """
    bits = np.random.PCG64(list(seed))
    rng, place, parts = np.random.Generator(bits), 0, [np.zeros(0, dtype)]
    order = np.argsort(first, kind="stable")
    begin, end = first[order], (first + count)[order]
    fresh = np.flatnonzero(np.append(True, begin[1:] != end[:-1])[: len(begin)])  # ranges that touch are drawn at once
    for start, stop in zip(begin[fresh].tolist(), end[np.append(fresh[1:], len(end))[: len(fresh)] - 1].tolist()):
        bits.advance(start - place)
        narrow = dtype == np.float32
        parts.append(rng.random((stop - start, 2), np.float32)[:, 0] if narrow else rng.random(stop - start))
        place = stop
    drawn = np.concatenate(parts)
    if (order[1:] > order[:-1]).all():
        return drawn
    at = np.empty(len(order), np.int64)
    at[order] = np.cumsum(count[order]) - count[order]
    return drawn[expand(at, count)]
