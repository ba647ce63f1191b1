"""Batches for the training loop: a grain iterator over `EpisodeSource` that can be saved and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.privacy.sampling import PoissonSource

if TYPE_CHECKING:
    import grain


def training_iterator(
    source: EpisodeSource | PoissonSource, *, threads: int = 2, ahead: int = 8
) -> grain.DatasetIterator:
    """Iterates over the batches of all epochs in order, made a few batches ahead by `threads` threads.

    The iterator's ``get_state`` and ``set_state`` continue it at the very next batch.
    """
    import grain  # which takes as long as JAX itself, and is wanted for training alone

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))
