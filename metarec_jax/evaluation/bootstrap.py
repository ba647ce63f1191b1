"""Paired bootstrap over users: is one method better than another, or were the test users lucky?

Both methods are judged on the same users, so each resample takes both methods' values of the users it draws, and
the spread between users cancels. With several seeds the same user can be a test user more than once: all of a
user's appearances are drawn together (a cluster bootstrap), and the metric is computed seed by seed and averaged,
exactly as the table's means are.

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
    resampled = Resampling(weights, groups=groups, strata=strata, samples=samples, seed=seed)
    return resampled.difference(resampled.means(a), resampled.means(b), transform=transform, level=level)


class Resampling:
    """Users drawn with replacement, again and again: once, for all the methods that are compared on these users.

    What a method's values come to in each resample is worked out once, too, however many it is compared with.

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
        """The weighted mean of `values` in each stratum: of the users at hand, then of every resample; 0 where a
        stratum has nobody."""
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
        """
        if not self.users:
            return Interval(math.nan, math.nan, math.nan, math.nan, level, 0, self.samples)
        f = transform or (lambda mean: mean)
        exists = self._weight > 0  # a stratum of few users can miss a resample: the others speak for it
        gap = np.where(exists, f(ours) - (0.0 if theirs is None else f(theirs)), 0.0)
        observed, *_ = found = gap.sum(axis=1) / np.maximum(exists.sum(axis=1), 1)
        drawn = found[1:]
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
        p = min(1.0, 2 * (tail + 1) / (self.samples + 1))
        return Interval(float(observed), float(low), float(high), float(p), level, self.users, self.samples)

    def _totals(self, values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "draws strata"]:
        """Of weight times value, of the users at hand and of every resample: a resample is a vector of counts."""
        cells = _cells(values * self._weights, self._group, self._stratum)
        draws = _draws(self._seed, self.samples, self.users, max(1, DRAWS_AT_ONCE // self.users))
        return np.concatenate([np.ones((1, self.users)) @ cells, *(part.astype(np.float64) @ cells for part in draws)])


def _cells(value, group, stratum) -> Float[np.ndarray, "users strata"]:
    shape = (group.max() + 1, stratum.max() + 1)
    return np.bincount(group * shape[1] + stratum, weights=value, minlength=shape[0] * shape[1]).reshape(shape)


@functools.lru_cache(maxsize=4)
def _draws(seed: int, samples: int, users: int, step: int) -> tuple[UInt8[np.ndarray, "samples users"], ...]:
    """How often each user is drawn, when `users` users are drawn with replacement, `samples` times, `step` at once.

    Kept, since all metrics and methods of a table ask for the same. Nobody is drawn 256 times, of so many users: how
    often is about Poisson(1).
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
    """Interval for the AUC over the rows of all users, whose pairs can be of two users.

    Users are drawn as in `paired_bootstrap`; a pair counts as often as its first user was drawn times its second. No
    pair is written down: rows are sorted once, and each resample counts along them.

    Args:
        parts: of each stratum scores [rows], bool [rows] which are liked, and users [rows]; the AUC is averaged over
            strata.
        samples, seed, level: as in `paired_bootstrap`.
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
            strata += possible > 0  # a stratum without a pair to count says nothing
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
    """Users of liked rows, users of the others by score, and how many of those score below, and not above, each liked
    row."""
    order = np.argsort(score[~liked], kind="stable")
    other = score[~liked][order]
    below, not_above = (np.searchsorted(other, score[liked], side=side) for side in ("left", "right"))
    return user[liked], user[~liked][order], (below, not_above)
