"""The catalogue of a recommender, with indexes by title, id, detail and row; items can be added."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from metarec_jax.core import arguments
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.data.episodes import statistics_of
from metarec_jax.data.splits import Statistics
from metarec_jax.factors.item_factors import FACTORS
from metarec_jax.recommender.errors import located
from metarec_jax.recommender.filters import ALL, DetailIndex, Filters
from metarec_jax.recommender.item_table import ItemTable
from metarec_jax.recommender.title_search import Match, TitleIndex
from metarec_jax.recommender.top_rows import top_rows
from metarec_jax.train.catalogue import Catalogue

_BLOCK = 1 << 15
"""Number of items that are compared with one item at a time."""


class Recommendation(NamedTuple):
    """A recommended item.

    Attributes:
        id: id of the item in the data set.
        title: title of the item.
        score: expected rating, or probability of a click.
        ratings: number of training users who rated the item.
    """

    id: str
    title: str
    score: float
    ratings: int


class ItemIndex:
    """Finds items, and keeps the catalogue, its indexes and its device table consistent when items are added.

    Args:
        catalogue: catalogue of the run.
        table: its embeddings and statistics on the device.

    Attributes:
        catalogue: the catalogue with the items added so far; it is replaced, never changed in place.
        table: the device table.
        titles: finds items by title and id.
        details: finds items by detail.
        trained: number of items in training; later rows were added.
    """

    def __init__(self, catalogue: Catalogue, table: ItemTable):
        self.catalogue, self.table = catalogue, table
        self.titles = TitleIndex(catalogue.items, catalogue.statistics.count)
        self.details = DetailIndex(catalogue.items)
        self.trained = len(catalogue.items)

    def __len__(self) -> int:
        return len(self.catalogue.items)

    def find(self, item: str | int) -> Match:
        """Look up an item by title, by "id:" and id, or by id as an int.

        Raises:
            MetarecError: there is no such item, or the title fits several.
        """
        try:
            item = arguments.item(item)
        except arguments.Unfit as unfit:
            raise MetarecError(f"an item is {arguments.with_type(item)}; pass {unfit}") from unfit
        return self.titles.find(item) if isinstance(item, str) else self.titles.find_id(item)

    def rows(self, items: Sequence[str | int]) -> Int[np.ndarray, " items"]:
        """Look up rows of items, each given as for `find`.

        Raises:
            InputError: an item is unknown or ambiguous; the field is the position in `items`.
        """
        return _rows(self.find, items)

    def rows_of_ids(self, ids: Sequence[str | int]) -> Int[np.ndarray, " items"]:
        """Look up rows of items by id.

        Raises:
            InputError: an id is unknown; the field is the position in `ids`.
        """
        return _rows(self.titles.find_id, ids)

    def recommendations(self, rows: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> list[Recommendation]:
        """Make recommendations of rows.

        Args:
            rows: rows of the catalogue, best first.
            scores: their scores.

        Returns:
            The recommendations, in the order of `rows`.
        """
        items, count = self.catalogue.items, self.catalogue.statistics.count
        return [
            Recommendation(items.ids[row], items.titles[row], float(score), int(count[row]))
            for row, score in zip(rows.tolist(), scores)
        ]

    def allowed(self, filters: Filters) -> Bool[np.ndarray, " items"]:
        """Which items meet the conditions of `filters`.

        Raises:
            InputError: a detail or item is unknown, or a range is empty; the field is the path within `filters`.
        """
        allowed = self.details.matches(filters)
        with located("exclude"):
            allowed[self.rows(filters.exclude)] = False
        return allowed

    def candidates(
        self,
        seen: Int[np.ndarray, " history"],
        allowed: Bool[np.ndarray, " items"] | None = None,
        exclude_seen: bool = True,
    ) -> Bool[np.ndarray, " items"]:
        """Which items can be in a user's list.

        Args:
            seen: rows of the user's history.
            allowed: from `allowed`; None allows all.
            exclude_seen: whether items of the history are left out.

        Returns:
            bool [items].
        """
        candidates = np.ones(len(self), bool) if allowed is None else allowed.copy()
        candidates[seen] &= not exclude_seen
        return candidates

    def check_k(self, k: int) -> None:
        """Refuse a list length that is not between 1 and the number of items.

        Raises:
            MetarecError: `k` is out of range.
        """
        if not 1 <= k <= len(self):
            raise MetarecError(f"k is {k}; it must lie between 1 and {len(self)}, the number of items")

    def similar(
        self, row: int, k: int, by: Literal["auto", "text", "taste"] = "auto", filters: Filters = ALL
    ) -> tuple[Int[np.ndarray, " found"], Float[np.ndarray, " items"]]:
        """Find the items most similar to one item; see `Recommender.similar`.

        Args:
            row: row of the item.
            k: list length, 1 to the number of items.
            by: which vectors are compared.
            filters: which items may be found.

        Returns:
            Rows of the items, most similar first, and the cosine of every item of the catalogue.

        Raises:
            MetarecError: `k` is out of range, or the run has no item factors.
        """
        self.check_k(k)
        if by not in ("auto", "text", "taste"):
            raise MetarecError(f"by is {by!r}; it must be 'auto', 'text' or 'taste'")
        catalogue = self.catalogue  # read once: another thread may be adding an item
        beliefs = catalogue.statistics.beliefs
        if by == "taste" and beliefs is None:
            raise MetarecError("this run has no item factors: compare by text, or train with --factors.rank 32")
        vectors = catalogue.embeddings if by == "text" or beliefs is None else beliefs[:, FACTORS:]
        wanted = vectors[row : row + 1][0]
        size = float(np.sqrt(wanted @ wanted))
        cosine = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _BLOCK):  # embeddings may be a file that does not fit into memory
            part = vectors[start : start + _BLOCK]
            length = np.sqrt(np.einsum("ij,ij->i", part, part))
            cosine[start : start + _BLOCK] = part @ wanted / np.maximum(length * size, 1e-12)
        candidates = np.ones(len(vectors), bool) if filters == ALL else self.allowed(filters)
        candidates[row] = False
        return top_k(cosine, k, candidates), cosine

    def add(
        self, items: Items, embeddings: Float[np.ndarray, "new hidden"], statistic: Float[np.ndarray, "new columns"]
    ) -> None:
        """Append items. Other threads may search meanwhile.

        Args:
            items: the items of the catalogue, and the new ones at the end.
            embeddings: embeddings of the new items.
            statistic: statistics of the new items, [total, count, beliefs...].
        """
        total, count, beliefs = self.catalogue.statistics
        statistics = Statistics(np.append(total, statistic[:, 0]), np.append(count, statistic[:, 1]))
        if beliefs is not None:
            statistics = statistics._replace(beliefs=np.concatenate([beliefs, statistic[:, 2:]]))
        self.table.add(embeddings, statistic)
        self.catalogue = dataclasses.replace(
            self.catalogue, items=items, statistics=statistics, embeddings=self.table.embeddings
        )
        self.details.add(items)
        self.titles.add(items, statistics.count)  # last, so that an item that is found has all its data

    def set_statistics(self, rows: Int[np.ndarray, " changed"], statistics: Statistics) -> None:
        """Replace the statistics of the catalogue.

        Args:
            rows: rows of the items whose statistics differ; no others may differ.
            statistics: of all items.
        """
        self.catalogue = dataclasses.replace(self.catalogue, statistics=statistics)
        self.table.set_statistic(rows, statistic_columns(statistics, rows))


def statistic_columns(statistics: Statistics, rows: np.ndarray) -> Float[np.ndarray, "*rows columns"]:
    """Convert statistics of items to the learner's input: total, count, and the posterior of item factors.

    Args:
        statistics: statistics of all items.
        rows: int [...], rows of the items.

    Returns:
        float32 [..., columns].
    """
    return statistics_of(statistics, rows, np.zeros(rows.shape), np.ones(rows.shape, bool), own=False)


class StatisticRows:
    """Statistics of items as rows of the learner's input, which are made when they are read."""

    def __init__(self, statistics: Statistics):
        self._statistics = statistics
        beliefs = statistics.beliefs
        self.shape: tuple[int, ...] = (len(statistics.count), 2 + (0 if beliefs is None else beliefs.shape[1]))

    def __getitem__(self, rows: Any) -> Float[np.ndarray, ...]:
        """Rows by number, float32."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        return statistic_columns(self._statistics, rows)


def top_k(
    scores: Float[np.ndarray, " items"], k: int, candidates: Bool[np.ndarray, " items"]
) -> Int[np.ndarray, " found"]:
    """Find the `k` highest scores among the candidates.

    Args:
        scores: float [items].
        k: greatest number of rows to return.
        candidates: bool [items].

    Returns:
        Rows by descending score; the lower row first where scores are equal.
    """
    return top_rows(scores, k, np.flatnonzero(candidates))


def _rows(find: Callable[[Any], Match], items: Sequence[str | int]) -> Int[np.ndarray, " items"]:
    """The rows that `find` gives; an error has the position of its item in `items`."""
    rows = np.zeros(len(items), np.int32)
    for place, item in enumerate(items):
        with located(place):
            rows[place] = find(item).row
    return rows
