"""Episodes of users in batches: a pure function of (seed, epoch, index).

An epoch divides the users into batches whose supports fit the same bucket. The rows of a batch are drawn when it is
made (`draw_rows`), and no others are read: its time and memory do not grow with the data. Any batch of any epoch can be
made in any order. A support is always in descending order of time, since learners may read it as a sequence.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.row_ranges import expand
from metarec_jax.core.types import Episodes, Rows
from metarec_jax.data.candidates import Candidates, beside, joined_rows
from metarec_jax.data.histories import Histories, draw_rows
from metarec_jax.data.random_streams import random_at
from metarec_jax.data.splits import Folded, Statistics

_ASKED = 0.2
"""Share of a user's clicks that are the query, where candidates follow the targets."""


class _Drawn(NamedTuple):
    """Rows of some users in the order of a draw.

    Attributes:
        rows: int64 [rows], rows of the histories, user after user.
        first: int64 [users], the first row of each user in `rows`.
        start: int64 [users], the first row of each user in the histories.
        uniform: float32 [rows], uniform between 0 and 1: decides which rows of the histories are dropped, in their
            order, user after user; None where none is.
    """

    rows: np.ndarray
    first: np.ndarray
    start: np.ndarray
    uniform: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class EpisodeSource:
    """Batches of episodes by number: ``source[i]`` is batch ``i % batches`` of epoch ``i // batches``.

    Args:
        histories: the users.
        config: lengths and order.
        statistics: item statistics of the training users.
        training: whether these users are among the training users. The statistics of their episodes then leave out
            the user's own ratings, so that no label is among the inputs that predict it.
        users_per_batch: users of a batch; smaller ones are filled up with users of weight 0.
        seed: seed of all draws.
        epochs: number of epochs; evaluation uses one.
        own_table: whether ``Episodes.user`` is a row of a user table made for this source, with a row for each user
            and draw, ``user * draws + draw``; otherwise it is the row of the data set's users.
        folded: cross-fitted item factors for these users' episodes, in place of the factors in `statistics`.
        candidates: items that follow the targets in each query, with rating 0 and their weight as mask.
    """

    histories: Histories
    config: EpisodeConfig
    statistics: Statistics
    training: bool
    users_per_batch: int
    seed: int
    epochs: int = 1
    own_table: bool = False
    folded: Folded | None = None
    candidates: Candidates | None = None

    def __post_init__(self) -> None:
        query = 1 if self.candidates else self.config.query
        short = np.flatnonzero(self.histories.count <= query)
        if len(short):
            raise MetarecError(
                f"user row {self.histories.users[short[0]]} has {self.histories.count[short[0]]} interactions, but a "
                f"query of {query} and at least one support interaction need {query + 1}: "
                "lower --episodes.query or raise --episodes.min-ratings"
            )

    @functools.cached_property
    def query_lengths(self) -> np.ndarray:
        """int64 [users], query interactions of each user."""
        count = self.histories.count
        if self.candidates is None:
            return np.full(len(count), self.config.query)
        return np.clip(np.round(_ASKED * count).astype(np.int64), 1, self.config.query)

    @functools.cached_property
    def support_lengths(self) -> np.ndarray:
        """int64 [users], support interactions of each user."""
        return np.minimum(self.histories.count - self.query_lengths, self.config.max_support)

    @functools.cached_property
    def bucket(self) -> np.ndarray:
        """int64 [users], number of the smallest bucket that each user's support fits."""
        return np.searchsorted(self.config.buckets, self.support_lengths)

    @functools.cached_property
    def _batches_of_bucket(self) -> np.ndarray:
        users_of_bucket = np.bincount(self.bucket, minlength=len(self.config.buckets))
        return -(-users_of_bucket // self.users_per_batch)

    @property
    def batches(self) -> int:
        """Batches of each epoch."""
        return int(self._batches_of_bucket.sum())

    @property
    def longest(self) -> int:
        """Number of the first batch whose supports are padded to the greatest length of the first epoch."""
        return int(np.argmax([bucket for bucket, _ in self._plan(0)]))

    @property
    def draws(self) -> int:
        """Number of different draws of support and query; the epochs take them in turn."""
        return min(self.config.draws, self.epochs) or self.epochs

    def __len__(self) -> int:
        return self.epochs * self.batches

    def __getitem__(self, index: int) -> Episodes:
        """Batch `index` as numpy arrays."""
        return self.part(index, np.arange(self.users_per_batch))

    def part(self, index: int, places: np.ndarray) -> Episodes:
        """A part of a batch, which costs what this part alone takes.

        Args:
            index: number of the batch.
            places: int [n], places in the batch, ascending; behind its last user are ones of weight 0.

        Returns:
            The users at these places.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        epoch, batch = divmod(index, self.batches)
        bucket, members = self._plan(epoch)[batch]
        own = members[places[places < len(members)]]
        return filled(self._cut(epoch % self.draws, own, self.config.buckets[bucket], index), len(places))

    def users_in(self, index: int) -> np.ndarray:
        """int32 [users], the rows of the data set's users in batch `index`, in their order."""
        epoch, batch = divmod(int(index), self.batches)
        return self.histories.users[self._plan(epoch)[batch][1]]

    def chosen(self, epoch: int, members: np.ndarray) -> Episodes:
        """Episodes of some users in an epoch, padded to the last bucket.

        Args:
            epoch: number of the epoch.
            members: int [n], which users of `histories`.

        Returns:
            The episodes, in the order of `members`.
        """
        return self._cut(epoch % self.draws, members, self.config.buckets[-1])

    def users_of(self, episodes: Episodes) -> np.ndarray:
        """int32 [users], the row of the data set's users for each episode, also with ``own_table``."""
        return self.histories.users[episodes.user // self.draws] if self.own_table else episodes.user

    def batch_of_all(self, draw: int) -> Episodes:
        """All users in one batch, in the order of `histories`, in draw number `draw`."""
        return self._cut(draw, np.arange(len(self.histories.users)), self.config.buckets[-1])

    def _draw(self, draw: int, members: np.ndarray) -> _Drawn:
        own = self.histories
        start, count = own.start[members], own.count[members]
        drops = self.training and self.folded is not None and self.folded.as_new is not None
        return _Drawn(
            draw_rows(own, self.config.order, self.seed, draw, members),
            np.cumsum(count) - count,
            start,
            random_at([self.seed, 5, draw], start, count, np.float32) if drops else None,
        )

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a source lives as long as its run; the batches of an epoch share this
    def _plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The batches of an epoch, as (bucket, users)."""
        rng = np.random.default_rng([self.seed, 2, epoch])
        plan = []
        for bucket, batches in enumerate(self._batches_of_bucket):
            members = np.flatnonzero(self.bucket == bucket)
            if self.training:
                members = rng.permutation(members)
            # Near-equal parts: the gradient of a last batch of two users would be mostly noise.
            plan += [(bucket, part) for part in np.array_split(members, batches)] if batches else []
        return [plan[i] for i in rng.permutation(len(plan))] if self.training else plan

    def _drawn_lengths(self, draw: int, members: np.ndarray) -> np.ndarray:
        """int64 [users], support interactions of some users in this draw (`EpisodeConfig.lengths`)."""
        most = self.support_lengths[members]
        if not self.training or self.config.lengths == "all":
            return most
        share = random_at([self.seed, 3, draw], members, np.ones_like(members))
        return np.minimum(np.floor((most + 2.0) ** share).astype(np.int64) - 1, most)

    def _cut(self, draw: int, members: np.ndarray, length: int, batch: int = 0) -> Episodes:
        query, drawn = self.query_lengths[members], self._draw(draw, members)
        asked = np.minimum(self.histories.count[members], query)
        lengths = self._drawn_lengths(draw, members)
        return Episodes(
            user=(members * self.draws + draw if self.own_table else self.histories.users[members]).astype(np.int32),
            support=self._rows(drawn, members, query, lengths, length, by_time=True),
            query=self._query(drawn, members, asked, batch),
            weight=np.ones(len(members), np.float32),
        )

    def _query(self, drawn: _Drawn, members: np.ndarray, count: np.ndarray, batch: int) -> Rows:
        targets = self._rows(drawn, members, np.zeros_like(count), count, self.config.query)
        if self.candidates is None:
            return targets
        own = self.histories.count[members]
        owner = np.repeat(np.arange(len(members)), own)
        others = self.candidates.draw(batch)
        item, weight = beside(others, owner, self.histories.item[expand(drawn.start, own)], len(members))
        uniform = np.random.default_rng([self.seed, 9, batch]).random(item.shape[1], np.float32)
        nothing = np.zeros(item.shape, np.float32)
        statistic = self._statistic(members, item, nothing, weight > 0, np.broadcast_to(uniform, item.shape))
        return joined_rows(targets, Rows(item, nothing, weight, statistic))

    def _rows(
        self,
        drawn: _Drawn,
        members: np.ndarray,
        skipped: np.ndarray,
        count: np.ndarray,
        length: int,
        *,
        by_time: bool = False,
    ) -> Rows:
        """Rows [users, length]: `count` of each user's, after the first `skipped` of the draw."""
        real = np.arange(length) < count[:, None]
        rows = drawn.rows[np.where(real, (drawn.first + skipped)[:, None] + np.arange(length), 0)]
        if by_time:  # latest first: a user's rows of `histories` are in ascending order of time; padding comes last
            rows = -np.sort(np.where(real, -rows, 1), axis=1)
        item = np.where(real, self.histories.item[rows], 0).astype(np.int32)
        rating = np.where(real, self.histories.rating[rows], 0).astype(np.float32)
        uniform = None
        if drawn.uniform is not None:
            uniform = drawn.uniform[np.where(real, rows + (drawn.first - drawn.start)[:, None], 0)]
        statistic = self._statistic(members, item, rating, real, uniform)
        return Rows(item=item, rating=rating, mask=real.astype(np.float32), statistic=statistic)

    def _statistic(
        self, members: np.ndarray, item: np.ndarray, rating: np.ndarray, real: np.ndarray, uniform: np.ndarray | None
    ) -> np.ndarray:
        """Statistics of rows [users, n] of some users; `uniform` decides which rows get the factors of a new item."""
        known = functools.partial(statistics_of, self.statistics, item, rating, real)
        own = self.training & (rating != 0) if self.candidates else self.training
        if self.folded is None:
            return known(own=own)
        fold = self.folded.fold[self.histories.users[members]][:, None]
        statistic = known(own=own, beliefs=self.folded.tables[fold, item])
        if self.training and self.folded.as_new is not None and uniform is not None:
            new, belief = self.folded.as_new.drop(fold, item, uniform)
            unrated = np.pad(belief, [(0, 0), (0, 0), (statistic.shape[-1] - belief.shape[-1], 0)])
            statistic = np.where((new & real)[..., None], unrated, statistic)
        return statistic


def statistics_of(
    statistics: Statistics,
    item: np.ndarray,
    rating: np.ndarray,
    real: np.ndarray,
    *,
    own: bool | np.ndarray,
    beliefs: np.ndarray | None = None,
) -> np.ndarray:
    """The statistics of items that the learner reads: sum and count of ratings, and item factors if there are any.

    Args:
        statistics: statistics of the training users.
        item: int [...], rows of the items.
        rating: [...], the user's own ratings.
        real: bool [...], False in padded slots.
        own: bool [...], where sum and count include the user's own rating, which is then subtracted.
        beliefs: [..., columns], posteriors of item factors, in place of those in `statistics`.

    Returns:
        float32 [..., 2 + columns], 0 where not `real`.
    """
    own = own & (statistics.count[item] > 0)  # no row of an item without a count was counted, so none is left out
    total = statistics.total[item] - np.where(own, rating, 0)
    count = statistics.count[item] - np.where(own, 1, 0)
    known = np.stack([total, count], axis=-1)
    if beliefs is None and statistics.beliefs is not None:
        beliefs = statistics.beliefs[item]
    if beliefs is not None:
        known = np.concatenate([known, beliefs], axis=-1)
    return np.where(real[..., None], known, 0).astype(np.float32)


def filled(episodes: Episodes, users: int) -> Episodes:
    """Fill a batch up to `users` episodes with empty ones of weight 0.

    Args:
        episodes: the batch.
        users: number of episodes of the result.

    Returns:
        The filled batch.
    """
    missing = users - len(episodes.user)

    def padded(leaf: np.ndarray) -> np.ndarray:
        return np.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))

    return Episodes(
        user=padded(episodes.user),
        support=Rows(*map(padded, episodes.support)),
        query=Rows(*map(padded, episodes.query)),
        weight=padded(episodes.weight),
    )
