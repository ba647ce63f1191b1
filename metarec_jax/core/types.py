"""Data types that all rooms share.

Axis words, used in every annotation and docstring:

    rows      interactions, in a data set
    users     users of a data set, or of one batch
    items     items of the catalogue
    support   interactions that the inner loop adapts on (padded)
    query     interactions that the outer loss is measured on (padded)
    length    tokens of a text (padded)
    hidden    features of an embedding
    classes   rating levels of a head that predicts a distribution
    steps     inner steps

Functions of learner/ and meta/ are written for ONE user: they take the same tuples without the leading ``users`` axis,
and `metarec_jax.meta.batch` maps them over users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import Kind, Scale
from metarec_jax.core.stored_columns import Column as Column
from metarec_jax.core.stored_strings import StoredStrings

Array = Any  # a numpy or jax array, or a tracer: the pure functions take any of them
Params = Any  # a pytree of arrays

TimeUnit = Literal["s", "ms", "us", "ns"]
Strings = tuple[str, ...] | StoredStrings
"""Strings in memory, or in a file."""


@dataclasses.dataclass(frozen=True)
class Items:
    """The catalogue: every item that can be recommended, in row order.

    Attributes:
        ids: id of each item in its source.
        titles: title of each item, for display.
        texts: text of each item, for the encoder.
        details: further columns by name (``genres``, ``year``, ...), one string per item.
        vectors: float32 [items, width], embeddings of other content than the text (an image, a sound) that are part of
            the data; a row of NaN for an item without one, and None where no item has one.
        pictures: a small copy of the picture of each item, as a JPEG, for display; None for an item without one. Items
            that were added later have none.
    """

    ids: Strings
    titles: Strings
    texts: Strings
    details: Mapping[str, Strings] = dataclasses.field(default_factory=dict)
    vectors: np.ndarray | None = dataclasses.field(default=None, compare=False)
    pictures: Sequence[bytes | None] | None = dataclasses.field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def picture(self, row: int) -> bytes | None:
        """Return the small copy of the picture of the item of a row; None if it has none."""
        return None if self.pictures is None or row >= len(self.pictures) else self.pictures[row]


@dataclasses.dataclass(frozen=True)
class Users:
    """The users of a data set, in row order; ``texts`` are their profiles, or None where the source has none."""

    ids: Strings
    texts: Strings | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Interactions:
    """A data set of interactions: user, item, rating (or click) and time.

    Attributes:
        user: int32 [rows], row of ``users``.
        item: int32 [rows], row of ``items``.
        rating: float32 [rows], on the standard scale of 1 to 5 (`metarec_jax.core.scale`); for clicks 0 or 1.
        time: int64 [rows], since 1970 in `time_unit` (any other increasing number will do), 0 where unknown.
        users: the users.
        items: the catalogue.
        scale: of the ratings as the source writes them.
        source: a sentence that says where the rows came from.
        citation: what to cite, or "".
        time_unit: of `time`.
        layout: how the files are written, for people; "" where no file was read.
        notes: remarks about what was read otherwise than it is written.
    """

    user: Column
    item: Column
    rating: Column
    time: Column
    users: Users
    items: Items
    scale: Scale
    source: str
    citation: str = ""
    time_unit: TimeUnit = "s"
    layout: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shapes = {name: getattr(getattr(self, name), "shape", None) for name in ("user", "item", "rating", "time")}
        if len(set(shapes.values())) != 1 or len(shapes["user"] or ()) != 1:
            raise MetarecError(
                f"Interactions: the arrays user, item, rating and time have the shapes {list(shapes.values())}; pass "
                "NumPy arrays of one dimension and one length, or make the data set with `metarec_jax.load`"
            )

    def __len__(self) -> int:
        return len(self.user)

    @property
    def kind(self) -> Kind:
        """ "rating" or "click"."""
        return self.scale.kind

    @property
    def clicks_alone(self) -> bool:
        """Whether the rows are clicks, and none says that there was no click."""
        return self.kind == "click" and bool((self.rating > 0).all())


class Rows(NamedTuple):
    """Some interactions of one user (or, with a leading ``users`` axis, of each user of a batch).

    Padded slots have mask 0, item 0, rating 0 and statistic 0, and have no effect on results.

    Attributes:
        item: int32 [n], row of the item table.
        rating: float32 [n].
        mask: float32 [n], 1 where the row is real; of a candidate of a list, its weight.
        statistic: float32 [n, columns], sum and count of the ratings that *other* training users gave the item,
            followed by the posterior of its factors where there are any.
    """

    item: Array
    rating: Array
    mask: Array
    statistic: Array


class Episodes(NamedTuple):
    """A batch of tasks, one per user.

    Attributes:
        user: int32 [users], row of the user table.
        support: rows on which the inner loop adapts.
        query: rows on which the outer loss is measured; None where it is not measured.
        weight: float32 [users], 0 for a user that only fills up the batch.
        number: int32 [users], number of the user, which random draws depend on; None where it is `user`.
    """

    user: Array
    support: Rows
    query: Rows | Any
    weight: Array
    number: Array | Any = None


class Tables(NamedTuple):
    """Embeddings that episodes gather from: items float32 [items, hidden], users float32 [users, hidden]."""

    items: Array
    users: Array


class Prepared(NamedTuple):
    """`Tables` that a model's ``prepare`` has processed (for example standardised).

    A separate type prevents confusion with `Tables`, which have the same shapes.
    """

    items: Array
    users: Array


class BatchRows(NamedTuple):
    """Embeddings of the rows of a batch, in place of a table that is too large for a device.

    Attributes:
        support: float [users, support, hidden].
        query: float [users, query, hidden].
        user: float [users, hidden].
    """

    support: Array
    query: Array
    user: Array
