"""Area under the ROC curve: the probability that a pair is ranked in the right order; a tied pair counts half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

PAIRS_AT_ONCE = 4_000_000  # bounds the memory of the [users, query, query] comparison


def user_auc(
    score: Float[np.ndarray, "users query"],
    label: Float[np.ndarray, "users query"],
    mask: Bool[np.ndarray, "users query"],
) -> tuple[Float[np.ndarray, " users"], Float[np.ndarray, " users"]]:
    """Share of each user's pairs of unequal labels that `score` puts in the right order.

    With labels 0 and 1 this is the usual AUC; with ratings, every pair of unequal ratings counts the same.

    Args:
        score: the predictions.
        label: ratings, or 0 and 1.
        mask: False in padded slots.

    Returns:
        [users] share (0 where a user has no such pair), and [users] number of pairs.
    """
    users, query = score.shape
    right, pairs = np.zeros(users), np.zeros(users)
    step = max(1, PAIRS_AT_ONCE // max(1, query * query))
    for first in range(0, users, step):
        part = slice(first, first + step)
        s, y, m = score[part], label[part], mask[part]
        better = (y[:, :, None] > y[:, None, :]) & m[:, :, None] & m[:, None, :]
        above = s[:, :, None] > s[:, None, :]
        tied = s[:, :, None] == s[:, None, :]
        pairs[part] = better.sum(axis=(1, 2))
        right[part] = (better & above).sum(axis=(1, 2)) + 0.5 * (better & tied).sum(axis=(1, 2))
    return np.divide(right, pairs, out=np.zeros(users), where=pairs > 0), pairs


class LikedScores(NamedTuple):
    """Scores of the liked rows and of the other rows; `merge_scores` joins batches."""

    liked: Float[np.ndarray, " rows"]
    other: Float[np.ndarray, " rows"]


def merge_scores(parts: Sequence[LikedScores]) -> LikedScores:
    """Concatenate the rows of several batches."""
    return LikedScores(np.concatenate([p.liked for p in parts]), np.concatenate([p.other for p in parts]))


def global_auc(scores: LikedScores) -> float:
    """Probability that a liked row scores above a row that is not liked, over the rows of all users; ties half.

    Most pairs are of different users, so report it together with the per-user AUC. Exact, in O(rows log rows).
    NaN where all rows are liked, or none.
    """
    if len(scores.liked) == 0 or len(scores.other) == 0:
        return float("nan")
    other = np.sort(scores.other)
    below = np.searchsorted(other, scores.liked, side="left")
    not_above = np.searchsorted(other, scores.liked, side="right")
    return float((below.sum() + not_above.sum()) / (2 * len(other) * len(scores.liked)))
