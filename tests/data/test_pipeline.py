"""The pipeline returns the source's batches in order, and a restored one continues bitwise."""

import json

import numpy as np
import pytest
from helpers import assert_equal, random_interactions

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.pipeline import training_iterator
from metarec_jax.data.splits import item_statistics


def made():
    data = random_interactions(np.random.default_rng(0), users=30, items=20, least=4, most=14)
    users = np.arange(30)
    config = EpisodeConfig(min_ratings=4, max_ratings=0, query=3, buckets=(2, 5, 8))
    return EpisodeSource(
        histories=histories(data, users),
        config=config,
        statistics=item_statistics(data, users),
        training=True,
        users_per_batch=4,
        seed=7,
        epochs=4,
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_the_order_of_the_source(threads):
    source = made()
    iterator = training_iterator(source, threads=threads)
    found = list(iterator)
    iterator.close()
    assert len(found) == len(source) == 4 * source.batches
    for index, batch in enumerate(found):
        assert_equal(batch, source[index])


@pytest.mark.parametrize("stop", [0, 1, 9, 10, 31])
def test_a_resumed_iterator_goes_on_at_the_very_next_batch(stop):
    """For any number of batches made ahead; the position can be written as JSON and read by another process."""
    source = made()
    iterator = training_iterator(source, ahead=8)
    for _ in range(stop):
        next(iterator)
    position = json.loads(json.dumps(iterator.get_state()))
    next(iterator)  # goes on after it was saved
    iterator.close()

    resumed = training_iterator(made(), ahead=3, threads=1)
    resumed.set_state(position)
    rest = list(resumed)
    resumed.close()
    assert len(rest) == len(source) - stop
    for index, batch in enumerate(rest, start=stop):
        assert_equal(batch, source[index])


def test_a_used_iterator_can_be_set_back():
    source = made()
    iterator = training_iterator(source)
    position = iterator.get_state()
    for _ in range(11):
        next(iterator)
    iterator.set_state(position)
    assert_equal(next(iterator), source[0])
    iterator.close()
