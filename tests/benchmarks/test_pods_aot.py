"""Steps of pods are compiled, and say what they hold and send."""

import pytest

from benchmarks import pods_aot
from metarec_jax.train.frozen_program import MOST_BYTES


@pytest.mark.slow
def test_embeddings_of_ten_million_items_are_on_no_device():
    row = pods_aot.compile_case(pods_aot.Case(10_000_000, trained=False), "here", users=4)
    assert row["fits"]
    assert row["arguments"] < 0.01 * MOST_BYTES
    assert pods_aot.line(row).startswith("| here | 10,000,000 | no |")
