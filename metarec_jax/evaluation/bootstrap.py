"""Paired bootstrap over users: is one method better than another, or were the test users lucky?

Both methods are judged on the same users, so each resample takes both methods' values of the users it draws, and
the spread between users cancels. With several seeds the same user can be a test user more than once: all of a
user's appearances are drawn together (a cluster bootstrap), and the metric is computed seed by seed and averaged,
exactly as the table's means are.

Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals, section 13.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

DRAWS_AT_ONCE = 4_000_000  # bounds the memory of the [samples, users] draws


class Interval(NamedTuple):
    """A difference between two methods, first minus second, and how sure it is.

    Attributes:
        difference: of the metric on the users at hand.
        low, high: percentile interval. It covers the choice of test users, not that of training users or weights,
            beyond what the seeds vary.
        p: two-sided p-value, the share of resamples on the far side of zero, doubled.
        level: coverage that the interval aims at.
        users: distinct users with weight.
        samples: resamples that were drawn.
    """

    difference: float
    low: float
    high: float
    p: float
    level: float
    users: int
    samples: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    a: Float[np.ndarray, " rows"],
    b: Float[np.ndarray, " rows"],
    weights: Float[np.ndarray, " rows"],
    *,
    groups: Shaped[np.ndarray, " rows"] | None = None,
    strata: Shaped[np.ndarray, " rows"] | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval for f(weighted mean of `a`) - f(weighted mean of `b`), averaged over strata, resampling users.

    Args:
        a, b: each method's per-user values, one row for each appearance of a user.
        weights: of the rows, the same for both methods; rows of weight 0 do not count.
        groups: the user of each row; all of a user's rows are drawn together. Each row is a user where None.
        strata: the seed of each row; the metric is computed in each and averaged. One stratum where None.
        transform: f, applied to weighted means; `np.sqrt` for RMSE, identity where None.
        samples: how many resamples.
        seed: of the draws; equal arguments give equal intervals.
        level: coverage of the interval.

    Returns:
        The interval; all NaN where no row has weight.
    """
    real = weights > 0
    a, b, weights = (np.asarray(x, dtype=np.float64)[real] for x in (a, b, weights))
    _, group = np.unique(np.arange(len(a)) if groups is None else groups[real], return_inverse=True)
    _, stratum = np.unique(np.zeros(len(a), int) if strata is None else strata[real], return_inverse=True)
    users = int(group.max(initial=-1)) + 1
    if users == 0:
        nan = float("nan")
        return Interval(nan, nan, nan, nan, level, 0, samples)

    # [users, strata] sums: a resample is then a vector of counts, and everything it needs is three products.
    total_a, total_b, total = (_cells(x, group, stratum) for x in (a * weights, b * weights, weights))
    f = transform or (lambda mean: mean)

    def difference(counts: Float[np.ndarray, "samples users"]) -> Float[np.ndarray, " samples"]:
        weight = counts @ total
        drawn = weight > 0  # a stratum of few users can miss a resample: the others speak for it
        safe = np.where(drawn, weight, 1.0)
        gap = np.where(drawn, f(counts @ total_a / safe) - f(counts @ total_b / safe), 0.0)
        return gap.sum(axis=1) / np.maximum(drawn.sum(axis=1), 1)

    rng = np.random.default_rng(seed)
    step = max(1, DRAWS_AT_ONCE // users)
    drawn = np.concatenate(
        [difference(_draw(rng, min(step, samples - first), users)) for first in range(0, samples, step)]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p = min(1.0, 2 * (tail + 1) / (samples + 1))
    observed = float(difference(np.ones((1, users)))[0])
    return Interval(observed, float(low), float(high), float(p), level, users, samples)


def _cells(value, group, stratum) -> Float[np.ndarray, "users strata"]:
    shape = (group.max() + 1, stratum.max() + 1)
    return np.bincount(group * shape[1] + stratum, weights=value, minlength=shape[0] * shape[1]).reshape(shape)


def _draw(rng: np.random.Generator, samples: int, users: int) -> Float[np.ndarray, "samples users"]:
    """How often each user is drawn, when `users` users are drawn with replacement, `samples` times."""
    chosen: Int[np.ndarray, "samples users"] = rng.integers(users, size=(samples, users))
    flat = (chosen + users * np.arange(samples)[:, None]).ravel()
    return np.bincount(flat, minlength=samples * users).reshape(samples, users).astype(np.float64)


def pair_bootstrap(
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval for a share of pairs of rows that can be of two users, such as the AUC over all rows.

    Users are drawn as in `paired_bootstrap`; a pair counts as often as its first user was drawn times its second.

    Args:
        parts: of each stratum users [n], sums of what the pairs score [n, n] and numbers of pairs [n, n], by the two
            users; the share is the ratio of their totals, averaged over strata.
        samples, seed, level: as in `paired_bootstrap`.
    """
    everyone = np.unique(np.concatenate([users for users, _, _ in parts]))

    def share(counts: Float[np.ndarray, "samples users"]) -> Float[np.ndarray, " samples"]:
        total, strata = np.zeros(len(counts)), np.zeros(len(counts))
        for users, wins, pairs in parts:
            drawn = counts[:, np.searchsorted(everyone, users)]
            won, possible = (((drawn @ matrix) * drawn).sum(axis=1) for matrix in (wins, pairs))
            total += np.divide(won, possible, out=np.zeros(len(counts)), where=possible > 0)
            strata += possible > 0  # a stratum without a pair to count says nothing
        return np.divide(total, strata, out=np.full(len(counts), np.nan), where=strata > 0)

    observed = float(share(np.ones((1, len(everyone))))[0])
    drawn = share(_draw(np.random.default_rng(seed), samples, len(everyone)))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(observed, math.nan, math.nan, math.nan, level, len(everyone), samples)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(observed, float(low), float(high), math.nan, level, len(everyone), samples)
