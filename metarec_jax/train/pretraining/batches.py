"""Inputs of each step, by its number: passages with words to hide, and likes of some users."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from metarec_jax.encoder import TextRows, Texts
from metarec_jax.train.pretraining.contrastive import Liked
from metarec_jax.train.pretraining.text_batches import Passages, PassageSource


class Likes(NamedTuple):
    """Texts to encode for the contrastive loss, and the liked items of each user."""

    rows: tuple[TextRows, ...]
    liked: Liked


class Batch(NamedTuple):
    """Inputs of a step; None for an objective that is not trained."""

    passages: Passages | None
    likes: Likes | None


@dataclasses.dataclass(frozen=True, eq=False)
class LikeSource:
    """Batches of users, each with some of the items that the user likes.

    Args:
        liked: int32 [liked], ascending, the items of each user; users with fewer than two are left out.
        texts: texts of all items.
        users_per_step: users of a batch; the last one of an epoch is padded with users without likes.
        per_user: greatest number of items of a user, drawn anew every time.
        seed: seed of the draws.
        targets: items that may be positives and negatives; None takes all.
        anchors: items that may be anchors; None takes all.
    """

    liked: Sequence[np.ndarray]
    texts: Texts
    users_per_step: int
    per_user: int
    seed: Sequence[int]
    targets: Bool[np.ndarray, " items"] | None = None
    anchors: Bool[np.ndarray, " items"] | None = None

    @functools.cached_property
    def _users(self) -> np.ndarray:
        return np.flatnonzero([len(own) > 1 for own in self.liked])

    @property
    def batches(self) -> int:
        """Number of batches of an epoch, in which every user occurs once."""
        return -(-len(self._users) // self.users_per_step)

    def __getitem__(self, index: int) -> Likes:
        """Batch `index` as numpy arrays."""
        epoch, number = divmod(int(index), self.batches)
        order = np.random.default_rng([*self.seed, epoch, 0]).permutation(self._users)
        users = order[number * self.users_per_step : (number + 1) * self.users_per_step]
        rng = np.random.default_rng([*self.seed, epoch, 1 + number])
        item = np.zeros((self.users_per_step, self.per_user), np.int64)
        real = np.zeros(item.shape, bool)
        for row, user in enumerate(users):
            own = rng.permutation(self.liked[user])[: self.per_user]
            item[row, : len(own)], real[row, : len(own)] = own, True
        most = item.size
        rows, slot = self.texts.pick(item, real, most)
        anchor, target = (real if among is None else real & among[item] for among in (self.anchors, self.targets))
        slots = self.texts.slots(most)
        count = np.bincount(slot[target], minlength=slots).astype(np.float32)
        negative = np.zeros((self.users_per_step, slots), np.float32)
        for row, user in enumerate(users):
            negative[row] = count
            negative[row, slot[real & np.isin(item, self.liked[user])]] = 0
        return Likes(rows, Liked(slot, anchor.astype(np.float32), target.astype(np.float32), negative))


@dataclasses.dataclass(frozen=True, eq=False)
class StepSource:
    """Inputs of every step of a pretraining.

    Args:
        steps: number of steps.
        items, behaviour: passages of items' texts and of users' histories, or None.
        item_share: share of the steps that read items, where there are both.
        likes: liked items of users, or None.
    """

    steps: int
    items: PassageSource | None
    behaviour: PassageSource | None
    item_share: float
    likes: LikeSource | None

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Batch:
        """Inputs of step `index`, as numpy arrays."""
        if not 0 <= index < self.steps:
            raise IndexError(f"step {index} of {self.steps}")
        return Batch(self._passages(int(index)), None if self.likes is None else self.likes[index])

    def _passages(self, index: int) -> Passages | None:
        before, after = int(index * self.item_share), int((index + 1) * self.item_share)
        if self.items is not None and (self.behaviour is None or after > before):
            return self.items[before if self.behaviour is not None else index]
        return None if self.behaviour is None else self.behaviour[index - before]
