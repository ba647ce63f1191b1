"""Vectors in memory, and the answer that an exact index has to give."""

import numpy as np


class InMemory:
    """An array as the vectors of items; it counts the rows that are read."""

    def __init__(self, rows):
        self.rows, self.read = np.asarray(rows, np.float32), 0

    @property
    def width(self):
        return self.rows.shape[1]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, rows):
        self.read += len(rows)
        return self.rows[rows]


def drawn(count, width=12, seed=0, spread=1.0):
    """Columns of very different means and sizes, as an item's mean and its factors have."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) * spread + rng.normal(size=width) * 10).astype(np.float32)


def queries(width, number=5, seed=1):
    return np.random.default_rng(seed).normal(size=(number, width))


def sorted_rows(vectors, query, count, allowed=None, without=()):
    """Rows of the highest products, by sorting all of them in float64."""
    scores = vectors.astype(np.float64) @ query
    may = np.ones(len(vectors), bool) if allowed is None else allowed.copy()
    may[np.asarray(without, int)] = False
    rows = np.flatnonzero(may)
    return rows[np.lexsort((rows, -scores[rows]))][:count]
