"""Lists over the whole catalogue: tasks as sparse matrices, and metrics of each user, computed in chunks of users."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.row_ranges import Selection, where
from metarec_jax.core.types import Interactions
from metarec_jax.data.tasks import Tasks
from metarec_jax.metrics import catalogue_exposure
from metarec_jax.metrics.catalogue_exposure import Exposure, exposure
from metarec_jax.metrics.catalogue_ranking import catalogue_metrics

FLOATS_AT_ONCE = 1 << 22
"""Greatest number of scores of a chunk of users."""
SUFFIX = "_list"
"""Metrics of lists have this at the end of their name in tables, before the cutoff."""


@dataclasses.dataclass(frozen=True)
class Lists:
    """Tasks whose answer is a list; columns of the matrices are the candidate items.

    Attributes:
        user: int32 [tasks], rows of the data set's users.
        clicked: float32 CSR [tasks, candidates], 1 for the clicks that are shown.
        shown: float32 CSR [tasks, candidates], 1 for everything that is shown: no candidate of this user.
        targets: float32 CSR [tasks, candidates], 1 for the targets.
        items: int64 [candidates], their rows in the catalogue.
    """

    user: np.ndarray
    clicked: sparse.csr_matrix
    shown: sparse.csr_matrix
    targets: sparse.csr_matrix
    items: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def chunks(self) -> Iterator[np.ndarray]:
        """Numbers of the tasks, in chunks of at most `FLOATS_AT_ONCE` scores (or of one user)."""
        size = max(1, FLOATS_AT_ONCE // max(len(self.items), 1))
        for first in range(0, len(self), size):
            yield np.arange(first, min(first + size, len(self)))


Scores = Callable[[Lists], Iterator[tuple[np.ndarray, np.ndarray]]]
"""A method: lists -> (numbers of some tasks, their scores [n, candidates]), each task once."""


class Judged(NamedTuple):
    """Metrics of one method: of each user [tasks], and of all users together, by name."""

    values: Mapping[str, np.ndarray]
    overall: Mapping[str, float]


def lists_of(data: Interactions, tasks: Tasks, candidates: np.ndarray) -> Lists:
    """Make lists of tasks.

    Args:
        data: the data set.
        tasks: tasks of it; the query rows are the targets.
        candidates: bool [items].

    Returns:
        The lists.

    Raises:
        MetarecError: a user has two rows of one item, one of which is shown and one a target.
    """
    place = np.cumsum(candidates) - 1
    width = int(candidates.sum())
    clicked = data.rating >= data.scale.least_liked

    def matrix(rows: np.ndarray, count: np.ndarray, allowed: np.ndarray) -> sparse.csr_matrix:
        task = np.repeat(np.arange(len(tasks)), count)
        kept = candidates[data.item[rows]] & allowed[rows]
        return incidence(task[kept], place[data.item[rows[kept]]], (len(tasks), width))

    everything = np.ones(len(data), bool)
    found = Lists(
        user=tasks.user,
        clicked=matrix(tasks.support, tasks.supports, clicked),
        shown=matrix(tasks.support, tasks.supports, everything),
        targets=matrix(tasks.query, tasks.queries, everything),
        items=np.flatnonzero(candidates),
    )
    both = found.shown.multiply(found.targets).tocoo()
    if both.nnz:
        user, item = data.users.ids[tasks.user[both.row[0]]], data.items.ids[found.items[both.col[0]]]
        raise MetarecError(
            f"{data.source} has two rows of user {shown(user)} and item {shown(item)}, of which one is shown and one "
            "is a target: give each pair of user and item one row"
        )
    return found


def training_clicks(data: Interactions, rows: Selection, candidates: np.ndarray) -> sparse.csr_matrix:
    """The clicks of training users.

    Args:
        data: the data set.
        rows: the rows that train.
        candidates: bool [items].

    Returns:
        float32 CSR [training users, candidates], 1 for a click; users without a click have no row.
    """
    least = data.scale.least_liked
    rows = where(rows, lambda some: (data.rating[some] >= least) & candidates[data.item[some]])
    users, user = np.unique(data.user[rows], return_inverse=True)
    place = np.cumsum(candidates) - 1
    return incidence(user, place[data.item[rows]], (len(users), int(candidates.sum())))


def incidence(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """A float32 CSR matrix with 1 at (row, column), however often these are named.

    Args:
        row, column: int [n].
        shape: of the matrix.

    Returns:
        The matrix.
    """
    found = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape, dtype=np.float32)
    found.sum_duplicates()
    found.data[:] = 1
    return found


def in_chunks(score: Callable[[sparse.csr_matrix], np.ndarray]) -> Scores:
    """Make a method of a function from shown clicks to scores.

    Args:
        score: float32 CSR [n, candidates] -> float [n, candidates].

    Returns:
        The method.
    """

    def scores(lists: Lists) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for members in lists.chunks():
            yield members, score(sparse.csr_matrix(lists.clicked[members]))

    return scores


def judge(
    lists: Lists, scores: Scores, names: Sequence[str], clicks: np.ndarray, training_users: int, *, method: str
) -> Judged:
    """Compute the metrics of a method.

    Args:
        lists: the tasks.
        scores: the method.
        names: metrics, such as "recall_list@20"; their definitions are in `metarec_jax.metrics.definitions`.
        clicks: float [candidates], number of training users who clicked each.
        training_users: number of training users.
        method: name of the method, for messages.

    Returns:
        The metrics.

    Raises:
        MetarecError: a score is not finite.
    """
    plain = {name: name.replace(SUFFIX, "") for name in names}
    shows = {name: short for name, short in plain.items() if short.partition("@")[0] in catalogue_exposure.NAMES}
    finds = {name: short for name, short in plain.items() if name not in shows}
    cutoffs = {int(short.partition("@")[2]) for short in shows.values()}
    values = {name: np.zeros(len(lists)) for name in names if not name.startswith("coverage")}
    missing = {k: np.zeros(len(lists.items)) for k in cutoffs}
    for members, found in scores(lists):
        if not np.isfinite(found).all():
            raise MetarecError(f"the scores of {method!r} are not finite: no list can be made of them")
        hidden, targets = (_columns(sparse.csr_matrix(part[members])) for part in (lists.shown, lists.targets))
        for short, value in catalogue_metrics(found, hidden, targets, tuple(finds.values())).items():
            values[next(name for name, other in finds.items() if other == short)][members] = value
        for k in cutoffs:
            seen = exposure(found, hidden, clicks, training_users, k)
            missing[k] += seen.missing
            for name in shows.keys() & values.keys():
                if name.endswith(f"@{k}"):
                    values[name][members] = getattr(seen, name.partition(SUFFIX)[0])
    none = np.zeros(0)
    overall = {
        name: Exposure(none, none, missing[int(short.partition("@")[2])]).coverage
        for name, short in shows.items()
        if name not in values
    }
    return Judged(values, overall)


def _columns(matrix: sparse.csr_matrix) -> list[np.ndarray]:
    return np.split(matrix.indices, matrix.indptr[1:-1])
