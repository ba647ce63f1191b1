"""Embeddings and statistics of the items on the device, with spare rows for new items.

Programs are compiled for the number of rows including spare ones, so that adding an item writes a row without
compilation; the tables grow only when no spare row is left. Products of the items with kernels that are shared by all
users are computed once and stored.

A table that is too large for this stays where it is, in memory or in a file. Programs then get the rows that a
call needs: those of the supports, and the items to score.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metarec_jax.core.exported_programs import Traced
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Episodes, Params, Prepared, Rows, Tables
from metarec_jax.learner.gathered_rows import multiply
from metarec_jax.meta.batch import plan_batch
from metarec_jax.meta.model import Model
from metarec_jax.recommender.growing_rows import GrowingRows, Source

MIN_SPARE, MAX_SPARE = 64, 8192
"""Bounds of the spare rows; between them an eighth of the catalogue. Spare rows are scored like all others, so they
cost time."""
MAX_WRITTEN = 16
"""Rows that are written into the tensors one by one, at most; with more, the tensors are built anew."""
MAX_GRAM_ITEMS = 4096
"""Rows of the largest table whose Gram matrix is stored: 64 MB."""
MAX_DEVICE_FLOATS = 1 << 27
"""Embeddings of the largest table that is held on the device: 512 MB, or 350,000 items of width 384."""

NO_ROWS = np.zeros(0, np.int32)
"""No row of the catalogue."""


class ItemTensors(NamedTuple):
    """The items as arguments of the programs; rows include the spare ones.

    Attributes:
        items: [rows, hidden], prepared embeddings.
        statistic: float32 [rows, columns], as in `metarec_jax.learner.inputs.Features`.
        products: path of a kernel of theta -> ``items @ kernel``, for shared kernels; empty where they are not
            precomputed.
        gram: [rows, rows], inner products of the items with each other; None where they are not precomputed, or the
            table is too large.
    """

    items: Array
    statistic: Array
    products: dict[str, Array]
    gram: Array | None


jax.export.register_namedtuple_serialization(
    ItemTensors, serialized_name="metarec_jax.recommender.item_table.ItemTensors"
)
"""Export of programs that return item tensors needs these types (see `metarec_jax.core.exported_programs`)."""


class ItemTable:
    """A growing table of items.

    Args:
        model: prepares and multiplies the embeddings.
        theta: parameters of the model.
        embeddings: float [items, hidden], an array or a file that is read by rows.
        statistic: float32 [items, columns], likewise.
        user_hidden: width of a user's embedding.
        told: identifier of the model, for `metarec_jax.core.exported_programs.Traced`.
        max_gram_items: rows of the largest table whose Gram matrix is stored.
        max_device_floats: numbers in the embeddings of the largest table that is held on the device.

    Attributes:
        count: number of items, without spare rows.
        on_device: whether all items are on the device; if not, `tensors_of` gathers those of a call.
        written: rows that were added or have changed, one array for each call of `add` and `set_statistic`.
    """

    def __init__(
        self,
        model: Model,
        theta: Params,
        embeddings: Source,
        statistic: Source,
        user_hidden: int,
        told: str,
        max_gram_items: int = MAX_GRAM_ITEMS,
        max_device_floats: int = MAX_DEVICE_FLOATS,
    ):
        self.count = embeddings.shape[0]
        self.on_device = self.count * embeddings.shape[1] <= max_device_floats
        self.written: list[np.ndarray] = []
        # Padded arrays; `GrowingRows` of a table that is not on the device.
        self._embeddings: Any
        self._statistic: Any
        self._model, self._theta, self._told = model, theta, f"{told}\n{user_hidden}"
        self._max_gram_items = max_gram_items
        self._no_user = np.zeros((1, user_hidden), np.float32)
        self._prepare = Traced(functools.partial(_prepared, model, self._no_user), self._told)
        if not self.on_device:
            self._embeddings, self._statistic = GrowingRows(embeddings), GrowingRows(statistic)
            return
        rows = self.count + min(max(MIN_SPARE, self.count // 8), MAX_SPARE)
        self._embeddings, self._statistic = (_padded(part[: self.count], rows) for part in (embeddings, statistic))
        self._restart(with_gram=self.count <= max_gram_items)

    def _restart(self, *, with_gram: bool) -> None:
        """Build the tensors from the whole table, without precomputed products."""
        self._with_gram, self._precomputed = with_gram, False
        self._tensors = self._prepare(self._theta, self._embeddings, self._statistic)

    def tensors(self, *, single_user: bool) -> ItemTensors:
        """Return the items as arguments of a program.

        Args:
            single_user: whether the call is for one user. With few items, precomputing products costs as much as such
                a call, and is then omitted.
        """
        if not self._precomputed and not (single_user and self._with_gram):
            self._tensors = self._precompute(self._theta, self._tensors, with_gram=self._with_gram)
            self._precomputed = True
        return self._tensors

    def tensors_of(
        self, support: Rows, more: Int[np.ndarray, " more"] = NO_ROWS, *, single_user: bool
    ) -> tuple[ItemTensors, Rows, Int[np.ndarray, " more"]]:
        """Return items as arguments of a program, with at least those of some supports.

        Args:
            support: supports of the users, by rows of the catalogue.
            more: further rows of the catalogue that the program reads.
            single_user: as for `tensors`.

        Returns:
            The items; the supports and the further rows, by rows of these items.
        """
        if self.on_device:
            return self.tensors(single_user=single_user), support, more
        rows = np.concatenate([np.asarray(support.item).reshape(-1), more])
        places = np.arange(len(rows), dtype=np.int32)
        own = places[: support.item.size].reshape(support.item.shape)
        found = self._prepare(self._theta, self._embeddings[rows], self._statistic[rows])
        return found, support._replace(item=own), places[support.item.size :]

    @functools.cached_property
    def _precompute(self) -> Traced:
        """`_with_products` for the kernels that multiply items, which an abstract evaluation of the model finds."""
        paths = _kernel_paths(self._model, self._theta, self._embeddings, self._statistic, self._no_user)
        return Traced(functools.partial(_with_products, paths), f"{self._told}\n{paths}", ["with_gram"])

    @property
    def rows(self) -> int:
        """Number of rows of the tables, including spare ones."""
        return len(self._embeddings)

    @property
    def embeddings(self) -> Any:
        """Embeddings of the items from the encoder, float32 [items, hidden]: an array or `GrowingRows`."""
        return self._embeddings[: self.count] if self.on_device else self._embeddings

    @property
    def statistic(self) -> Any:
        """Statistics of the items, float32 [items, columns]: an array or `GrowingRows`."""
        return self._statistic[: self.count] if self.on_device else self._statistic

    def add(self, embeddings: Float[np.ndarray, "new hidden"], statistic: Float[np.ndarray, "new columns"]) -> None:
        """Append items. Calls that are running keep the tensors they started with.

        Args:
            embeddings: float32 [new, hidden], as the encoder gave them.
            statistic: float32 [new, columns].
        """
        if not self.on_device:
            self._embeddings.append(embeddings)
            self._statistic.append(statistic)
        first, self.count = self.count, self.count + len(embeddings)
        self.written.append(np.arange(first, self.count))
        if not self.on_device:
            return
        rows = self.rows
        while rows < self.count:
            rows += min(rows, MAX_SPARE)
        grows = rows > self.rows
        if grows:
            self._embeddings, self._statistic = _padded(self._embeddings, rows), _padded(self._statistic, rows)
        self._embeddings[first : self.count], self._statistic[first : self.count] = embeddings, statistic
        if grows:
            self._restart(with_gram=self.rows <= self._max_gram_items)
        else:
            self._write_rows(np.arange(first, self.count))

    def set_statistic(self, rows: Int[np.ndarray, " changed"], statistic: Float[np.ndarray, "changed columns"]) -> None:
        """Replace the statistics of items. Calls that are running keep the tensors they started with.

        Args:
            rows: of the items; of a table that is not on the device, items that were added.
            statistic: float32 [changed, columns].
        """
        self.written.append(np.asarray(rows))
        if not self.on_device:
            self._statistic.replace(rows, statistic)
            return
        self._statistic[rows] = statistic
        self._write_rows(rows)

    def _write_rows(self, rows: np.ndarray) -> None:
        """Bring the tensors up to date with changed rows: one by one, or all at once where many have changed."""
        if len(rows) > MAX_WRITTEN:
            self._restart(with_gram=self._with_gram)
            return
        for row in rows.tolist():
            one = self._prepare(self._theta, self._embeddings[row : row + 1], self._statistic[row : row + 1])
            if self._precomputed:
                one = self._precompute(self._theta, one, with_gram=False)
            self._tensors = _write(self._tensors, one, np.int32(row))


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    return np.pad(np.asarray(rows, np.float32), ((0, count - len(rows)), (0, 0)))


def _kernel_paths(
    model: Model, theta: Params, embeddings: np.ndarray, statistic: np.ndarray, users: np.ndarray
) -> tuple[str, ...]:
    """Paths of the shared kernels that are multiplied with rows of items."""
    one = np.zeros((1, 1), np.float32)
    support = Rows(np.zeros((1, 1), np.int32), one, one, np.zeros((1, 1, statistic.shape[1]), np.float32))
    items = np.zeros((1, embeddings.shape[1]), np.float32)
    tables = jax.eval_shape(model.prepare, theta, Tables(items, users))
    episodes = Episodes(np.zeros(1, np.int32), support, query=support, weight=None)
    plan = plan_batch(model, theta, tables, episodes)
    return tuple(path for path, met in plan.met if met & {"support", "query"})


def _prepared(model: Model, users: np.ndarray, theta: Params, embeddings: Array, statistic: Array) -> ItemTensors:
    return ItemTensors(model.prepare(theta, Tables(embeddings, users)).items, statistic, {}, None)


def _with_products(paths: tuple[str, ...], theta: Params, tensors: ItemTensors, *, with_gram: bool) -> ItemTensors:
    """Add the products that do not depend on the user."""
    kernels = dict(zip(path_names(theta), jax.tree.leaves(theta)))
    items, dtype = tensors.items, jnp.result_type(*jax.tree.leaves(theta))
    gram = jnp.matmul(items, items.T, preferred_element_type=dtype) if with_gram else None
    return tensors._replace(products={path: multiply(items, kernels[path]) for path in paths}, gram=gram)


@jax.jit
def _write(tensors: ItemTensors, one: ItemTensors, row: Array) -> ItemTensors:
    """Replace one row."""

    def put(whole: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice(whole, new, (row, 0))

    items, statistic, products = (jax.tree.map(put, a, b) for a, b in zip(tensors[:3], one[:3]))
    gram = tensors.gram
    if gram is not None:
        column = jnp.matmul(items, one.items[0], preferred_element_type=gram.dtype)
        gram = gram.at[row].set(column).at[:, row].set(column)
    return ItemTensors(items, statistic, products, gram)


def tables_of(model: Model, theta: Params, tensors: ItemTensors, users: Float[Array, "users hidden"]) -> Prepared:
    """Prepared tables for a program.

    Args:
        model: the model.
        theta: parameters of the model.
        tensors: the items.
        users: float32 [users, hidden], embeddings from the encoder.

    Returns:
        The prepared tables.
    """
    none = tensors.items[:0]
    return Prepared(tensors.items, model.prepare(theta, Tables(none, users)).users)
