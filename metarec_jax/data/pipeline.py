"""Batches for the training loop: a grain iterator over a source of batches that can be saved and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metarec_jax.core.types import Episodes

if TYPE_CHECKING:
    import grain


def training_iterator(
    source: grain.sources.RandomAccessDataSource[Episodes], *, threads: int = 2, ahead: int = 8
) -> grain.DatasetIterator:
    """Iterate over the batches of all epochs in order.

    Args:
        source: batches by number, such as `metarec_jax.data.episodes.EpisodeSource`.
        threads: threads that make batches.
        ahead: batches that are made before they are asked for.

    Returns:
        An iterator whose ``get_state`` and ``set_state`` continue it at the next batch.
    """
    import grain  # takes as long to import as JAX, and only training needs it

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))
