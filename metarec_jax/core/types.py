"""The shapes that travel through the package.

Axis words, used in every annotation and docstring:

    rows      interactions, in a data set
    users     users: of a data set, or of one batch
    items     items of the catalogue
    support   interactions that the inner loop adapts on (padded)
    query     interactions that the outer loss is measured on (padded)
    length    tokens of a text (padded)
    hidden    features of an embedding
    classes   rating levels of a head that predicts a distribution
    steps     inner steps

A function of learner/ and meta/ is written for ONE user: it takes the same tuples without
their leading ``users`` axis, and `metarec_jax.meta.batch` maps it over users, once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

Array = Any  # a numpy or jax array, or a tracer: the pure functions take any of them
Params = Any  # a pytree of arrays

Kind = Literal["rating", "click"]
TimeUnit = Literal["s", "ms", "us", "ns"]


@dataclasses.dataclass(frozen=True)
class Items:
    """The catalogue: every item that can be recommended, in row order.

    Attributes:
        ids: the item's id as its source writes it, one a row.
        titles: what a person calls the item.
        texts: what the encoder reads.
        details: further columns by name (``genres``, ``year``, ...), one string a row.
        vectors: float32 [items, width], embeddings of something else than the text (an image, a sound) that came with
            the data; a row of NaN for an item without one, and None where no item has one.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    details: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    vectors: np.ndarray | None = dataclasses.field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Users:
    """The users of a data set, in row order; ``texts`` is their profile, or None where the source has none."""

    ids: tuple[str, ...]
    texts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Interactions:
    """A data set: who gave which rating (or click) to what, and when.

    Attributes:
        user: int32 [rows], row of ``users``.
        item: int32 [rows], row of ``items``.
        rating: float32 [rows], within ``low`` .. ``high``; for clicks 0 or 1.
        time: int64 [rows], since 1970 in `time_unit` (any other increasing number will do), 0 where unknown.
        users: the users.
        items: the catalogue.
        kind: "rating" or "click".
        levels: the values that a rating can take, ascending; empty where ratings are continuous.
        low, high: least and greatest rating that the scale allows.
        source: a sentence that says where the rows came from.
        citation: what to cite, or "".
        time_unit: of `time`.
        layout: how the files are written, for people; "" where no file was read.
        notes: remarks about what was read otherwise than it is written.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    users: Users
    items: Items
    kind: Kind
    levels: tuple[float, ...]
    low: float
    high: float
    source: str
    citation: str = ""
    time_unit: TimeUnit = "s"
    layout: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)


class Rows(NamedTuple):
    """Some interactions of one user (or, with a leading ``users`` axis, of each user of a batch).

    Padded slots have mask 0, item 0, rating 0 and statistic 0; no number depends on them.

    Attributes:
        item: int32 [n], row of the item table.
        rating: float32 [n].
        mask: float32 [n], 1 where the row is real.
        statistic: float32 [n, 2], sum and count of the ratings that *other* training users gave the item.
    """

    item: Array
    rating: Array
    mask: Array
    statistic: Array


class Episodes(NamedTuple):
    """A batch of tasks, one a user.

    Attributes:
        user: int32 [users], row of the user table.
        support: rows that the inner loop adapts on.
        query: rows that the outer loss is measured on; None where there is nothing to measure.
        weight: float32 [users], 0 for a user that only fills up the batch.
    """

    user: Array
    support: Rows
    query: Rows | Any
    weight: Array


class Tables(NamedTuple):
    """Embeddings that episodes gather from: items float32 [items, hidden], users float32 [users, hidden]."""

    items: Array
    users: Array


class Prepared(NamedTuple):
    """`Tables` as the learner wants them (standardised, say): what a model's ``prepare`` makes of them.

    A type of its own, since tables of either kind have the same shapes, and the wrong one gives wrong numbers.
    """

    items: Array
    users: Array
