"""Prior mean of a user's taste, given which items the user rated and the profile, but not the ratings.

Which items a user rated is informative regardless of the ratings (Koren 2008, "Factorization meets the neighborhood",
section 4: SVD++), and so is a profile. Both enter by linear maps, fitted by expectation maximisation of
``w_u ~ N(A x_u, 1)``: posterior means of tastes given ratings and ``A``, then ridge regression of these on the inputs
``x_u``. The maps are initial values of parameters that the outer loop trains.
"""

from __future__ import annotations

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
CHOICES, PROFILE = 100.0, 2000.0
"""Strengths of the ridge penalties of both maps, in users, from which their learning starts."""
_ROUNDS = 3
"""Rounds of expectation maximisation. Posteriors of users and maps are taken as independent, which makes maps too
small in many rounds (measured on MovieLens-100K: 60 rounds lose what the maps are worth)."""
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


def sample_of(users: int) -> np.ndarray:
    """The numbers of the users to which the maps are fitted, int64, of a number of users."""
    return np.unique(np.linspace(0, users - 1, min(users, _MOST_USERS)).astype(int))


def expect_tastes(
    beliefs: tuple[np.ndarray, np.ndarray, np.ndarray],
    noise: float,
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    profiles: Float[np.ndarray, "users hidden"],
    *,
    choices: float = CHOICES,
    profile: float = PROFILE,
    reporter: Reporter = QUIET,
) -> Params:
    """Fit both maps, and the strengths of their ridge penalties by the evidence.

    Args:
        beliefs: mean [items], residual variance [items] and factors [items, rank] of all items, in units of ratings.
        noise: variance of a rating around its expectation.
        user, item: int [rows], user and item of each rating; those of users outside of `sample_of` are not used.
        rating: float [rows].
        profiles: standardised embeddings of the users' texts (see `metarec_jax.learner.inputs.standardisation`); of
            width 0 where users have no texts, or where these are not known in advance.
        choices, profile: initial strengths of the ridge penalties, in users; 0 leaves out the map.
        reporter: shows progress.

    Returns:
        Parameters of the prior of tastes, for `metarec_jax.learner.prior`.
    """
    mean, rest, factors = (np.asarray(part, np.float64) for part in beliefs)
    rank, order = factors.shape[1], np.argsort(user, kind="stable")
    who, start, count = np.unique(user[order], return_index=True, return_counts=True)
    some = sample_of(len(who))
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
    sources = {name: source for name, source in sources.items() if source[1] and source[0].any()}
    found = no_tastes(rank, profiles.shape[1])
    if not sources:
        return found
    known = np.concatenate([part for part, _, _ in sources.values()], axis=1)
    widths = [part.shape[1] for part, _, _ in sources.values()]
    own_columns = [slice(end - width, end) for width, end in zip(widths, np.cumsum(widths))]
    scales = [strength * max(float(np.mean(np.square(part))), least) for part, strength, least in sources.values()]
    held = np.repeat(np.array(scales), widths)

    covariances, pulls = np.empty((len(rows), rank, rank)), np.empty((len(rows), rank))
    with reporter.bar("expected tastes of users", len(rows)) as advance:
        for place, own in enumerate(rows):
            of_items = factors[item[own]]
            precision = 1 / (rest[item[own]] + noise)
            covariances[place] = np.linalg.inv(np.eye(rank) + of_items.T @ (of_items * precision[:, None]))
            pulls[place] = of_items.T @ (precision * (rating[own] - mean[item[own]]))
            if place % _USERS_AT_ONCE == 0:
                advance(place)
    moments, maps = known.T @ known, np.zeros((known.shape[1], rank))
    for _ in range(_ROUNDS):
        spread = np.linalg.inv(moments + np.diag(held))
        maps = spread @ (known.T @ np.einsum("urs,us->ur", covariances, pulls + known @ maps))
        for own in own_columns:  # the variance of the map of a source is the mean square of its elements (MacKay 1992)
            held[own] = 1 / (np.mean(np.square(maps[own])) + np.mean(np.diag(spread)[own]))
    for name, own in zip(sources, own_columns):
        found[name]["kernel"] = maps[own].astype(np.float32)
    found["choice"]["middle"] = middle.astype(np.float32)
    return found
