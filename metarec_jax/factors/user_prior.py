"""Prior mean of a user's taste, given which items the user rated and the profile, but not the ratings.

Which items a user rated is informative regardless of the ratings (Koren 2008, "Factorization meets the neighborhood",
section 4: SVD++), and so is a profile. Both enter by linear maps, fitted by expectation maximisation of
``w_u ~ N(A x_u, 1)``: posterior means of tastes given ratings and ``A``, then ridge regression of these on the inputs
``x_u``. The maps are initial values of parameters that the outer loop trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Params
from metarec_jax.core.variance import root_mean_square, varies

_DOUBT = 20.0
"""Ratings that weigh as much as the doubt whether a user's choice of items says anything."""
_LEAST_CHOICE = 0.1
"""Variance of choices that the ridge penalty is at least made for, as a share of what it were if each user drew items
independently. Where nearly everybody rated nearly everything, a few omissions would otherwise get a large map."""
_STRENGTHS = (1e5, 1e4, 3e3, 1e3, 300.0, 100.0, 30.0)
"""Strengths of the ridge penalties that are compared, in users. With the first one a map is practically zero."""
_STARTING = 1e3
"""Strength of the penalty of one map while that of the other is chosen."""
_ROUNDS, _PARTS = 3, 5
"""Rounds of expectation maximisation, and parts of the users, each predicted from the others."""
_CHOSEN_BY = 4000
"""Greatest number of users by whom strengths are chosen."""
_USERS_AT_ONCE = 256
"""Users between two reports of progress."""
_MOST_USERS = 20_000
"""Greatest number of users to which the maps are fitted; of more users, an evenly spaced sample is taken."""


def no_tastes(rank: int, hidden: int) -> Params:
    """Make zero maps, which give all users the prior mean 0.

    Args:
        rank: number of factors.
        hidden: width of the embeddings of the users' texts.

    Returns:
        Parameters of the prior of tastes, as host arrays.
    """
    return {
        "choice": {
            "kernel": np.zeros((rank, rank), np.float32),
            "middle": np.zeros(rank, np.float32),
            "log_doubt": np.float32(np.log(_DOUBT)),
        },
        "profile": {"kernel": np.zeros((hidden, rank), np.float32)},
    }


def expect_tastes(
    beliefs: tuple[np.ndarray, np.ndarray, np.ndarray],
    noise: float,
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    profiles: Float[np.ndarray, "users hidden"],
    *,
    choices: float | None = None,
    profile: float | None = None,
    reporter: Reporter = QUIET,
) -> Params:
    """Fit both maps.

    The strengths of their ridge penalties are those with which maps that are fitted to four fifths of the users give
    the ratings of the others the highest likelihood.

    Args:
        beliefs: mean [items], residual variance [items] and factors [items, rank] of all items, in units of ratings.
        noise: variance of a rating around its expectation.
        user, item: int [rows], user and item of each rating.
        rating: float [rows].
        profiles: standardised embeddings of the users' texts (see `metarec_jax.learner.inputs.standardisation`); of
            width 0 where users have no texts, or where these are not known in advance.
        choices, profile: strengths of the ridge penalties, in users; None learns them, and 0 leaves out the map.
        reporter: shows progress.

    Returns:
        Parameters of the prior of tastes, for `metarec_jax.learner.prior`.
    """
    mean, rest, factors = (np.asarray(part, np.float64) for part in beliefs)
    rank, order = factors.shape[1], np.argsort(user, kind="stable")
    who, start, count = np.unique(user[order], return_index=True, return_counts=True)
    some = np.unique(np.linspace(0, len(who) - 1, min(len(who), _MOST_USERS)).astype(int))
    rows = [order[start[u] : start[u] + count[u]] for u in some]

    middle = np.mean([factors[item[own]].mean(axis=0) for own in rows], axis=0)
    weighted = [(factors[item[own]] - middle) / (len(own) + _DOUBT) for own in rows]
    chosen = np.array([part.sum(axis=0) for part in weighted])
    independent = float(np.mean([np.square(part).sum(axis=0).mean() for part in weighted]))
    if not varies(root_mean_square(chosen), np.sqrt(independent)):
        chosen = np.zeros_like(chosen)  # everybody rated the same items, which says nothing of anybody
    about = profiles[who[some]].astype(np.float64)
    sources = {
        "choice": (chosen, choices, _LEAST_CHOICE * independent),
        "profile": (about, profile, 0.0),
    }
    sources = {name: source for name, source in sources.items() if source[1] != 0 and source[0].any()}
    found = no_tastes(rank, profiles.shape[1])
    if not sources:
        return found
    known = np.concatenate([part for part, _, _ in sources.values()], axis=1)
    covariances, pulls = np.empty((len(rows), rank, rank)), np.empty((len(rows), rank))
    with reporter.bar("expected tastes of users", len(rows)) as advance:
        for place, own in enumerate(rows):
            of_items = factors[item[own]]
            precision = 1 / (rest[item[own]] + noise)
            covariances[place] = np.linalg.inv(np.eye(rank) + of_items.T @ (of_items * precision[:, None]))
            pulls[place] = of_items.T @ (precision * (rating[own] - mean[item[own]]))
            if place % _USERS_AT_ONCE == 0:
                advance(place)
    users = _Users(known, covariances, pulls)
    scales = [max(float(np.mean(np.square(part))), least) for part, _, least in sources.values()]
    widths = [part.shape[1] for part, _, _ in sources.values()]
    strengths = [strength for _, strength, _ in sources.values()]
    maps = users.maps(_penalty(_chosen(users, strengths, scales, widths), scales, widths))
    for name, own in zip(sources, np.split(maps, np.cumsum(widths)[:-1])):
        found[name]["kernel"] = own.astype(np.float32)
    found["choice"]["middle"] = middle.astype(np.float32)
    return found


class _Users(NamedTuple):
    """What ratings say of the tastes of users.

    Attributes:
        known: ``x``, [users, width].
        covariances: [users, rank, rank], covariance of each taste, given the ratings.
        pulls: [users, rank]; their products with the covariances are the tastes of a prior mean of 0.
    """

    known: np.ndarray
    covariances: np.ndarray
    pulls: np.ndarray

    def maps(self, penalty: np.ndarray) -> np.ndarray:
        """Fit ``A`` by expectation maximisation, with a ridge penalty [width]: [width, rank]."""
        solve = np.linalg.solve(self.known.T @ self.known + np.diag(penalty), self.known.T)
        maps = np.zeros((self.known.shape[1], self.pulls.shape[1]))
        for _ in range(_ROUNDS):
            maps = solve @ np.einsum("urs,us->ur", self.covariances, self.pulls + self.known @ maps)
        return maps

    def likelihood(self, maps: np.ndarray) -> float:
        """Logarithm of the ratings' likelihood, beyond that of a prior mean of 0."""
        mean = self.known @ maps
        told = np.einsum("urs,us->ur", self.covariances, self.pulls + mean / 2)
        return float(np.sum(mean * told) - np.sum(np.square(mean)) / 2)

    def some(self, which: np.ndarray) -> _Users:
        """Some of the users."""
        return _Users(*(part[which] for part in self))


def _penalty(strengths: Sequence[float], scales: Sequence[float], widths: Sequence[int]) -> np.ndarray:
    """Ridge penalty of each input."""
    return np.repeat(np.multiply(strengths, scales), widths)


def _chosen(
    users: _Users, strengths: Sequence[float | None], scales: Sequence[float], widths: Sequence[int]
) -> list[float]:
    """Choose the strengths that are None, one after the other, by the likelihood of users that are left out."""
    users = users.some(np.random.default_rng(3).permutation(len(users.known))[:_CHOSEN_BY])
    part = np.arange(len(users.known)) % _PARTS
    found = [_STARTING if strength is None else strength for strength in strengths]

    def likelihood(place: int, strength: float) -> float:
        penalty = _penalty([*found[:place], strength, *found[place + 1 :]], scales, widths)
        return sum(users.some(part == n).likelihood(users.some(part != n).maps(penalty)) for n in range(_PARTS))

    for place in (n for n, strength in enumerate(strengths) if strength is None):
        found[place] = max(_STRENGTHS, key=lambda strength: likelihood(place, strength))
    return found
