"""The models of a service, who gets which, and how lists are made so that something can be learned from them.

- "ab": every user gets one of two models, always the same one.
- "interleave": both models choose in turn (team draft; Radlinski, Kurup & Joachims 2008, "How does clickthrough data
  reflect retrieval quality?", figure 2), and clicks count for the one that chose.
- Exploring: with a chance `explore` a list is drawn at random from the model's `pool` best items. So every item of the
  pool has a known chance of standing in each place, which is what off-policy estimates need.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.store import Shown

Mode = Literal["single", "ab", "interleave"]


class Arm(NamedTuple):
    """One of the models."""

    name: str
    recommender: Recommender


class Exploring(NamedTuple):
    """How lists are randomised.

    Attributes:
        share: the chance that a list is drawn at random.
        pool: from how many of the best items.
    """

    share: float = 0.0
    pool: int = 50


def arm_of(user: str, arms: int, share: float = 0.5) -> int:
    """Which of one or two arms a user gets: always the same one; the second with probability `share`."""
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
    ids: tuple[str, ...],
    rng: np.random.Generator,
) -> list[Shown]:
    """A list of `k` items, perhaps a random one.

    Args:
        order: rows of the pool's items, best first; `k` at least, unless there are no more.
        scores: of all rows.
        k: how many.
        exploring: how likely, and how; its pool is not looked at, since `order` is it.
        arm: whose list it is.
        ids: of all rows.
        rng: the draw.

    Returns:
        The places. The propensity of item ``i`` in place ``r`` is ``(1 - share) [i is the model's own r-th] + share /
        pool``, since a random order puts each item of the pool in each place equally often.
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
            score=float(scores[order[own]]),
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
    """A list of `k` items that two models choose in turn, each its best of what is left.

    Args:
        orders: ids of each model's items, best first.
        scores: by id.
        names: of the arms.
        k: how many.
        rng: who is first, in every round.
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
