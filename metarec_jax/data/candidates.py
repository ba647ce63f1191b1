"""Items beside the targets of a query, so that the outer loss of clicks compares a target with the whole catalogue.

A softmax over the catalogue is estimated from a sample, in which an item drawn with probability ``q`` of ``n`` draws
weighs ``1 / (n q)`` (Bengio & Senécal 2008, "Adaptive importance sampling to accelerate training of a neural
probabilistic language model"; in terms of scores, the correction ``-log q``). A catalogue of few items is taken whole.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from metarec_jax.core.types import Rows

MOST = 2048
"""Candidates of a batch; a catalogue of at most so many items is taken whole."""
_POWER = 0.75
"""A candidate is drawn in proportion to this power of its clicks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """The items of lists, and how candidates are drawn from them.

    Attributes:
        items: int32 [items], in ascending order.
        chance: float64 [items], probability of each; None takes all.
        seed: seed of the draws.
    """

    items: np.ndarray
    chance: np.ndarray | None
    seed: int

    def draw(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the candidates of a batch.

        Args:
            batch: number of the batch.

        Returns:
            Items, int32 [candidates], and the weight of each, float32.
        """
        if self.chance is None:
            return self.items, np.ones(len(self.items), np.float32)
        rng = np.random.default_rng([self.seed, 6, batch])
        place = np.searchsorted(self._edges, rng.random(MOST), side="right").clip(max=len(self.items) - 1)
        return self.items[place], (1 / (MOST * self.chance[place])).astype(np.float32)

    @functools.cached_property
    def _edges(self) -> np.ndarray:
        return np.cumsum(np.zeros(0) if self.chance is None else self.chance)


def candidates_of(count: np.ndarray, seed: int, among: np.ndarray | None = None) -> Candidates:
    """Make candidates.

    Args:
        count: [items], training clicks of each item.
        seed: seed of the draws.
        among: bool [items], the items to draw from; None takes those with clicks, or all where none has any.

    Returns:
        The candidates.
    """
    count = np.asarray(count, np.float64)
    among = (count > 0 if count.any() else np.ones(len(count), bool)) if among is None else among
    items = np.flatnonzero(among).astype(np.int32)
    if len(items) <= MOST:
        return Candidates(items, None, seed)
    chance = np.maximum(count[items], 1.0) ** _POWER
    return Candidates(items, chance / chance.sum(), seed)


def beside(
    candidates: tuple[np.ndarray, np.ndarray], owner: np.ndarray, taken: np.ndarray, users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Give every user of a batch the same candidates, without those that the user has interacted with.

    Args:
        candidates: from `Candidates.draw`.
        owner, taken: int [rows], user in the batch and item of each interaction.
        users: number of users of the batch.

    Returns:
        Items, int32 [users, candidates], and weights, float32, 0 for a user's own items.
    """
    item, weight = candidates
    width = int(max(item.max(initial=0), taken.max(initial=0))) + 1
    keys = np.arange(users)[:, None] * width + item[None].astype(np.int64)
    own = np.isin(keys, owner.astype(np.int64) * width + taken)
    return np.broadcast_to(item, own.shape), np.where(own, 0, weight).astype(np.float32)


def joined_rows(targets: Rows, others: Rows) -> Rows:
    """Append rows to those of a query.

    Args:
        targets, others: arrays with axes of users and rows.

    Returns:
        The rows of both.
    """
    return Rows(*(np.concatenate(pair, axis=1) for pair in zip(targets, others)))
