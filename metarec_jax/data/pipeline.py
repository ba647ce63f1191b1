"""Batches for the training loop: a grain iterator over batches of episodes that can be saved and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

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

    def __getitem__(self, index: int) -> Episodes:
        """Batch `index` as numpy arrays."""
        ...

    def users_of(self, episodes: Episodes) -> np.ndarray:
        """Rows of the users of a batch."""
        ...


def training_iterator(source: EpisodeBatches, *, threads: int = 2, ahead: int = 8) -> grain.DatasetIterator:
    """Iterate over the batches of all epochs in order.

    Args:
        source: the batches.
        threads: that make batches.
        ahead: batches that are made before they are asked for.

    Returns:
        An iterator whose ``get_state`` and ``set_state`` continue it at the very next batch.
    """
    import grain  # which takes as long to import as JAX itself, and only training needs

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))
