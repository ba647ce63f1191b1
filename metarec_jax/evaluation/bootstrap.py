"""Paired bootstrap over users: intervals for the difference between two methods.

Both methods are evaluated on the same users, so each resample takes the values of both for the users that it draws, and
the variance between users cancels. With several seeds the same user can be a test user more than once: all of a user's
rows are drawn together (a cluster bootstrap), and the metric is computed for each seed and averaged over seeds, as the
means of a table are.

Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals, section 13.3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

DRAWS_AT_ONCE = 4_000_000  # bounds the memory of the [samples, users] draws


class Interval(NamedTuple):
    """A difference between two methods, first minus second, with an interval.

    Attributes:
        difference: difference of the metric on the observed users.
        low, high: percentile interval. It covers the choice of test users, and the choice of training users and
            initial parameters as far as the seeds vary them.
        p: two-sided p-value: twice the share of resamples on the other side of zero.
        level: nominal coverage of the interval.
        users: number of distinct users with weight.
        samples: number of resamples.
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
    """Interval for f(weighted mean of `a`) - f(weighted mean of `b`), averaged over strata, by resampling users.

    Args:
        a, b: values of the two methods, one row per user and seed.
        weights: weights of the rows, the same for both methods; rows of weight 0 do not count.
        groups: the user of each row; all rows of a user are drawn together. None: each row is a user.
        strata: the seed of each row; the metric is computed in each stratum and averaged. None: one stratum.
        transform: f; `np.sqrt` for RMSE, the identity where None.
        samples: number of resamples.
        seed: seed of the draws; equal arguments give equal intervals.
        level: nominal coverage of the interval.

    Returns:
        The interval; all NaN where no row has weight.
    """
    resampled = Resampling(weights, groups=groups, strata=strata, samples=samples, seed=seed)
    return resampled.difference(resampled.means(a), resampled.means(b), transform=transform, level=level)


class Resampling:
    """Resamples of users, drawn once for all methods that are compared on these users.

    The means of a method in all resamples are also computed only once, for comparisons with any number of methods.

    Args:
        weights, groups, strata, samples, seed: as in `paired_bootstrap`.
    """

    def __init__(
        self,
        weights: Float[np.ndarray, " rows"],
        *,
        groups: Shaped[np.ndarray, " rows"] | None = None,
        strata: Shaped[np.ndarray, " rows"] | None = None,
        samples: int = 2000,
        seed: int = 0,
    ) -> None:
        self._real = weights > 0
        self._weights = np.asarray(weights, dtype=np.float64)[self._real]
        rows = len(self._weights)
        _, self._group = np.unique(np.arange(rows) if groups is None else groups[self._real], return_inverse=True)
        _, self._stratum = np.unique(np.zeros(rows, int) if strata is None else strata[self._real], return_inverse=True)
        self.users = int(self._group.max(initial=-1)) + 1
        self.samples, self._seed = samples, seed
        if self.users:
            self._weight = self._totals(np.ones(rows))

    def means(self, values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "draws strata"]:
        """Weighted means of `values` in each stratum, for the observed users and then for every resample; 0 in a
        stratum without users."""
        if not self.users:
            return np.zeros((1, 1))
        total = self._totals(np.asarray(values, dtype=np.float64)[self._real])
        return np.divide(total, self._weight, out=np.zeros_like(total), where=self._weight > 0)

    def difference(
        self,
        ours: Float[np.ndarray, "draws strata"],
        theirs: Float[np.ndarray, "draws strata"] | None,
        *,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        level: float = 0.95,
    ) -> Interval:
        """Interval of f(ours) - f(theirs), averaged over strata; of f(ours) where `theirs` is None.

        Args:
            ours, theirs: from `means`.
            transform, level: as in `paired_bootstrap`.

        Returns:
            The interval; all NaN without users.
        """
        if not self.users:
            return Interval(math.nan, math.nan, math.nan, math.nan, level, 0, self.samples)
        f = transform or (lambda mean: mean)
        exists = self._weight > 0  # a resample can have no user of a small stratum: the mean is over the others
        gap = np.where(exists, f(ours) - (0.0 if theirs is None else f(theirs)), 0.0)
        observed, *_ = found = gap.sum(axis=1) / np.maximum(exists.sum(axis=1), 1)
        drawn = found[1:]
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
        p = min(1.0, 2 * (tail + 1) / (self.samples + 1))
        return Interval(float(observed), float(low), float(high), float(p), level, self.users, self.samples)

    def error(self, means: Float[np.ndarray, "draws strata"]) -> float:
        """Compute the standard error of a mean, averaged over strata: its s.d. over the resamples.

        Args:
            means: from `means`.

        Returns:
            The standard error; NaN without users.
        """
        if not self.users:
            return math.nan
        exists = self._weight > 0
        drawn = np.where(exists, means, 0.0).sum(axis=1) / np.maximum(exists.sum(axis=1), 1)
        return float(drawn[1:].std())

    def _totals(self, values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "draws strata"]:
        """Sum of weight times value over the observed users, and over every resample (a vector of counts)."""
        cells = _cells(values * self._weights, self._group, self._stratum)
        draws = _draws(self._seed, self.samples, self.users, max(1, DRAWS_AT_ONCE // self.users))
        return np.concatenate([np.ones((1, self.users)) @ cells, *(part.astype(np.float64) @ cells for part in draws)])


def _cells(value, group, stratum) -> Float[np.ndarray, "users strata"]:
    shape = (group.max() + 1, stratum.max() + 1)
    return np.bincount(group * shape[1] + stratum, weights=value, minlength=shape[0] * shape[1]).reshape(shape)


@functools.lru_cache(maxsize=4)
def _draws(seed: int, samples: int, users: int, step: int) -> tuple[UInt8[np.ndarray, "samples users"], ...]:
    """How often each user is drawn in each of `samples` resamples with replacement, in arrays of `step` resamples.

    Cached, since all metrics and methods of a table use the same draws. Counts are about Poisson(1), so that uint8
    holds them.
    """
    rng = np.random.default_rng(seed)
    return tuple(_draw(rng, min(step, samples - first), users) for first in range(0, samples, step))


def _draw(rng: np.random.Generator, samples: int, users: int) -> UInt8[np.ndarray, "samples users"]:
    chosen: Int[np.ndarray, "samples users"] = rng.integers(users, size=(samples, users))
    flat = (chosen + users * np.arange(samples)[:, None]).ravel()
    return np.bincount(flat, minlength=samples * users).reshape(samples, users).astype(np.uint8)


def pair_bootstrap(
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval for the AUC over the rows of all users together, whose pairs can be of two users.

    Users are drawn as in `paired_bootstrap`; the weight of a pair is the product of how often its two users are drawn.
    Pairs are not enumerated: rows are sorted once, and each resample takes cumulative sums over them.

    Args:
        parts: for each stratum: scores [rows], which rows are liked (bool [rows]), and users [rows]. The AUC is
            averaged over strata.
        samples, seed, level: as in `paired_bootstrap`.

    Returns:
        The interval, without a p-value; NaN where there is no pair.
    """
    everyone = np.unique(np.concatenate([users for _, _, users in parts]))
    ranked = [_ranked(score, liked, np.searchsorted(everyone, users)) for score, liked, users in parts]

    def share(counts: Shaped[np.ndarray, "samples users"]) -> Float[np.ndarray, " samples"]:
        total, strata = np.zeros(len(counts)), np.zeros(len(counts))
        for liked, other, ends in ranked:
            first, second = counts[:, liked].astype(np.float64), counts[:, other]
            below = np.pad(np.cumsum(second, axis=1, dtype=np.float64), [(0, 0), (1, 0)])
            possible = first.sum(axis=1) * below[:, -1]
            won = sum((first * below[:, end]).sum(axis=1) for end in ends) / 2
            total += np.divide(won, possible, out=np.zeros(len(counts)), where=possible > 0)
            strata += possible > 0  # the mean is over strata that have a pair
        return np.divide(total, strata, out=np.full(len(counts), np.nan), where=strata > 0)

    observed = float(share(np.ones((1, len(everyone)), np.uint8))[0])
    step = max(1, DRAWS_AT_ONCE // max(len(score) for score, _, _ in parts))
    drawn = np.concatenate([share(part) for part in _draws(seed, samples, len(everyone), step)])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(observed, math.nan, math.nan, math.nan, level, len(everyone), samples)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(observed, float(low), float(high), math.nan, level, len(everyone), samples)


def _ranked(
    score: Float[np.ndarray, " rows"], liked: Bool[np.ndarray, " rows"], user: Int[np.ndarray, " rows"]
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Sort rows for the AUC.

    Returns:
        Users of liked rows; users of other rows, by ascending score; and for each liked row the number of other rows
        with a lower score, and with a score that is not higher.
    """
    order = np.argsort(score[~liked], kind="stable")
    other = score[~liked][order]
    below, not_above = (np.searchsorted(other, score[liked], side=side) for side in ("left", "right"))
    return user[liked], user[~liked][order], (below, not_above)
