"""The benchmark of new items' first ratings, on a small run's data."""

import numpy as np
from trained import believing_run

from benchmarks import new_items
from metarec_jax.train import run_folder


def test_what_ratings_are_worth_is_compared():
    rows = new_items.measure(run_folder.open_run(believing_run()).config, [0, 1], ratings=(0, 3), often=5)
    assert [(row.case, row.contender) for row in rows] == [
        ("0 ratings", new_items.RULE),
        ("0 ratings", new_items.ANEW),
        ("beyond the text", "none, against 3"),
        ("3 ratings", new_items.RULE),
        ("3 ratings", new_items.ANEW),
    ]
    assert all(np.isfinite([row.ours, row.theirs]).all() for row in rows)
    before, after = rows[2].theirs, rows[2].ours
    assert (rows[0].ours, rows[3].ours) == (before, after)
    assert before != after
    assert rows[1].theirs == rows[4].theirs, "what all ratings say does not depend on how many came"
