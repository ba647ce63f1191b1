"""Batches for the training loop: a grain iterator over batches of episodes that can be saved and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from metarec_jax.core.types import Episodes

if TYPE_CHECKING:
    import grain


@runtime_checkable
class EpisodeBatches(Protocol):
    """Batches of episodes for all epochs, by their number: `EpisodeSource`, or a sampler of another kind."""

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        ...

    def __len__(self) -> int:
        """Batches of all epochs."""
        ...

    @property
    def users_per_batch(self) -> int:
        """Users of a batch, with those of weight 0 that fill it up."""
        ...

    def __getitem__(self, index: int) -> Episodes:
        """Batch `index` as numpy arrays."""
        ...

    def part(self, index: int, places: np.ndarray) -> Episodes:
        """Make a part of a batch.

        Args:
            index: number of the batch.
            places: int [n], places in the batch, ascending; behind its last user are ones of weight 0.

        Returns:
            The users at these places.
        """
        ...

    def users_in(self, index: int) -> np.ndarray:
        """Rows of the users of batch `index`, without those of weight 0."""
        ...


@runtime_checkable
class Numbered(Protocol):
    """Anything that is found by its number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def training_iterator(source: Numbered, *, threads: int = 2, ahead: int = 8) -> grain.DatasetIterator:
    """Iterate over the batches of all epochs in order.

    Args:
        source: the batches, by number.
        threads: number of threads that make batches.
        ahead: number of batches that are prefetched.

    Returns:
        An iterator whose state (``get_state``, ``set_state``) resumes it at the next batch.
    """
    import grain  # takes as long to import as JAX, and only training needs it

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))
