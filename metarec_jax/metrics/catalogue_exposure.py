"""What lists drawn from the whole catalogue show: how much of it, how novel, and how popular.

As in `metarec_jax.metrics.catalogue_ranking`, ties are broken uniformly at random and figures are expectations over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

NAMES = ("coverage", "novelty", "popularity")
"""Names of figures; each has a cutoff, such as "novelty@20"."""


class Exposure(NamedTuple):
    """What the lists of some users show.

    Attributes:
        novelty: float64 [users], mean over the list of ``-log2((clicks + 1) / (users + 1))``: the information, in bits,
            in the event that a training user clicked the item (Vargas & Castells 2011).
        popularity: float64 [users], mean over the list of the share of training users who clicked the item.
        missing: float64 [items], logarithm of the probability that no list has the item.
    """

    novelty: np.ndarray
    popularity: np.ndarray
    missing: np.ndarray

    @property
    def coverage(self) -> float:
        """Expected share of the items that at least one list has."""
        return float(np.mean(-np.expm1(self.missing)))


def top_chance(scores: Float[np.ndarray, " n"], k: int) -> Float[np.ndarray, " n"]:
    """Compute the probability that each candidate is among the first k.

    Args:
        scores: scores of the candidates.
        k: length of the list.

    Returns:
        float64 [n]; the sum is min(k, n).
    """
    if k >= len(scores):
        return np.ones(len(scores))
    last = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, tied = scores > last, scores == last
    return above + tied * ((k - above.sum()) / tied.sum())


def exposure(
    scores: Float[np.ndarray, "users items"],
    shown: Sequence[np.ndarray],
    clicks: Float[np.ndarray, " items"],
    training_users: int,
    k: int,
) -> Exposure:
    """Compute what the lists of some users show.

    Args:
        scores: scores of all items.
        shown: int [shown] for each user, items that are no candidates.
        clicks: number of training users who clicked each item.
        training_users: number of training users.
        k: length of the lists.

    Returns:
        The figures; `Exposure.missing` of several groups of users add up.
    """
    bits = -np.log2((clicks + 1) / (training_users + 1))
    share = clicks / max(training_users, 1)
    novelty, popularity, missing = np.zeros(len(scores)), np.zeros(len(scores)), np.zeros(scores.shape[1])
    for user, (row, hidden) in enumerate(zip(scores, shown)):
        left = np.ones(len(row), bool)
        left[hidden] = False
        chance = np.zeros(len(row))
        chance[left] = top_chance(row[left], k)
        listed = max(chance.sum(), 1)
        novelty[user], popularity[user] = chance @ bits / listed, chance @ share / listed
        with np.errstate(divide="ignore"):  # an item that is certainly in a list is never missing
            missing += np.log1p(-chance)
    return Exposure(novelty, popularity, missing)
