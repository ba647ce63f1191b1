"""Items that are added while serving: read, stored, given to the models, and updated from their ratings.

An item is in the store before the models have it, and the models follow the store: what is served is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.cold_items import ColdItem, title_of
from metarec_jax.recommender.history import History
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.database import StoreError
from metarec_jax.serving.rows import NewItem
from metarec_jax.serving.store import Store

MAX_RATERS = 200
"""Latest raters that an added item learns from; with more ratings, train the model again."""
MAX_ADDED = 10_000
"""Items that can be added to a trained model."""
LEARNED_AT_ONCE = 16
"""Items that learn before a batch of requests is answered, at most, so that no request waits long."""


class Full(MetarecError):
    """No more items can be added until the model is trained again."""


class AddedItems:
    """The items of a store that the models were not trained with.

    `note_rated`, `adds`, `history` and `store` may be called from any thread; the others from the thread that computes.

    Args:
        arms: the models by name; all have the same items.
        store: the database; its items are added to the models.
        max_added: items that can be added, at most.

    Raises:
        StoreError: the store cannot be read.
        Unavailable: a stored item was not read before, and an encoder cannot be used.
    """

    def __init__(self, arms: Mapping[str, Recommender], store: Store, max_added: int = MAX_ADDED):
        self._arms, self._store, self._max_added = arms, store, max_added
        self._first = next(iter(arms.values()))
        self._trained = self._first.items.trained
        self._noted: dict[str, None] = {}  # ids of added items that were rated since they learned
        self._followed = 0  # number of the latest item of the store that the models have
        self.follow()
        self.learn([item for item in store.rated_items() if self.adds(item)])

    def read(self, item: NewItem) -> dict[str, bytes]:
        """Check an item that is to be added, and read it with every model.

        Args:
            item: the item; its id may be empty.

        Returns:
            What `Store.add_item` keeps of each model, by its digest.

        Raises:
            InputError: the item has a mistake.
            Full: too many items were added already.
            Unavailable: an encoder cannot be used.
        """
        if len(self._first.items) - self._trained >= self._max_added:
            raise Full(f"{self._max_added:,} items were added already: train the model anew, on the log, to add more")
        self._first.cold_items.check(ColdItem(item.text, item.id, item.title, item.details))
        return {arm.codec.digest: _packed(*arm.cold_items.read([_cold(item, arm)]))[0] for arm in self._arms.values()}

    def add(self, item: NewItem) -> str:
        """Add an item: read it, store it, and only then give it to the models. Errors are those of the three steps.

        Args:
            item: the item; an empty id is generated.

        Returns:
            Its id.
        """
        identity = self.store(item, self.read(item))
        self.follow()
        return identity

    def store(self, item: NewItem, readings: Mapping[str, bytes]) -> str:
        """Store an item, which the models get with the next call of `follow`.

        Args:
            item: the item; an empty id is generated.
            readings: from `read`.

        Returns:
            Its id.

        Raises:
            InputError: its id is taken.
            StoreError: it cannot be stored.
        """
        item = item._replace(title=title_of(_cold(item, self._first)))
        return self._store.add_item(item, readings, self._first.cold_items.new_ids())

    def follow(self) -> None:
        """Give the models the items of the store that they lack.

        Items that the models were trained with since they were added (on the log of this store) are not new. What a
        model has not read before, as after a new training, it reads now, and the store keeps it.

        Raises:
            StoreError: the store cannot be read.
            Unavailable: an encoder is needed and cannot be used.
        """
        stored = self._store.items(self._followed)
        new = [item for _, item in stored if not self._first.items.titles.has_id(item.id)]
        if new:
            read = [self._readings(arm, new) for arm in self._arms.values()]
            for arm, (embeddings, statistic) in zip(self._arms.values(), read):
                arm.cold_items.append([_cold(item, arm) for item in new], embeddings, statistic)
        self._followed = max((number for number, _ in stored), default=self._followed)

    def _readings(self, arm: Recommender, new: Sequence[NewItem]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings and statistics of stored items: those that the store keeps, or else read now."""
        table, digest = arm.items.table, arm.codec.digest
        hidden = table.embeddings.shape[1]
        kept = self._store.readings(digest, self._followed)
        rows = np.zeros((len(new), hidden + table.statistic.shape[1]), np.float32)
        unread = []
        for n, item in enumerate(new):
            row = np.frombuffer(kept.get(item.id, b""), np.uint8)
            if len(row) == rows[n].nbytes and np.isfinite(row.view(np.float32)).all():
                rows[n] = row.view(np.float32)
            else:
                unread.append(n)
        if unread:
            packed = _packed(*arm.cold_items.read([_cold(new[n], arm) for n in unread]))
            for n, reading in zip(unread, packed):
                rows[n] = np.frombuffer(reading, np.float32)
            self._store.add_readings(digest, {new[n].id: reading for n, reading in zip(unread, packed)})
        return rows[:, :hidden], rows[:, hidden:]

    def adds(self, item: str) -> bool:
        """Whether an item was added while serving, and so learns from ratings."""
        titles = self._first.items.titles
        return titles.has_id(item) and titles.find_id(item).row >= self._trained

    def note_rated(self, items: Iterable[str]) -> bool:
        """Note that ratings of some items were added or removed, for `learn_noted`.

        Args:
            items: ids.

        Returns:
            Whether any of them learns from ratings.
        """
        added = [item for item in items if self.adds(item)]
        self._noted |= dict.fromkeys(added)
        return bool(added)

    def learn_noted(self) -> None:
        """Update items whose ratings changed since the last call. If the store cannot be read, a later call does."""
        learning = list(self._noted)[:LEARNED_AT_ONCE]
        if not learning:
            return
        for item in learning:
            self._noted.pop(item, None)
        try:
            self.learn(learning)
        except StoreError:
            self._noted |= dict.fromkeys(learning)

    def learn(self, items: Sequence[str]) -> None:
        """Update added items from their stored ratings.

        Args:
            items: their ids.

        Raises:
            StoreError: the store cannot be read.
        """
        if not items:
            return
        raters = {
            item: [(user, own) for user, own in self._store.raters(item, MAX_RATERS) if self._fits(own)]
            for item in items
        }
        histories = {user: self.history(user) for user in {user for rated in raters.values() for user, _ in rated}}
        ratings_of: dict[str | int, list[tuple[History, float]]] = {
            f"id:{item}": [([(f"id:{i}", r) for i, r in histories[user] if i != item], own) for user, own in rated]
            for item, rated in raters.items()
        }
        for recommender in self._arms.values():
            if recommender.cold_items.learns:
                recommender.cold_items.learn(ratings_of)

    def history(self, user: str) -> list[tuple[str, float]]:
        """A stored user's ratings that fit the models: a store may have ratings of items, or on a scale, that a run
        lacks."""
        has_id = self._first.items.titles.has_id
        return [(item, rating) for item, rating in self._store.history(user) if has_id(item) and self._fits(rating)]

    def _fits(self, rating: float) -> bool:
        scale = self._first.catalogue.scale
        return rating in scale.levels if scale.kind == "click" else scale.low <= rating <= scale.high


def _cold(item: NewItem, recommender: Recommender) -> ColdItem:
    """An item as a model takes it, with the details that its run has: runs may differ."""
    known = recommender.catalogue.items.details
    return ColdItem(item.text, item.id, item.title, {name: v for name, v in item.details.items() if name in known})


def _packed(embeddings: np.ndarray, statistic: np.ndarray) -> list[bytes]:
    """The float32 bytes of what a model read in each item."""
    return [row.tobytes() for row in np.concatenate([embeddings, statistic], axis=1).astype(np.float32)]
