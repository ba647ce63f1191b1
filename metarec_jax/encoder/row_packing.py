"""Packing of texts into rows of few lengths, several texts to a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.encoder.padding import LENGTHS, bucket

SAMPLE = 4096
"""Greatest number of texts on which row lengths are compared."""


SIMILAR = 0.03
"""Relative difference of costs up to which the estimate does not tell choices apart."""

CALLS, FEW = 16, 512
"""Least number of calls of a step, since the last is half empty in the mean; and number of tokens below which calls are
not made smaller for that."""


class Plan(NamedTuple):
    """The shapes of rows, for each kind of row, shortest rows first.

    Attributes:
        lengths: tokens of a row.
        texts: greatest number of texts of a row.
        per_call: rows that are encoded at the same time.
    """

    lengths: tuple[int, ...]
    texts: tuple[int, ...]
    per_call: tuple[int, ...]


class Packing(NamedTuple):
    """Rows of texts.

    Attributes:
        row: int64 [texts], row of each text.
        kind: int64 [rows], kind of each row.
    """

    row: np.ndarray
    kind: np.ndarray


def pack_rows(sizes: np.ndarray, lengths: Sequence[int], *, alone: bool = False) -> Packing:
    """Pack texts into rows: each row begins with the longest text that is left, and is filled as far as texts go.

    What fills a row is found for numbers of texts by size, and repeated while there are enough of each (Krell et al.
    2021, arXiv 2107.02027, pack such histograms too). A row has the least length that holds its first text. Of two rows
    of one length, at most one is half empty.

    Args:
        sizes: int [texts], tokens of each text, at least 1 and at most the greatest of `lengths`.
        lengths: tokens of a row of each kind, ascending.
        alone: whether each text has its own row.

    Returns:
        The rows.

    >>> pack_rows(np.array([3, 5, 2, 6]), (8,)).row.tolist()
    [1, 1, 0, 0]
    """
    if alone:
        return Packing(np.arange(len(sizes)), np.searchsorted(lengths, sizes))
    row, kinds = np.zeros(len(sizes), np.int64), []
    left = {size: np.flatnonzero(sizes == size) for size in np.unique(sizes)[::-1].tolist()}
    while left:
        longest = next(iter(left))
        kind = int(np.searchsorted(lengths, longest))
        left[longest], first = left[longest][1:], left[longest][:1]
        taken = _filling(lengths[kind] - longest, {size: len(texts) for size, texts in left.items()})
        left[longest] = np.concatenate([first, left[longest]])
        taken[longest] = taken.get(longest, 0) + 1
        times = min(len(left[size]) // count for size, count in taken.items())
        for size, count in taken.items():
            row[left[size][: times * count]] = len(kinds) + np.arange(times * count) // count
            left[size] = left[size][times * count :]
            if not len(left[size]):
                del left[size]
        kinds += [kind] * times
    return Packing(row, np.array(kinds, np.int64))


def _filling(room: int, counts: dict[int, int]) -> dict[int, int]:
    """Numbers of texts of each size that fill some room as far as possible, of the longest sizes that do.

    Args:
        room: tokens.
        counts: number of texts of each size, longest first.
    """
    reached, steps, within = 1, [], (1 << room + 1) - 1  # bit n: n tokens can be filled
    for size, count in counts.items():
        steps.append((size, reached))
        for _ in range(min(count, room // size)):
            reached |= (reached << size) & within
        if reached >> room:
            break
    filled, taken = reached.bit_length() - 1, {}
    for size, before in reversed(steps):
        while not before >> filled & 1:
            filled -= size
            taken[size] = taken.get(size, 0) + 1
    return taken


def plan_rows(
    sizes: np.ndarray,
    most: int,
    *,
    tokens_per_call: int,
    shortest_row: int,
    width: int,
    calls: int = CALLS,
    split: int = 1,
) -> Plan:
    """Choose one or two lengths of rows that hold several texts.

    Texts of one step are packed into rows of each possible choice. The cost of a row is taken as tokens times (1 +
    tokens / `width`): attention computes all pairs of a row's tokens, and on a CPU takes about such a share of the time
    of the other products. Of choices that differ by at most `SIMILAR` in cost, the one with the fewest tokens is taken.

    Args:
        sizes: int [texts], tokens of each text, at least 1.
        most: greatest number of texts of a step.
        tokens_per_call: greatest number of tokens of a call; a call has at least one row.
        shortest_row: least number of tokens of a row.
        width: hidden size of the encoder.
        calls: least number of calls of a step, as far as each has `FEW` tokens.
        split: divisor of the number of rows of a call.

    Returns:
        The shapes.
    """
    count = min(len(sizes), most, SAMPLE)
    drawn = np.sort(sizes)[np.linspace(0, len(sizes) - 1, count).astype(np.int64)]  # as a step's texts are distributed
    longest = int(sizes.max())
    least = max(longest, shortest_row)
    longs = [length for length in LENGTHS if length >= least][:4] or [bucket(least, 2 * least)]
    choices = [(long,) for long in longs]
    choices += [(short, long) for long in longs for short in LENGTHS if shortest_row <= short < longest]

    def tried(lengths: tuple[int, ...]) -> tuple[float, float, Plan]:
        rows = np.bincount(pack_rows(drawn, lengths).kind, minlength=len(lengths)).tolist()
        most_of_call = [
            min(tokens_per_call // length, max(FEW // length, -(-n // calls))) for n, length in zip(rows, lengths)
        ]
        per_call = tuple(_evenly(n, of_call, split) for n, of_call in zip(rows, most_of_call))
        # Half of the last call is empty in the mean.
        tokens = [(n + of_call / 2) * length for n, of_call, length in zip(rows, per_call, lengths)]
        cost = sum(number * (1 + length / width) for number, length in zip(tokens, lengths))
        return cost, sum(tokens), Plan(lengths, tuple(length // int(sizes.min()) for length in lengths), per_call)

    found = [tried(lengths) for lengths in choices]
    least_cost = min(cost for cost, _, _ in found)
    return min((tokens, plan) for cost, tokens, plan in found if cost <= (1 + SIMILAR) * least_cost)[1]


def plan_alone(sizes: np.ndarray, most: int, *, tokens_per_call: int, limit: int, split: int = 1) -> Plan:
    """Choose lengths of rows that hold one text each, for attention that does not separate the texts of a row.

    Texts of a length that do not fill one call are padded to the next length, since each length is compiled separately.

    Args:
        sizes, most, tokens_per_call, split: as for `plan_rows`.
        limit: greatest number of tokens of a row.

    Returns:
        The shapes.
    """
    present, counts = np.unique([bucket(int(size), limit) for size in sizes], return_counts=True)
    kept: dict[int, int] = {}
    waiting = 0
    for length, count in zip(present.tolist(), counts.tolist()):
        waiting += count
        if waiting * length >= tokens_per_call or length == present[-1]:
            kept[length], waiting = min(waiting, most), 0
    calls = [_evenly(rows, tokens_per_call // length, split) for length, rows in kept.items()]
    return Plan(tuple(kept), (1,) * len(kept), tuple(calls))


def most_rows(sizes: np.ndarray, plan: Plan, most: int) -> list[int]:
    """Greatest number of rows of each kind that `pack_rows` makes of any `most` of the texts, in whole calls.

    Args:
        sizes: int [texts], tokens of each text.
        plan: the shapes.
        most: greatest number of texts.

    Returns:
        The numbers.
    """
    found, kind_of = [], np.searchsorted(plan.lengths, sizes)
    tokens = int(np.sort(sizes)[::-1][:most].sum())
    for kind, (length, texts, per_call) in enumerate(zip(*plan)):
        rows = min(int((kind_of == kind).sum()), most)  # only these texts begin such rows
        if texts > 1:  # two rows that are half empty would be one
            rows = min(rows, 2 * tokens // length + 1)
        found.append(-(-rows // per_call) * per_call)
    return found


def _evenly(rows: int, most: int, split: int) -> int:
    """Rows of a call if they are spread evenly over as few calls of at most `most` rows as possible."""
    calls = -(-rows // max(most, 1))
    return -(-max(-(-rows // max(calls, 1)), 1) // split) * split
