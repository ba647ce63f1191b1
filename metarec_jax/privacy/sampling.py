"""Batches for which users are sampled independently (Poisson sampling), as the privacy accounting assumes."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from metarec_jax.core.types import Episodes
from metarec_jax.data.episodes import EpisodeSource, filled


@dataclasses.dataclass(frozen=True, eq=False)
class PoissonSource:
    """A source that includes each user in each batch with the same probability, independently (Poisson sampling).

    The users of a batch are drawn from a separate seed, which must be kept secret. All batches are padded to the size
    of the largest one, which depends only on this seed. All supports are padded to the last bucket.

    Args:
        episodes: source of the users' episodes.
        rate: probability of a user to be in a batch.
        seed: secret seed of the draws of users, as for `numpy.random.default_rng`.
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
        """Number of users of every batch, including padding."""
        return max(1, max((self._count(index) for index in range(len(self))), default=1))

    @property
    def users_per_batch(self) -> int:
        """The same as `size`."""
        return self.size

    def __getitem__(self, index: int) -> Episodes:
        """Batch `index` as numpy arrays."""
        return self.part(index, np.arange(self.size))

    def part(self, index: int, places: np.ndarray) -> Episodes:
        """Make a part of a batch.

        Args:
            index, places: as for `EpisodeSource.part`.

        Returns:
            The users at these places.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        members = self.members(index)
        own = members[places[places < len(members)]]
        return filled(self.episodes.chosen(index // self.batches, own), len(places))

    def users_in(self, index: int) -> np.ndarray:
        """Rows of the data set's users in batch `index`."""
        return self.episodes.histories.users[self.members(int(index))]

    def members(self, index: int) -> np.ndarray:
        """int64 [n], the users of batch `index`."""
        everyone = len(self.episodes.histories.users)
        return np.sort(self._rng(index, 1).choice(everyone, self._count(index), replace=False))

    def users_of(self, episodes: Episodes) -> np.ndarray:
        """Rows of the data set's users, as from `EpisodeSource.users_of`."""
        return self.episodes.users_of(episodes)

    def _count(self, index: int) -> int:
        """Number of users of a batch, binomial; drawing the number and then the users equals a draw for each user."""
        return int(self._rng(index, 0).binomial(len(self.episodes.histories.users), self.rate))

    def _rng(self, index: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, index, purpose])
