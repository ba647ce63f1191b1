"""Tasks with a fixed support and query, as evaluation protocols define them, and batches of them.

A task holds row numbers of the data set and is not drawn again, so that all models are evaluated on the same rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from metarec_jax.config.data import reaching
from metarec_jax.core.row_ranges import expand
from metarec_jax.core.types import Column, Episodes, Interactions, Rows
from metarec_jax.data.candidates import Candidates, beside, joined_rows
from metarec_jax.data.episodes import filled, statistics_of
from metarec_jax.data.splits import Folded, Statistics, counts_of


@dataclasses.dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks, one after the other; a user can have several.

    Attributes:
        user: int32 [tasks], rows of the user table.
        support: int64 [support rows], rows of the data set, task after task.
        supports: int64 [tasks], number of support rows of each task; 0 is allowed.
        query: int64 [query rows], rows of the data set, task after task.
        queries: int64 [tasks], number of query rows of each task, at least 1.
        shown: float32 [support rows], ratings that the model gets in place of those of the data set, if any.
    """

    user: np.ndarray
    support: np.ndarray
    supports: np.ndarray
    query: np.ndarray
    queries: np.ndarray
    shown: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    def each(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Support and query of each task: rows of the data set."""
        for first, known, start, asked in zip(*_parts(self.supports), *_parts(self.queries)):
            yield self.support[first : first + known], self.query[start : start + asked]


def make_tasks(user: Sequence[int] | np.ndarray, support: Sequence[np.ndarray], query: Sequence[np.ndarray]) -> Tasks:
    """`Tasks` from lists of rows.

    Args:
        user: int [tasks], rows of the user table.
        support: each task's support, rows of the data set.
        query: each task's query, rows of the data set.

    Returns:
        The tasks.
    """

    def whole(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

    def lengths(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([len(part) for part in parts], np.int64)

    return Tasks(np.asarray(user, np.int32), whole(support), lengths(support), whole(query), lengths(query))


def joined(parts: Sequence[Tasks]) -> Tasks:
    """The tasks of all `parts`, whose `Tasks.shown` is None."""
    fields = ("user", "support", "supports", "query", "queries")
    return Tasks(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


@dataclasses.dataclass(frozen=True, eq=False)
class TaskSource:
    """Batches of tasks by number, as `metarec_jax.data.episodes.EpisodeSource` gives batches of episodes.

    Args:
        data: the data set.
        tasks: the tasks.
        statistics: statistics of the training rows.
        trained: bool [rows], which rows of the data set train. If a row of a task is among them, its rating is left out
            of the statistics of its item, so that no label is among the inputs that predict it.
        buckets: support lengths that tasks are padded to; longer supports get further lengths
            (`metarec_jax.config.data.reaching`), so that none is cut.
        users_per_batch: tasks of a batch, fewer with those further lengths; smaller batches are filled up with tasks of
            weight 0.
        own_table: whether ``Episodes.user`` is the number of the task; otherwise it is the row of the data set's users.
        folded: cross-fitted item factors for tasks of users with training rows. They replace the factors of
            `statistics`, to which these users' own ratings contributed.
        candidates: items that follow the targets in each query, with rating 0 and their weight as mask.
    """

    data: Interactions
    tasks: Tasks
    statistics: Statistics
    trained: Column
    buckets: tuple[int, ...]
    users_per_batch: int
    own_table: bool = False
    folded: Folded | None = None
    candidates: Candidates | None = None

    draws = 1
    """Number of draws, as in `EpisodeSource`; tasks are not drawn again."""

    @functools.cached_property
    def lengths(self) -> tuple[int, ...]:
        """`buckets`, and the further lengths of longer supports."""
        return reaching(self.buckets, int(self.tasks.supports.max(initial=0)))

    @functools.cached_property
    def plan(self) -> list[tuple[int, np.ndarray]]:
        """The batches, as (bucket, numbers of the tasks)."""
        bucket = np.searchsorted(self.lengths, self.tasks.supports)
        found = []
        for b in range(len(self.lengths)):
            members = np.flatnonzero(bucket == b)
            batches = -(-len(members) // self._users(b))
            found += [(b, part) for part in np.array_split(members, batches)] if batches else []
        return found

    def _users(self, bucket: int) -> int:
        """Tasks of a batch: no batch has more support slots than a full one of the last of `buckets`."""
        return max(1, self.users_per_batch * self.buckets[-1] // max(self.lengths[bucket], self.buckets[-1]))

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self.plan)

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Episodes:
        """Batch `index` as numpy arrays."""
        bucket, members = self.plan[index]
        return filled(self._cut(members, self.lengths[bucket], index), self._users(bucket))

    def over_items(self, bucket: int, members: np.ndarray, items: np.ndarray) -> Episodes:
        """Tasks whose query is the same for all: some items, without ratings.

        Args:
            bucket: number of the support length.
            members: int [users], numbers of the tasks.
            items: int [query], rows of the items.

        Returns:
            The episodes. The statistics of an item that the user has a training row of are not corrected.
        """
        item = np.broadcast_to(items.astype(np.int32), (len(members), len(items)))
        nothing, real = np.zeros(item.shape, np.float32), np.ones(item.shape, bool)
        known = statistics_of(self.statistics, item, nothing, real, own=False, beliefs=self._beliefs(members, item))
        episodes = self._cut(members, self.lengths[bucket])
        return episodes._replace(query=Rows(item, nothing, real.astype(np.float32), known))

    def users_of(self, episodes: Episodes) -> np.ndarray:
        """int32 [users], the row of the data set's users for each task, also with ``own_table``."""
        return self.tasks.user[episodes.user] if self.own_table else episodes.user

    def batch_of_all(self, draw: int = 0) -> Episodes:
        """All tasks in one batch, in their order; `draw` is 0."""
        return self._cut(np.arange(len(self.tasks)), self.lengths[-1])

    def _cut(self, members: np.ndarray, length: int, batch: int = 0) -> Episodes:
        tasks = self.tasks
        return Episodes(
            user=(members if self.own_table else tasks.user[members]).astype(np.int32),
            support=self._rows(tasks.support, self._support, members, length, shown=tasks.shown, by_time=True),
            query=self._asked(members, batch),
            weight=np.ones(len(members), np.float32),
        )

    def _asked(self, members: np.ndarray, batch: int) -> Rows:
        tasks = self.tasks
        targets = self._rows(tasks.query, self._query, members, int(tasks.queries.max(initial=1)))
        if self.candidates is None:
            return targets
        owner, row = [], []
        for rows, (start, count) in ((tasks.support, self._support), (tasks.query, self._query)):
            own = count[members]
            row.append(rows[expand(start[members], own)])
            owner.append(np.repeat(np.arange(len(members)), own))
        drawn = self.candidates.draw(batch)
        item, weight = beside(drawn, np.concatenate(owner), self.data.item[np.concatenate(row)], len(members))
        nothing = np.zeros(item.shape, np.float32)
        beliefs = self._beliefs(members, item)
        statistic = statistics_of(self.statistics, item, nothing, weight > 0, own=False, beliefs=beliefs)
        return joined_rows(targets, Rows(item, nothing, weight, statistic))

    def _rows(
        self,
        rows: np.ndarray,
        parts: tuple[np.ndarray, np.ndarray],
        members: np.ndarray,
        length: int,
        *,
        shown: np.ndarray | None = None,
        by_time: bool = False,
    ) -> Rows:
        start, count = (part[members, None] for part in parts)
        real = np.arange(length) < count
        place = np.where(real, start + np.arange(length), 0)
        if not len(rows):  # no task has a support
            rows, shown = np.zeros(1, np.int64), None
        if by_time:  # latest first, as in episodes; of equal times, the later row first; padding comes last
            by_row = np.argsort(np.where(real, -rows[place], 1), axis=1, kind="stable")
            place = np.take_along_axis(place, by_row, axis=1)
            latest = np.argsort(
                np.where(real, -self.data.time[rows[place]], np.iinfo(np.int64).max), axis=1, kind="stable"
            )
            place = np.take_along_axis(place, latest, axis=1)
        row = rows[place]
        item = np.where(real, self.data.item[row], 0).astype(np.int32)
        rating = self.data.rating[row] if shown is None else shown[place]
        return Rows(
            item=item,
            rating=np.where(real, rating, 0).astype(np.float32),
            mask=real.astype(np.float32),
            statistic=statistics_of(
                self.statistics,
                item,
                self.data.rating[row],
                real,
                own=self.trained[row],
                beliefs=self._beliefs(members, item),
            ),
        )

    def _beliefs(self, members: np.ndarray, item: np.ndarray) -> np.ndarray | None:
        """Item factors of each task's items, [tasks, length, columns]; None takes those of `statistics`."""
        everyone = self.statistics.beliefs
        if self.folded is None or everyone is None:
            return None
        user = self.tasks.user[members]
        own = self.folded.tables[self.folded.fold[user][:, None], item]
        return np.where(self._has_trained[user][:, None, None], own, everyone[item])

    @functools.cached_property
    def _has_trained(self) -> np.ndarray:
        """bool [users], whether the user has a training row."""
        return counts_of(self.data, self.trained) > 0

    @functools.cached_property
    def _support(self) -> tuple[np.ndarray, np.ndarray]:
        return _parts(self.tasks.supports)

    @functools.cached_property
    def _query(self) -> tuple[np.ndarray, np.ndarray]:
        return _parts(self.tasks.queries)


def _parts(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row, and number of rows, of each task."""
    return np.cumsum(count) - count, count
