"""Vectors of items that a linear model of one user's scores reads: statistics, factors and directions of the text."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float16, Int

from metarec_jax.core.types import Params
from metarec_jax.learner.prior import RATINGS
from metarec_jax.recommender.item_table import ItemTable
from metarec_jax.recommender.retrieval.vectors import BLOCK

TEXT_COLUMNS = 32
"""Greatest number of directions of the text embeddings, those of greatest variance."""
_SAMPLE = 8192
"""Number of items from which the directions are computed."""
_PRIOR_COUNT = 5.0
"""Ratings that the mean of all items counts for, for learners that do not learn this."""


class ItemVectors:
    """The vector of an item: mean, variance and factors of its prior path, then directions of its text.

    Without item factors the first two are the shrunk mean rating and the logarithm of the number of ratings. With
    factors of clicks, which have no mean, the first is the logarithm of the number of clicks.

    Args:
        table: the items.
        theta: parameters of the learner.

    Attributes:
        width: number of columns.
    """

    def __init__(self, table: ItemTable, theta: Params):
        self._table = table
        prior = theta.get("prior", {}) if isinstance(theta, dict) else {}
        known = {name: float(prior[name]) for name in ("mean", "log_item_weight") if prior.get(name) is not None}
        some = sample_rows(table.count, _SAMPLE)
        statistic = table.statistic[some]
        mean = float(statistic[:, 0].sum() / max(float(statistic[:, 1].sum()), 1.0))
        self._clicks = "score" in prior
        self._mean, self._weight = known.get("mean", mean), _PRIOR_COUNT
        if "log_item_weight" in known:
            self._weight = float(np.exp(known["log_item_weight"]))
        texts = np.asarray(table.embeddings[some], np.float32)
        self._middle = texts.mean(axis=0)
        centred = texts - self._middle
        values, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
        kept = np.argsort(-values)[:TEXT_COLUMNS]
        kept = kept[values[kept] > 1e-6 * max(float(values.max(initial=0.0)), 1e-30)]
        self._directions = directions[:, kept].astype(np.float32)
        self.width = self._of_statistic(statistic).shape[1] + len(kept)
        self._texts = np.empty((table.count, len(kept)), np.float16)
        for start in range(0, table.count, BLOCK):
            part = slice(start, min(start + BLOCK, table.count))
            self._texts[part] = self._project(table.embeddings[part])

    def __len__(self) -> int:
        return self._table.count

    def __getitem__(self, rows: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some columns"]:
        """The vectors of some rows."""
        added = rows >= len(self._texts)
        texts = self._texts[np.where(added, 0, rows)].astype(np.float32)
        if added.any():
            texts[added] = self._project(self._table.embeddings[rows[added]])
        return np.concatenate([self._of_statistic(self._table.statistic[rows]), texts], axis=1)

    def _project(self, embeddings: Float[np.ndarray, "some hidden"]) -> Float16[np.ndarray, "some kept"]:
        """The text columns. Their float16 values are the vectors, so that embeddings are read once for all queries."""
        return ((np.asarray(embeddings, np.float32) - self._middle) @ self._directions).astype(np.float16)

    def _of_statistic(self, statistic: Float[np.ndarray, "some columns"]) -> Float[np.ndarray, "some kept"]:
        if statistic.shape[1] > RATINGS:
            found = statistic[:, RATINGS:]
            if self._clicks:
                found = np.concatenate([np.log1p(statistic[:, 1:2]), found[:, 1:]], axis=1)
            return found
        total, count = statistic.T
        return np.stack([(total + self._weight * self._mean) / (count + self._weight), np.log1p(count)], axis=1)


def sample_rows(count: int, most: int) -> Int[np.ndarray, " sample"]:
    """Draw up to `most` different rows of `count`, always the same ones, in ascending order.

    Args:
        count: number of rows.
        most: greatest size of the sample.

    Returns:
        int64.
    """
    if count <= most:
        return np.arange(count)
    # One row of each of `most` stretches of equal length: no array of the length of the catalogue.
    ends = np.linspace(0, count, most + 1).astype(np.int64)
    return np.random.default_rng(0).integers(ends[:-1], ends[1:])
