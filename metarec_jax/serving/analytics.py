"""Metrics of a service's log, each with a 95 % interval over users.

All are ratios of two sums over rows. The rows of one user are not independent, so the intervals are those of the delta
method for clusters (Deng, Knoblich & Lu 2018, "Applying the delta method in metric analytics", equation 4). They are
too narrow for few users.

- Click-through rate (CTR): clicked places over shown ones. Precision: places with a click, a purchase or a rating
  that `Scale.likes`, over shown ones. nDCG of clicks: over lists with a click, ``sum 1 / log2(1 + place)`` of the
  clicked places over that of as many places from the first (Järvelin & Kekäläinen 2002).
- Off-policy: the CTR that another ranking would have had, from places of randomised lists. A place counts if that
  ranking puts the same item there, with weight ``1 / propensity`` (inverse propensity scoring, IPS: Horvitz & Thompson
  1952; for rankings under the item-position click model: Li et al. 2018, "Offline evaluation of ranking policies with
  click models", equation 5). SNIPS divides by the sum of the weights (Swaminathan & Joachims 2015).
- Interleaving: of the lists with clicks, the share in which an arm's items got more clicks than the other's, ties
  counting half, minus one half (Chapelle, Joachims, Radlinski & Yue 2012, "Large-scale validation and analysis of
  interleaved search evaluation").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metarec_jax.core.scale import Scale
from metarec_jax.serving.event_log import Log

NORMAL = 1.959964
"""Half the width of a 95 % interval of a normal distribution, in standard deviations."""


class Figure(NamedTuple):
    """A ratio of two sums over places or lists; NaN if the denominator is 0.

    Attributes:
        value: the ratio.
        low: lower end of its 95 % interval over users.
        high: upper end.
        users: number of users.
    """

    value: float
    low: float
    high: float
    users: int


def ratio(over: Float[np.ndarray, " n"], under: Float[np.ndarray, " n"], user: np.ndarray) -> Figure:
    """Return the sum of `over` divided by the sum of `under`.

    Args:
        over: numerators of the rows.
        under: denominators of the rows.
        user: [n], number of the user of each row.

    Returns:
        The ratio with its interval.
    """
    value, error, users = _ratio(over, under, user)
    return Figure(value, value - NORMAL * error, value + NORMAL * error, users)


def difference(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> Figure:
    """Return the ratio of `b` minus that of `a`.

    Args:
        a: numerators, denominators and users of the rows, as `ratio` takes them.
        b: the same for other users.

    Returns:
        The difference with its interval.
    """
    (of_a, error_a, users_a), (of_b, error_b, users_b) = _ratio(*a), _ratio(*b)
    error = float(np.hypot(error_a, error_b))
    return Figure(of_b - of_a, of_b - of_a - NORMAL * error, of_b - of_a + NORMAL * error, users_a + users_b)


def _ratio(over: np.ndarray, under: np.ndarray, user: np.ndarray) -> tuple[float, float, int]:
    """Return the ratio, its standard error and the number of users."""
    _, who = np.unique(user, return_inverse=True)
    users = int(who.max(initial=-1)) + 1
    top, bottom = (np.bincount(who, weights=part, minlength=users) for part in (over, under))
    if not bottom.sum():
        return float("nan"), float("nan"), users
    value = top.sum() / bottom.sum()
    if users < 2:
        return float(value), float("nan"), users
    error = np.sqrt(users / (users - 1) * np.sum(np.square(top - value * bottom))) / bottom.sum()
    return float(value), float(error), users


# Of one arm


def click_through(log: Log) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the arguments of `ratio` for the CTR."""
    return log.clicked.astype(np.float64), np.ones(len(log.place)), log.user


def precision(log: Log, scale: Scale) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the arguments of `ratio` for the precision of the items that were shown.

    Args:
        log: the log.
        scale: scale of the ratings, which defines the liked ratings.

    Returns:
        Numerators (1 for a relevant item, 0 otherwise), denominators (1) and users, each [n], one for each place.
    """
    good = log.clicked | log.purchased | scale.likes(log.rating)
    return good.astype(np.float64), np.ones(len(log.place)), log.user


def ndcg(log: Log) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the arguments of `ratio` for the nDCG of clicks; the rows are lists with a click."""
    if not len(log.list):
        return np.zeros(0), np.zeros(0), np.zeros(0, np.int64)
    lists, first, number = np.unique(log.list, return_index=True, return_inverse=True)
    gained = np.bincount(number, weights=log.clicked / np.log2(1 + log.place), minlength=len(lists))
    clicks = np.bincount(number, weights=log.clicked, minlength=len(lists)).astype(int)
    best = np.concatenate([[0.0], np.cumsum(1 / np.log2(2 + np.arange(clicks.max(initial=0))))])
    some = clicks > 0
    return gained[some] / best[clicks[some]], np.ones(int(some.sum())), log.user[first][some]


def arm_figures(log: Log, scale: Scale) -> dict[str, Any]:
    """Return counts and figures of one arm, by name.

    Args:
        log: places that the arm chose.
        scale: scale of the ratings, which defines the liked ratings.

    Returns:
        Numbers of users, lists, impressions, clicks, purchases and ratings; CTR, precision, nDCG and mean rating.
    """
    rated = np.isfinite(log.rating)
    return {
        "users": len(np.unique(log.user)),
        "lists": len(np.unique(log.list)),
        "impressions": len(log.place),
        "clicks": int(log.clicked.sum()),
        "purchases": int(log.purchased.sum()),
        "ratings": int(rated.sum()),
        "ctr": ratio(*click_through(log)),
        "precision": ratio(*precision(log, scale)),
        "ndcg": ratio(*ndcg(log)),
        "rating": ratio(np.where(rated, log.rating, 0.0), rated.astype(np.float64), log.user),
    }


# Of rankings that were not shown


def off_policy(log: Log, same: Bool[np.ndarray, " n"]) -> dict[str, Figure]:
    """Return the CTR that another ranking would have had.

    Args:
        log: places of randomised lists.
        same: whether that ranking puts the same item at the place.

    Returns:
        ``ips``, ``snips``, and ``weight``, the mean weight. Its expectation is the share of the ranking's places whose
        items are in the pools that lists were drawn from: the log has no information on the others.
    """
    return _weighted(log, np.where(same, 1 / log.propensity, 0.0))


def uniform(log: Log) -> dict[str, Figure]:
    """Return the CTR that lists drawn at random from the pool would have had, with the same names as `off_policy`."""
    return _weighted(log, 1 / log.pool / log.propensity)


def _weighted(log: Log, weight: Float[np.ndarray, " n"]) -> dict[str, Figure]:
    one = np.ones(len(log.place))
    gained = weight * log.clicked
    return {
        "ips": ratio(gained, one, log.user),
        "snips": ratio(gained, weight, log.user),
        "weight": ratio(weight, one, log.user),
    }


# Of two arms


def preference(log: Log, arm: str) -> Figure:
    """Return the share of lists with clicks that an arm won, minus one half; ties count half.

    Args:
        log: places of interleaved lists.
        arm: name of the arm.

    Returns:
        The preference, -1/2 to 1/2.
    """
    lists, first, number = np.unique(log.list, return_index=True, return_inverse=True)
    mine = log.arm == arm
    own = np.bincount(number, weights=log.clicked & mine, minlength=len(lists))
    other = np.bincount(number, weights=log.clicked & ~mine, minlength=len(lists))
    some = own + other > 0
    won = (np.sign(own - other)[some] + 1) / 2
    found = ratio(won, np.ones(len(won)), log.user[first][some])
    return Figure(found.value - 0.5, found.low - 0.5, found.high - 0.5, found.users)


# Over time


def over_time(log: Log, parts: int = 24) -> list[dict[str, Any]]:
    """Return impressions, clicks, CTR and ratings of each arm in equal intervals of time.

    Args:
        log: the log.
        parts: number of intervals.

    Returns:
        One entry for each arm and interval.
    """
    if not len(log.time):
        return []
    edges = np.linspace(log.time.min(), log.time.max() + 1e-6, parts + 1)
    span = np.clip(np.searchsorted(edges, log.time, side="right") - 1, 0, parts - 1)
    found = []
    for arm in np.unique(log.arm):
        for part in range(parts):
            some = log.of((log.arm == arm) & (span == part))
            if len(some.place):
                rated = np.isfinite(some.rating)
                found.append(
                    {
                        "arm": str(arm),
                        "start": float(edges[part]),
                        "end": float(edges[part + 1]),
                        "impressions": len(some.place),
                        "clicks": int(some.clicked.sum()),
                        "ctr": ratio(*click_through(some)),
                        "ratings": int(rated.sum()),
                        "rating": ratio(np.where(rated, some.rating, 0.0), rated.astype(np.float64), some.user),
                    }
                )
    return found


def figures(log: Log, scale: Scale, *, time: bool = False) -> dict[str, Any]:
    """Return all figures of a log that need no model.

    Args:
        log: the log, with all arms.
        scale: scale of the ratings, which defines the liked ratings.
        time: whether to add the figures over time.

    Returns:
        A tree of figures by name.
    """
    arms = {str(arm): arm_figures(log.of(log.arm == arm), scale) for arm in np.unique(log.arm)}
    found: dict[str, Any] = {"arms": arms, "liked": scale.liked_from}
    split = log.of(~log.interleaved)
    names = [str(arm) for arm in np.unique(split.arm)]
    if len(names) == 2:
        a, b = (split.of(split.arm == name) for name in names)
        found["b less a"] = {
            "ctr": difference(click_through(a), click_through(b)),
            "precision": difference(precision(a, scale), precision(b, scale)),
            "ndcg": difference(ndcg(a), ndcg(b)),
        }
    if log.interleaved.any():
        found["interleaving"] = {"b over a": preference(log.of(log.interleaved), "b")}
    random = log.of((log.explore > 0) & ~log.interleaved)
    if len(random.place):
        found["off-policy"] = {
            "shown": {"ctr": ratio(*click_through(random))},
            "the models' own lists": off_policy(random, random.own_place == random.place),
            "random lists of the pool": uniform(random),
        }
    if time:
        found["over time"] = over_time(log)
    return found


def to_tree(found: Any) -> Any:
    """Convert figures to values of JSON; NaN becomes null."""
    if isinstance(found, Figure):
        return to_tree(found._asdict())
    if isinstance(found, Mapping):
        return {name: to_tree(value) for name, value in found.items()}
    if isinstance(found, list):
        return [to_tree(value) for value in found]
    return None if isinstance(found, float) and not np.isfinite(found) else found
