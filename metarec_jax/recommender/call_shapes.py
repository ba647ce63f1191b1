"""Shapes of the calls of compiled programs: supports and batches of users are padded to a few sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.types import Params, Rows
from metarec_jax.meta.model import Model
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.recommender.item_table import MAX_DEVICE_FLOATS, MAX_GRAM_ITEMS, ItemTable
from metarec_jax.recommender.programs import UserTask

Part = TypeVar("Part")
Result = TypeVar("Result")
EXPLAINED_PER_CALL = 10
"""Number of items that are explained in one call; there is one other program, for a single item."""


class Limits(NamedTuple):
    """Limits on the size of parallel computations.

    Attributes:
        batch_sizes: numbers of users in a call, ascending; a call for fewer users is padded to the next size.
        floats_per_call: greatest number of floats that a call holds at any time.
        floats_at_once: greatest number of floats in the widest layer of a parallel computation, so that it fits a
            processor's caches.
        users_adapted_at_once: greatest number of users whose inner loops run in parallel.
        items_at_once: greatest number of items that are scored in parallel.
        gram_items: greatest number of rows of an item table whose Gram matrix is stored.
        device_floats: greatest number of floats in the embeddings of an item table that is held on the device.
        whole_items: greatest number of items of which each list ranks all; with more, the whole model ranks
            `candidates` (see `metarec_jax.recommender.retrieval`).
        candidates: number of items that the whole model ranks where it does not rank all.
    """

    batch_sizes: tuple[int, ...] = (1, 4, 16, 64, 256)
    floats_per_call: int = 1 << 25
    floats_at_once: int = 1 << 20
    users_adapted_at_once: int = 32
    items_at_once: int = 4096
    gram_items: int = MAX_GRAM_ITEMS
    device_floats: int = MAX_DEVICE_FLOATS
    whole_items: int = 16_384
    candidates: int = 4096


class CallShapes:
    """Pads the inputs of calls, and divides users into calls.

    Args:
        config: support lengths of the run.
        model: the functions.
        table: the items.
        limits: limits on parallel computations.

    Attributes:
        buckets: padded support lengths, ascending.
        sizes: padded numbers of users in a call, ascending.
        users_at_once: number of users whose items are scored in parallel.
    """

    def __init__(self, config: EpisodeConfig, model: Model, table: ItemTable, limits: Limits):
        self._table = table
        self.buckets, self._max_support = config.buckets, config.max_support
        # A call holds the scores of its users, and for a large catalogue products of all items with their supports.
        longest, items = self.buckets[-1], table.count if table.on_device else min(table.count, limits.items_at_once)
        each = items if items <= limits.gram_items else items * (1 + longest)
        self.sizes = [s for s in limits.batch_sizes if s == 1 or s * each <= limits.floats_per_call]
        widest = model.floats_per_row(longest) * min(items, limits.items_at_once)
        self.users_at_once = 1 << (max(limits.floats_at_once // widest, 1).bit_length() - 1)

    def blank(self, length: int, rating: float = 0.0) -> CheckedHistory:
        """Make a history that is as long as the latest ratings of a user that a support holds.

        Args:
            length: number of ratings of the user.
            rating: value of every rating.

        Returns:
            The history, of the first items of the catalogue.
        """
        held = min(length, self._max_support)
        return CheckedHistory(np.arange(held, dtype=np.int32) % self._table.count, np.full(held, rating, np.float32))

    def bucket(self, length: int) -> int:
        """The padded support length of a history of `length` ratings."""
        return next(bucket for bucket in self.buckets if bucket >= min(length, self._max_support))

    def size(self, users: int) -> int:
        """The padded batch size of `users` users."""
        return next(size for size in self.sizes if size >= users)

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions of the users of each call; users of one call have equal padded support lengths (`lengths`)."""
        of_length: dict[int, list[int]] = defaultdict(list)
        for user, length in enumerate(lengths):
            of_length[length].append(user)
        for users in of_length.values():
            for start in range(0, len(users), self.sizes[-1]):
                yield users[start : start + self.sizes[-1]]

    def supports(self, histories: Sequence[CheckedHistory]) -> Rows:
        """The support of each user, padded to the smallest bucket that holds all of them."""
        latest = [history.latest(self._max_support) for history in histories]
        count = np.array([len(rows) for rows, _ in latest])
        real = np.arange(self.bucket(int(count.max()))) < count[:, None]
        item, rating = np.zeros(real.shape, np.int32), np.zeros(real.shape, np.float32)
        item[real] = np.concatenate([rows for rows, _ in latest])
        rating[real] = np.concatenate([ratings for _, ratings in latest])
        statistic = np.where(real[..., None], self._table.statistic[item], 0).astype(np.float32)
        return Rows(item=item, rating=rating, mask=real.astype(np.float32), statistic=statistic)

    def task(self, embeddings: np.ndarray, supports: Rows, adapted: Params = ()) -> UserTask:
        """Make the argument of a program; the first user is repeated to pad the batch to one of the sizes.

        Args:
            embeddings: float32 [users, hidden], embeddings of the users' texts.
            supports: from `supports`.
            adapted: adapted parameters of the users; () where the program adapts.

        Returns:
            The argument.
        """
        users = len(embeddings)
        order = [u if u < users else 0 for u in range(self.size(users))]
        return jax.tree.map(lambda leaf: leaf[order], UserTask(embeddings, supports, adapted))


def explained_parts(rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the rows that are explained in one call, and their padded number."""
    for start in range(0, len(rows), EXPLAINED_PER_CALL):
        part = rows[start : start + EXPLAINED_PER_CALL]
        yield part, 1 if len(part) == 1 else EXPLAINED_PER_CALL


def one_ahead(parts: Iterable[Part], call: Callable[[Part], Result]) -> Iterator[tuple[Part, Result]]:
    """Call a function for each part; the next call is started before a result is read, so that the device is busy.

    Args:
        parts: arguments of the calls.
        call: starts a computation on the device, without waiting for its result.

    Yields:
        Each part and the result of its call.
    """
    running = None
    for part in parts:
        called = part, call(part)
        if running is not None:
            yield running
        running = called
    if running is not None:
        yield running
