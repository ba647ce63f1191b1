"""The items that can be recommended, as the programs read them: on the device, with room for more.

Programs are compiled for as many rows as there is room for, so that a new item is a row written into a table, and
nothing is compiled or indexed anew; only when the room is used up is there more. What an item's row is multiplied with
is the same for all users, so it is multiplied once, here, and not in every call.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.core.exported_programs import Traced
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Episodes, Params, Prepared, Rows, Tables
from metarec_jax.learner.gathered_rows import multiply
from metarec_jax.meta.batch import plan_batch
from metarec_jax.meta.user import Model

SPARE, MOST_SPARE = 64, 8192
"""Rows that there is room for beyond the catalogue, at least and at most: at first an eighth of the catalogue. They are
scored like all others, so that of a large catalogue an eighth would take an eighth of the time."""
MOST_IN_GRAM = 4096
"""Items of the largest catalogue whose inner products with each other are kept: 64 MB."""


class Shelves(NamedTuple):
    """What programs take of the items, each with a row for every item and for those to come.

    Attributes:
        items: [room, hidden], embeddings as the learner wants them.
        statistic: float32 [room, columns], as `metarec_jax.learner.inputs.Features` has it.
        products: path of a kernel of theta -> ``items @ kernel``, of kernels that no user changes; none where they
            are not known beforehand.
        gram: [room, room], inner products of the items with each other; None where they are not known beforehand, or
            the catalogue is too large.
    """

    items: Array
    statistic: Array
    products: dict[str, Array]
    gram: Array | None


jax.export.register_namedtuple_serialization(Shelves, serialized_name="metarec_jax.recommender.item_table.Shelves")
"""So that programs that give shelves can be kept (see `metarec_jax.core.exported_programs`)."""


class Shelf:
    """A growing table of items.

    Args:
        model, theta: what reads the items.
        embeddings: float32 [items, hidden].
        statistic: float32 [items, columns].
        user_hidden: width of a user's embedding.
        told: what the model follows from, as `metarec_jax.core.exported_programs.Traced` wants it.
    """

    def __init__(
        self,
        model: Model,
        theta: Params,
        embeddings: Float[np.ndarray, "items hidden"],
        statistic: Float[np.ndarray, "items columns"],
        user_hidden: int,
        told: str,
    ):
        self.count = len(embeddings)
        self._theta = theta
        room = self.count + min(max(SPARE, self.count // 8), MOST_SPARE)
        self._embeddings, self._statistic = (_with_room(rows, room) for rows in (embeddings, statistic))
        self._users = np.zeros((1, user_hidden), np.float32)
        self._model, self._told = model, f"{told}\n{user_hidden}"
        self._plain = Traced(functools.partial(_plain, model, self._users), self._told)
        self._with_gram = self.count <= MOST_IN_GRAM
        self._shelves = self._bare()
        self._knows = False

    def take(self, *, alone: bool) -> Shelves:
        """What a call needs of the items.

        For one user (`alone`) and few items, what can be known beforehand is no more than what is asked, so it is not
        computed for that alone.
        """
        if not self._knows and not (alone and self._with_gram):
            self._shelves, self._knows = self._known(self._theta, self._shelves, with_gram=self._with_gram), True
        return self._shelves

    @functools.cached_property
    def _known(self) -> Traced:
        """`_known_of` with the kernels that this model's items meet, which takes an abstract run of it to know."""
        paths = _paths(self._model, self._theta, self._embeddings, self._statistic, self._users)
        return Traced(functools.partial(_known_of, paths), f"{self._told}\n{paths}", ["with_gram"])

    @property
    def room(self) -> int:
        """Rows of the tables."""
        return len(self._embeddings)

    @property
    def embeddings(self) -> Float[np.ndarray, "items hidden"]:
        """Of the items that there are, as the encoder gave them."""
        return self._embeddings[: self.count]

    @property
    def statistic(self) -> Float[np.ndarray, "items columns"]:
        """Of the items that there are."""
        return self._statistic[: self.count]

    def add(self, embedding: Float[np.ndarray, " hidden"], statistic: Float[np.ndarray, " columns"]) -> int:
        """Puts one more item on the shelf; returns its row. Calls under way go on with what they began with."""
        row = self.count
        grown = row == self.room
        if grown:
            room = row + min(row, MOST_SPARE)
            self._embeddings, self._statistic = (_with_room(a, room) for a in (self._embeddings, self._statistic))
        self._embeddings[row], self._statistic[row] = embedding, statistic
        self.count = row + 1
        if grown:
            self._with_gram = self.room <= MOST_IN_GRAM
            self._shelves, self._knows = self._bare(), False
        else:
            self._put(row)
        return row

    def change(self, row: int, statistic: Float[np.ndarray, " columns"]) -> None:
        """Puts other statistics beside an item. Calls under way go on with what they began with."""
        self._statistic[row] = statistic
        self._put(row)

    def _put(self, row: int) -> None:
        one = self._plain(self._theta, self._embeddings[row : row + 1], self._statistic[row : row + 1])
        if self._knows:
            one = self._known(self._theta, one, with_gram=False)
        self._shelves = _write(self._shelves, one, np.int32(row))

    def _bare(self) -> Shelves:
        return self._plain(self._theta, self._embeddings, self._statistic)


def _with_room(rows: np.ndarray, room: int) -> np.ndarray:
    return np.pad(np.asarray(rows, np.float32), ((0, room - len(rows)), (0, 0)))


def _paths(
    model: Model, theta: Params, embeddings: np.ndarray, statistic: np.ndarray, users: np.ndarray
) -> tuple[str, ...]:
    """Kernels that meet rows of items, and that no user changes."""
    one = np.zeros((1, 1), np.float32)
    support = Rows(np.zeros((1, 1), np.int32), one, one, np.zeros((1, 1, statistic.shape[1]), np.float32))
    items = np.zeros((1, embeddings.shape[1]), np.float32)
    tables = jax.eval_shape(model.prepare, theta, Tables(items, users))
    episodes = Episodes(np.zeros(1, np.int32), support, query=support, weight=None)
    plan = plan_batch(model, theta, tables, episodes)
    return tuple(path for path, met in plan.met if met & {"support", "query"})


def _plain(model: Model, users: np.ndarray, theta: Params, embeddings: Array, statistic: Array) -> Shelves:
    return Shelves(model.prepare(theta, Tables(embeddings, users)).items, statistic, {}, None)


def _known_of(paths: tuple[str, ...], theta: Params, shelves: Shelves, *, with_gram: bool) -> Shelves:
    """`shelves` with what does not depend on who asks."""
    kernels = dict(zip(path_names(theta), jax.tree.leaves(theta)))
    items, dtype = shelves.items, jnp.result_type(*jax.tree.leaves(theta))
    gram = jnp.matmul(items, items.T, preferred_element_type=dtype) if with_gram else None
    return shelves._replace(products={path: multiply(items, kernels[path]) for path in paths}, gram=gram)


@jax.jit
def _write(shelves: Shelves, one: Shelves, row: Array) -> Shelves:
    """`shelves` with another row."""

    def put(whole: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice(whole, new, (row, 0))

    items, statistic, products = (jax.tree.map(put, a, b) for a, b in zip(shelves[:3], one[:3]))
    gram = shelves.gram
    if gram is not None:
        alike = jnp.matmul(items, one.items[0], preferred_element_type=gram.dtype)
        gram = gram.at[row].set(alike).at[:, row].set(alike)
    return Shelves(items, statistic, products, gram)


def tables_of(model: Model, theta: Params, shelves: Shelves, users: Float[Array, "users hidden"]) -> Prepared:
    """Tables for a program, from embeddings of its users as the encoder gave them."""
    none = shelves.items[:0]
    return Prepared(shelves.items, model.prepare(theta, Tables(none, users)).users)
