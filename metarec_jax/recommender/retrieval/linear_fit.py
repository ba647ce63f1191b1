"""The linear part of an adapted model: a least-squares fit of one user's scores to the vectors of items."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from metarec_jax.recommender.retrieval.vectors import Vectors

_RIDGE = 1e-4
"""Ridge penalty per row of the sample, in units of standardised columns."""


class LinearFit:
    """Fits scores of a fixed sample of items, linearly in their vectors.

    Where the model's score is linear in the vectors, as the prior path with item factors is, the fit is the model. What
    a network adds is fitted as far as it is linear in the directions of the text.

    Args:
        vectors: the vectors of all items.
        rows: int [sample], the sample.
    """

    def __init__(self, vectors: Vectors, rows: Int[np.ndarray, " sample"]):
        self.rows = rows
        columns = np.asarray(vectors[rows], np.float64)
        columns = columns - columns.mean(axis=0)
        spread = columns.std(axis=0)
        spread[~(spread > 0)] = 1.0
        columns /= spread
        normal = columns.T @ columns + _RIDGE * len(rows) * np.eye(columns.shape[1])
        self._solve = np.linalg.solve(normal, columns.T) / spread[:, None]

    def query(self, scores: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " columns"]:
        """Compute the vector whose products with the vectors of items are closest to a user's scores, up to a constant.

        Args:
            scores: scores of the items of the sample.

        Returns:
            float64 [columns].
        """
        scores = np.asarray(scores, np.float64)
        return self._solve @ (scores - scores.mean())
