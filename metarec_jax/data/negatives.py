"""Items that were not clicked, drawn beside those that were: a log of clicks alone has nothing to tell them from."""

from __future__ import annotations

import dataclasses

import numpy as np

from metarec_jax.errors import MetarecError
from metarec_jax.types import Interactions

_TRIES = 50


def with_negatives(data: Interactions, per_click: int, popularity: float, seed: int) -> Interactions:
    """`data` with rows of 0 beside each user's clicks: items that the user never clicked, each at most once.

    Args:
        data: clicks.
        per_click: rows of 0 for each click; fewer for users who clicked nearly everything.
        popularity: an item is drawn in proportion to this power of its clicks. 0 draws all alike, and popularity alone
            then tells clicks from the rest; with 1 it tells nothing (as in Mikolov et al. 2013, where it is 3/4).
        seed: of the draws.

    Raises:
        MetarecError: the data is no log of clicks.
    """
    if data.kind != "click":
        raise MetarecError(
            f"data.negatives is {per_click}, but data.kind is {data.kind!r}: only clicks need items beside them that "
            "were not clicked, so use --data.negatives 0"
        )
    clicked = data.rating > 0
    count = np.bincount(data.item[clicked], minlength=len(data.items)).astype(np.float64)
    chance = np.where(count > 0, count, 0.0) ** popularity if popularity else np.ones(len(count))
    edges = np.cumsum(chance / chance.sum())
    rng = np.random.default_rng([seed, 7])

    clicks = np.flatnonzero(clicked)
    wanted = np.repeat(clicks, per_click)
    items = len(data.items)
    taken = set((data.user.astype(np.int64) * items + data.item).tolist())
    rows, drawn = [], []
    for _ in range(_TRIES):
        if not len(wanted):
            break
        found = np.minimum(np.searchsorted(edges, rng.random(len(wanted)), side="right"), items - 1)
        missed = []
        for row, item in zip(wanted.tolist(), found.tolist()):
            pair = int(data.user[row]) * items + item
            if pair in taken:
                missed.append(row)
                continue
            taken.add(pair)
            rows.append(row)
            drawn.append(item)
        wanted = np.array(missed, np.int64)

    beside = np.array(rows, np.int64)
    user = np.concatenate([data.user, data.user[beside]]).astype(np.int32)
    item = np.concatenate([data.item, np.array(drawn, np.int64)]).astype(np.int32)
    time = np.concatenate([data.time, data.time[beside]])
    rating = np.concatenate([data.rating, np.zeros(len(beside), np.float32)]).astype(np.float32)
    order = np.lexsort((item, time, user))
    return dataclasses.replace(
        data,
        user=user[order],
        item=item[order],
        rating=rating[order],
        time=time[order],
        source=f"{data.source}, and {len(beside):,} items that were not clicked",
    )
