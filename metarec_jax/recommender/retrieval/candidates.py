"""Two-stage ranking: candidates from the linear part of each user's adapted model, then the whole model on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.call_shapes import Limits
from metarec_jax.recommender.executor import Executor
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.recommender.item_table import ItemTable
from metarec_jax.recommender.programs import ItemRows
from metarec_jax.recommender.retrieval import index_file
from metarec_jax.recommender.retrieval.build import build_index, recall
from metarec_jax.recommender.retrieval.graph import Graph
from metarec_jax.recommender.retrieval.item_vectors import ItemVectors, sample_rows
from metarec_jax.recommender.retrieval.linear_fit import LinearFit
from metarec_jax.recommender.retrieval.vectors import Index
from metarec_jax.recommender.user_state import UserState

_MADE_UP = 16
"""Number of users with which recall is measured."""
FITTED = 2048
"""Number of items whose scores the linear part is fitted to."""


class Candidates:
    """Proposes the items that the whole model ranks.

    Args:
        table: the items.
        executor: scores items.
        limits: when to propose, and how many.

    Attributes:
        count: number of items that are proposed.
    """

    def __init__(self, table: ItemTable, executor: Executor, limits: Limits):
        self.count = limits.candidates
        self._table, self._executor, self._limits = table, executor, limits
        self._index: Index | None = None
        self._read = 0

    def needed(self, k: int) -> bool:
        """Whether lists of `k` items come from candidates.

        They do with more items than `Limits.whole_items`, and with at least four candidates for each place.
        """
        return self._table.count > max(self._limits.whole_items, self.count) and 4 * k <= self.count

    @functools.cached_property
    def vectors(self) -> ItemVectors:
        """Vectors of the items, which the index is built of."""
        return ItemVectors(self._table, self._executor.trainable.theta)

    @functools.cached_property
    def fit(self) -> LinearFit:
        """Fits the linear part."""
        return LinearFit(self.vectors, sample_rows(self._table.count, FITTED))

    @functools.cached_property
    def _sample(self) -> ItemRows:
        return self._executor.item_rows(self.fit.rows)

    def queries(self, states: Sequence[UserState]) -> Float[np.ndarray, "users columns"]:
        """The linear part of each user's adapted model, as a query of the index."""
        return np.stack([self.fit.query(scores) for scores in self._executor.score_of_many(states, self._sample)])

    @property
    def index(self) -> Index:
        """The index, built at the first use unless `use` chose one; it follows items that are added or change."""
        if self._index is None:
            self.use("scan")
        assert self._index is not None
        first, self._read = self._read, len(self._table.written)
        if first < self._read:
            self._index.put(np.concatenate(self._table.written[first : self._read]))
        return self._index

    def use(self, kind: str, report: Callable[[str], None] = print) -> Index:
        """Build an index of the items, and measure the recall of one that is not exact.

        Args:
            kind: "scan" reads all items; "graph" reads some, with the package usearch; "approximate-scan" is a scan
                with `approx_max_k`.
            report: told the recall.

        Returns:
            The index.

        Raises:
            MetarecError: there is no such kind, or a package that it needs is not installed.
        """
        self._read = len(self._table.written)
        self._index = build_index(self.vectors, kind)
        if kind != "scan":
            exact = self._index.scan if isinstance(self._index, Graph) else build_index(self.vectors)
            share = recall(self._index, exact, self._made_up_queries(), self.count)
            report(
                f'the index "{kind}" finds {share:.2%} of the {self.count:,} candidates of the exact scan '
                f"({_MADE_UP} users with made-up ratings)"
            )
        return self._index

    def _made_up_queries(self) -> Float[np.ndarray, "queries columns"]:
        """Queries of users with random ratings of some items."""
        rng = np.random.default_rng(0)
        scale = self._executor.scale.standardised()
        histories = [
            CheckedHistory(
                rng.choice(self.fit.rows, min(10, len(self.fit.rows)), replace=False).astype(np.int32),
                rng.choice(np.linspace(scale.low, scale.high, 5), min(10, len(self.fit.rows))).astype(np.float32),
            )
            for _ in range(_MADE_UP)
        ]
        states = self._executor.adapt(histories, [self._executor.average_user] * _MADE_UP)
        return self.queries(states)

    def save(self, path: index_file.Path) -> None:
        """Write the index to a file, for `load`.

        Args:
            path: the file.

        Raises:
            MetarecError: items were added, which the run does not have, or the file cannot be written.
        """
        if self._table.written:
            raise MetarecError("items were added or have changed: save the index before, since the run lacks them")
        index_file.save(self.index, path, self._digest)

    def load(self, path: index_file.Path) -> None:
        """Read the index that `save` wrote for this run.

        Args:
            path: the file.

        Raises:
            MetarecError: the file is missing or damaged, or is of another run; or items were added before.
        """
        if self._table.written:
            raise MetarecError("items were added or have changed: load the index before, since the file lacks them")
        index = index_file.load(self.vectors, path, self._digest)
        self._index, self._read = index, 0

    @property
    def _digest(self) -> str:
        return self._executor.digest

    def warm(self) -> None:
        """Build the index, and compile the programs that propose and rank candidates of one user."""
        for state in self._executor.blank_states():
            (rows,) = self.rows([state], None, exclude_seen=True)
            self._executor.score_rows(state, rows)
            self._executor.score_rows_with_deviation(state, rows)

    def rows(
        self,
        states: Sequence[UserState],
        allowed: Bool[np.ndarray, " items"] | None,
        *,
        exclude_seen: bool,
    ) -> list[Int[np.ndarray, " candidates"]]:
        """Propose items to each user.

        Args:
            states: states of the users.
            allowed: which items may be proposed; None allows all.
            exclude_seen: whether items of the user's history are left out.

        Returns:
            For each user up to `count` rows of the catalogue, ascending.
        """
        if allowed is not None and np.count_nonzero(allowed) <= self.count:
            few = np.flatnonzero(allowed)
            return [np.setdiff1d(few, state.history.rows) if exclude_seen else few for state in states]
        index, found = self.index, []
        for state, query in zip(states, self.queries(states) if states else ()):
            without = state.history.rows if exclude_seen else ()
            found.append(np.sort(index.top(query, self.count, allowed, without).rows))
        return found
