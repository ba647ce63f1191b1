"""Batches of users that are drawn independently of one another, as the accounting of privacy takes them to be."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from metarec_jax.core.types import Episodes
from metarec_jax.data.episodes import EpisodeSource, filled


@dataclasses.dataclass(frozen=True, eq=False)
class PoissonSource:
    """A source whose every batch holds each user with the same probability, whatever the other users and batches hold.

    Which users a batch holds, and so how many, is drawn from a seed of its own, which must be kept to oneself. As many
    users as the largest batch has are the size of all: a number that depends on nothing but this seed. All supports are
    padded to the last bucket.

    Args:
        episodes: the users, and how their episodes are cut.
        rate: the probability.
        seed: seed of the draws of users, as numbers that `numpy.random.default_rng` takes.
    """

    episodes: EpisodeSource
    rate: float
    seed: tuple[int, ...]

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self.episodes.batches

    def __len__(self) -> int:
        return len(self.episodes)

    @functools.cached_property
    def size(self) -> int:
        """Users of every batch, with those that fill it up."""
        return max(1, max((self._count(index) for index in range(len(self))), default=1))

    def __getitem__(self, index: int) -> Episodes:
        """Batch `index` as numpy arrays."""
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return filled(self.episodes.chosen(index // self.batches, self.members(index)), self.size)

    def members(self, index: int) -> np.ndarray:
        """int64 [n], which of the users batch `index` holds."""
        everyone = len(self.episodes.histories.users)
        return np.sort(self._rng(index, 1).choice(everyone, self._count(index), replace=False))

    def users_of(self, episodes: Episodes) -> np.ndarray:
        """As `EpisodeSource.users_of`."""
        return self.episodes.users_of(episodes)

    def _count(self, index: int) -> int:
        """How many users: that number first, and then which, is the same as asking each user."""
        return int(self._rng(index, 0).binomial(len(self.episodes.histories.users), self.rate))

    def _rng(self, index: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, index, purpose])
