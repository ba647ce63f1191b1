"""The best rows by score, without sorting all of them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped


def top_rows(
    scores: Shaped[np.ndarray, " items"], k: int, rows: Int[np.ndarray, " candidates"]
) -> Int[np.ndarray, " found"]:
    """Find the `k` rows with the highest scores.

    Args:
        scores: a finite score of each item.
        k: greatest number of rows to return.
        rows: the candidates, ascending, each once.

    Returns:
        Rows by descending score; the lower row first where scores are equal.
    """
    if k < len(rows):
        of_rows = scores[rows]
        least = np.partition(of_rows, len(rows) - k)[len(rows) - k]
        above = rows[of_rows > least]
        equal = rows[np.flatnonzero(of_rows == least)[: k - len(above)]]
        rows = np.sort(np.concatenate([above, equal]))
    return rows[np.argsort(-scores[rows], kind="stable")]
