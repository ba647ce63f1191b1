"""Experiments with the models of a service: A/B tests, interleaved lists, and randomised lists.

- "ab": every user gets one of two models, always the same one.
- "interleave": the models choose items in turn (team draft; Radlinski, Kurup & Joachims 2008, "How does clickthrough
  data reflect retrieval quality?", figure 2), and a click counts for the model that chose the item.
- Exploring: with probability `share` a list is drawn at random from the model's `pool` best items. The propensity of
  every item of the pool in every place is then known, which off-policy estimates need.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from metarec_jax.core.types import Strings
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.rows import Shown

Mode = Literal["single", "ab", "interleave"]


class Arm(NamedTuple):
    """One of the models, and its name."""

    name: str
    recommender: Recommender


class Exploring(NamedTuple):
    """How lists are randomised.

    Attributes:
        share: probability that a list is drawn at random.
        pool: best items that it is drawn from.
    """

    share: float = 0.0
    pool: int = 50


def arm_of(user: str, arms: int, share: float = 0.5) -> int:
    """Assign a user to an arm, always the same one.

    Args:
        user: the user's identifier.
        arms: 1 or 2.
        share: probability of the second.

    Returns:
        The index of the arm.
    """
    if arms == 1:
        return 0
    drawn = int.from_bytes(hashlib.sha256(f"arm of {user}".encode()).digest()[:8], "big") / 2**64
    return int(drawn < share)


def explored(
    order: Int[np.ndarray, " pool"],
    scores: np.ndarray,
    k: int,
    exploring: Exploring,
    arm: str,
    ids: Strings,
    rng: np.random.Generator,
) -> list[Shown]:
    """Make a list of `k` items: the best ones in order, or a random list.

    Args:
        order: rows of the pool's items, best first; at least `k` unless fewer items are allowed.
        scores: scores of the pool's items.
        k: list length.
        exploring: the probability of a random list; `order` has the pool already.
        arm: name of the model that the list is from.
        ids: ids of all rows.
        rng: source of randomness.

    Returns:
        The places. The propensity of item ``i`` in place ``r`` is ``(1 - share) [i is the model's r-th] + share /
        pool``, since each item of the pool is equally likely in each place of a random list.
    """
    chosen = (
        rng.permutation(len(order)) if exploring.share and rng.random() < exploring.share else np.arange(len(order))
    )
    random = exploring.share / max(len(order), 1)
    return [
        Shown(
            place=place,
            item=ids[order[own]],
            arm=arm,
            score=float(scores[own]),
            propensity=random + (1 - exploring.share if own + 1 == place else 0.0),
            own_place=own + 1,
        )
        for place, own in enumerate(chosen[:k].tolist(), start=1)
    ]


def interleaved(
    orders: tuple[list[str], list[str]],
    scores: tuple[dict[str, float], dict[str, float]],
    names: tuple[str, str],
    k: int,
    rng: np.random.Generator,
) -> list[Shown]:
    """Make a list of `k` items that two models choose in turn, each its best among the items left.

    Args:
        orders: ids of each model's items, best first.
        scores: scores of each model, by id.
        names: names of the arms.
        k: list length.
        rng: draws which model is first in every round.

    Returns:
        The places of the list.
    """
    taken: set[str] = set()
    left = [iter(order) for order in orders]
    chose = [0, 0]
    places: list[Shown] = []
    while len(places) < k:
        team = int(chose[1] < chose[0]) if chose[0] != chose[1] else int(rng.integers(2))
        item = next((i for i in left[team] if i not in taken), None)
        if item is None:
            team = 1 - team
            item = next((i for i in left[team] if i not in taken), None)
            if item is None:
                break
        taken.add(item)
        chose[team] += 1
        own = orders[team].index(item) + 1
        places.append(Shown(len(places) + 1, item, names[team], scores[team][item], None, own))
    return places
