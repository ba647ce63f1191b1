"""How much an evaluation computes: candidates on validation users, resamples of test users, plots."""

from __future__ import annotations

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class ListBudget:
    """Candidates of every baseline of lists over the catalogue that is tuned on validation users; as many for each.

    Attributes:
        neighbours: (neighbours of an item, shrinkage of similarities in clicks) of item-kNN.
        ridges: ridge of EASE, in clicks.
        weights: (alpha, ridge) of implicit least squares (`metarec_jax.factors.implicit.Penalties`), tried with the
            first of `ranks`; the others are tried with the best of these.
        ranks: numbers of factors of implicit least squares.
        away: weight of the mean of the catalogue that text similarity subtracts.
    """

    neighbours: tuple[tuple[int, float], ...] = tuple(itertools.product((20, 50, 100, 200, 400), (0.0, 10.0, 50.0)))
    ridges: tuple[float, ...] = (
        *(10.0, 20.0, 35.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 400.0),
        *(600.0, 800.0, 1200.0, 2000.0, 4000.0),
    )
    weights: tuple[tuple[float, float], ...] = tuple(itertools.product((0.1, 0.3, 1.0), (0.003, 0.006, 0.012, 0.024)))
    ranks: tuple[int, ...] = (32, 16, 64, 128)
    away: tuple[float, ...] = tuple(n / 10 for n in range(15))

    @property
    def trials(self) -> tuple[int, ...]:
        """Number of candidates of each tuned baseline."""
        return len(self.away), len(self.neighbours), len(self.ridges), len(self.weights) + len(self.ranks) - 1


@dataclasses.dataclass(frozen=True)
class Budget:
    """Candidates of every method that is tuned on validation users, and the size of the bootstrap.

    Attributes:
        fine_tuning: (steps, rate) pairs that the fine-tuned twin chooses from.
        item_shrinks, user_shrinks: prior counts of item means and user biases, in ratings.
        penalties: penalties of the per-user ridge regression.
        lists: candidates of the baselines of lists over the catalogue.
        samples: resamples of the bootstrap.
        plots: whether plots are drawn.
    """

    fine_tuning: tuple[tuple[int, float], ...] = tuple(itertools.product((1, 5, 20), (0.03, 0.1, 0.3, 1.0, 3.0)))
    item_shrinks: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0)
    user_shrinks: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    penalties: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    lists: ListBudget = ListBudget()
    samples: int = 2000
    plots: bool = True


FULL = Budget()
"""The budget of every published table."""
