"""How much an evaluation computes: candidates on validation users, resamples of test users, plots."""

from __future__ import annotations

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class Budget:
    """Candidates of every method that is tuned on validation users, and the size of the bootstrap.

    Attributes:
        fine_tuning: (steps, rate) pairs that the fine-tuned twin chooses from.
        item_shrinks, user_shrinks: prior counts of item means and user biases, in ratings.
        penalties: penalties of the per-user ridge regression.
        samples: resamples of the bootstrap.
        plots: whether plots are drawn.
    """

    fine_tuning: tuple[tuple[int, float], ...] = tuple(itertools.product((1, 5, 20), (0.03, 0.1, 0.3, 1.0, 3.0)))
    item_shrinks: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0)
    user_shrinks: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    penalties: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    samples: int = 2000
    plots: bool = True


FULL = Budget()
"""The budget of every published table."""
