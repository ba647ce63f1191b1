"""Negative sampling: items that a user did not click, for data that has clicks alone.

The negatives of a user depend on that user's rows and on the popularity of items, which is counted in training rows
alone, so that clicks of test users do not choose training rows. The data is therefore divided first; a division depends
on users and times, and not on the items of the negatives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.row_ranges import Selection
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols import divide

_TRIES = 20


def beside_clicks(data: Interactions, config: Config) -> Interactions:
    """Add the negatives that ``config.data.negatives`` asks for to the data set of a run.

    Args:
        data: the data set, from `metarec_jax.data.load`.
        config: config of the run.

    Returns:
        The data set; `data` itself where no negatives are asked for.

    Raises:
        MetarecError: the data does not hold clicks, or cannot be divided.
    """
    if not config.data.negatives:
        return data
    return with_negatives(
        data,
        config.data.negatives,
        config.data.negatives_popularity,
        config.seed,
        lambda rows: divide(rows, config, config.seed).train,
    )


def with_negatives(
    data: Interactions,
    per_click: int,
    popularity: float,
    seed: int,
    trained: Callable[[Interactions], Selection],
) -> Interactions:
    """Add rows with click 0 of items that the user never clicked, each item at most once for a user.

    The negatives among a user's training rows do not depend on the user's other rows: an item that is clicked after the
    date of a division may be a negative before it.

    Args:
        data: clicks.
        per_click: negatives for each click; fewer for users who clicked nearly all items.
        popularity: an item is drawn in proportion to this power of its clicks in training rows (3/4 in Mikolov et al.
            2013). With 0 all items are equally likely, and popularity alone separates clicks from negatives; with 1 it
            cannot. The items without a click share the weight of the items with one click equally (Good 1953).
        seed: seed of the draws.
        trained: returns which rows of a data set train, int [rows]. In the data set that it gets, a negative still has
            the item of the click that it was added for.

    Returns:
        The clicks and the negatives, in order of user, time and item; a negative has the time of its click.

    Raises:
        MetarecError: the data does not hold clicks.
    """
    if data.kind != "click":
        raise MetarecError(
            f"data.negatives is {per_click}, but data.kind is {data.kind!r}: only clicks need negatives, so use "
            "--data.negatives 0"
        )
    beside = _beside(data, per_click)
    rows = np.concatenate([np.arange(len(data)), beside])
    undrawn = _joined(data, beside, data.item[beside])
    order = np.lexsort((undrawn.item, undrawn.time, undrawn.user))
    trains = np.zeros(len(rows), bool)
    trains[order[trained(_taken(undrawn, order))]] = True
    own, new = np.split(trains, [len(data)])

    clicked = (data.rating > 0) & own
    count = np.bincount(data.item[clicked], minlength=len(data.items)).astype(np.float64)
    unseen = count == 0
    count[unseen] = np.sum(count == 1) / max(unseen.sum(), 1)
    chance = count**popularity if popularity and count.any() else np.ones(len(count))
    edges = np.cumsum(chance / chance.sum())

    item = np.zeros(len(beside), np.int64)
    mine, theirs = (np.argsort(user, kind="stable") for user in (data.user, data.user[beside]))
    ends = [np.cumsum(np.bincount(u, minlength=len(data.users)))[:-1] for u in (data.user, data.user[beside])]
    for user, (known, wanted) in enumerate(zip(np.split(mine, ends[0]), np.split(theirs, ends[1]))):
        taken: set[int] = set()
        for part in (True, False):  # training rows first: they do not depend on the others
            taken.update(data.item[known[own[known] == part]].tolist())
            places = wanted[new[wanted] == part]
            if len(places):
                rng = np.random.default_rng([seed, 7, user, int(part)])
                item[places] = _draw(rng, chance, edges, taken, len(places))
                taken.update(item[places].tolist())
    drawn = _joined(data, beside, item)
    found = _taken(drawn, np.lexsort((drawn.item, drawn.time, drawn.user)))
    return dataclasses.replace(found, source=f"{data.source}, and {len(beside):,} items that were not clicked")


def _beside(data: Interactions, per_click: int) -> np.ndarray:
    """int64 [n], the click of each negative: an equal number for each click of a user, while items are left."""
    clicks = np.flatnonzero(data.rating > 0)
    clicks = clicks[np.lexsort((data.time[clicks], data.user[clicks]))]
    turn = np.repeat(np.arange(per_click), len(clicks))
    clicks = np.tile(clicks, per_click)
    order = np.lexsort((turn, data.user[clicks]))
    clicks = clicks[order]
    pairs = np.unique(data.user.astype(np.int64) * len(data.items) + data.item)
    left = len(data.items) - np.bincount(pairs // len(data.items), minlength=len(data.users))
    given = np.bincount(data.user[clicks], minlength=len(data.users))
    place = np.arange(len(clicks)) - (np.cumsum(given) - given)[data.user[clicks]]
    return clicks[place < left[data.user[clicks]]]


def _draw(rng: np.random.Generator, chance: np.ndarray, edges: np.ndarray, taken: set[int], wanted: int) -> list[int]:
    """Draw `wanted` different items that are not in `taken`, in proportion to `chance` (cumulative sums: `edges`)."""
    last = len(chance) - 1
    found: dict[int, None] = {}
    for _ in range(_TRIES):
        tried = np.minimum(np.searchsorted(edges, rng.random(wanted - len(found)), side="right"), last)
        found.update(dict.fromkeys(item for item in tried.tolist() if item not in taken))
        if len(found) == wanted:
            return list(found)
    # Few items are left. The order of exponential variables with rates `chance` draws in proportion as well.
    clock = rng.exponential(size=len(chance)) / np.maximum(chance, 1e-300)
    clock[[*taken, *found]] = np.inf
    return [*found, *np.argsort(clock)[: wanted - len(found)].tolist()]


def _joined(data: Interactions, beside: np.ndarray, item: np.ndarray) -> Interactions:
    """Append a negative for each click of `beside`, with the item in `item`, to the rows of `data`."""
    return dataclasses.replace(
        data,
        user=np.concatenate([data.user, data.user[beside]]).astype(np.int32),
        item=np.concatenate([data.item, item]).astype(np.int32),
        rating=np.concatenate([data.rating, np.zeros(len(beside), np.float32)]).astype(np.float32),
        time=np.concatenate([data.time, data.time[beside]]),
    )


def _taken(data: Interactions, order: np.ndarray) -> Interactions:
    return dataclasses.replace(
        data, **{name: getattr(data, name)[order] for name in ("user", "item", "rating", "time")}
    )
