"""Cold items: embedding of their texts, addition to the catalogue, and updates from first ratings without training."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items, Params
from metarec_jax.data.splits import Statistics
from metarec_jax.data.text import beginning
from metarec_jax.factors.update import Missing, after_ratings, missing, path_of, taste_of
from metarec_jax.recommender.errors import InputError, located
from metarec_jax.recommender.history import CheckedHistory, History, check_history
from metarec_jax.recommender.items import ItemIndex
from metarec_jax.recommender.text_encoder import TextEncoder


class ColdItem(NamedTuple):
    """An item without ratings.

    Attributes:
        text: text for the encoder.
        id: id of the item; "" lets the catalogue assign one.
        title: title of the item; "" uses the beginning of the text.
        details: details of the item, by the catalogue's names of details.
    """

    text: str
    id: str = ""
    title: str = ""
    details: Mapping[str, str] = {}


class ColdItems:
    """Adds items to a catalogue and learns from their ratings.

    Args:
        config: config of the run.
        items: the catalogue, to which items are added.
        texts: encoder of the items' texts.
        theta: parameters of the learner.

    Attributes:
        learns: whether ratings of added items may be used; False in a run under differential privacy.
    """

    def __init__(self, config: Config, items: ItemIndex, texts: TextEncoder, theta: Params):
        self.learns = not config.training.only_steps
        self._items, self._texts, self._theta = items, texts, theta
        self._trained_encoder = config.encoder.train != "no"
        self._unrated: dict[int, np.ndarray] = {}  # statistics of added items before any rating

    def read(
        self, items: Sequence[ColdItem], vectors: Float[np.ndarray, "items width"] | None = None
    ) -> tuple[Float[np.ndarray, "items hidden"], Float[np.ndarray, "items columns"]]:
        """Compute embeddings and statistics of items without ratings.

        Args:
            items: one or more items.
            vectors: float32 [items, width], NaN for an item without a vector; only for a run with item vectors.

        Returns:
            Embeddings of the texts, float32 [items, hidden]; and statistics, float32 [items, columns]: sum and number
            of ratings (both 0), then the predicted item factors if the run has any.

        Raises:
            InputError: a text is empty.
        """
        texts = [item.text for item in items]
        for text in texts:
            _check_text(text)
        embeddings = self._texts.encode(texts, side="document")
        statistic = np.zeros((len(items), 2), np.float32)
        beliefs = self._items.catalogue.beliefs
        if beliefs is not None:
            # Item factors are predicted from embeddings of the pretrained encoder, as when they were fitted.
            before = embeddings
            if self._trained_encoder:
                before = self._texts.encode(texts, side="document", pretrained=True)
            names = dict.fromkeys(name for item in items for name in item.details)
            details = {name: tuple(item.details.get(name, "") for item in items) for name in names}
            statistic = np.concatenate([statistic, beliefs.of_new_items(before, details, vectors)], axis=1)
        return embeddings, statistic.astype(np.float32)

    def check(self, item: ColdItem) -> None:
        """Check that an item can be added.

        Args:
            item: the item, whose id may be empty.

        Raises:
            InputError: an attribute is not valid; the error's field names it.
        """
        _check_text(item.text, "text")
        for name in item.details:
            self._items.details.check_name(name, "details", name)
        if item.id and self._items.titles.has_id(item.id):
            raise InputError(f"there is an item with the id {item.id!r} already: choose another one", "id")

    def new_ids(self) -> Iterator[str]:
        """Yield ids that are not in use in the catalogue."""
        first = len(self._items) + 1
        yield from (id for n in itertools.count(first) if not self._items.titles.has_id(id := f"new-{n}"))

    def add(self, item: ColdItem, vector: Sequence[float] | np.ndarray | None = None) -> str:
        """Add an item without ratings; see `Recommender.add_item`.

        Args:
            item: the item; an empty id is replaced by a new one, an empty title by the beginning of the text.
            vector: [width], vector of the item, for a run with item vectors.

        Returns:
            The id.

        Raises:
            InputError: a value is not valid; the error's field is the argument of `Recommender.add_item`.
        """
        self.check(item)
        row = _checked_vector(vector, self._items.catalogue.items.vectors)
        item = item._replace(id=item.id or next(self.new_ids()))
        self.append([item], *self.read([item], row), row)
        return item.id

    def append(
        self,
        new: Sequence[ColdItem],
        embeddings: Float[np.ndarray, "new hidden"],
        statistic: Float[np.ndarray, "new columns"],
        vectors: Float[np.ndarray, "new width"] | None = None,
    ) -> None:
        """Add items that were checked and read.

        Args:
            new: the items, whose ids the catalogue does not have.
            embeddings: from `read`.
            statistic: from `read`.
            vectors: vectors of the items; None if they have none.
        """
        old = self._items.catalogue.items
        if old.vectors is not None and vectors is None:
            vectors = np.full((len(new), old.vectors.shape[1]), np.nan, np.float32)
        items = Items(
            ids=(*old.ids, *(item.id for item in new)),
            titles=(*old.titles, *(title_of(item) for item in new)),
            texts=(*old.texts, *(item.text for item in new)),
            details={
                name: (*values, *(item.details.get(name, "") for item in new)) for name, values in old.details.items()
            },
            vectors=None if old.vectors is None or vectors is None else np.concatenate([old.vectors, vectors]),
            pictures=old.pictures,
        )
        self._unrated |= dict(enumerate(statistic, start=len(old)))
        self._items.add(items, embeddings, statistic)

    def learn(self, ratings_of: Mapping[str | int, Sequence[tuple[History, float]]]) -> None:
        """Set the statistics of added items from their ratings; see `Recommender.learn_item`.

        Args:
            ratings_of: for each item, the other ratings of each user who rated it, and the user's rating of it.

        Raises:
            MetarecError: an item was not added, the run is private, or a history or rating cannot be used.
        """
        before = self._items.catalogue.statistics
        total, count, beliefs = before.total.copy(), before.count.copy(), before.beliefs
        beliefs = None if beliefs is None else beliefs.copy()
        rows = np.zeros(len(ratings_of), np.int32)
        for place, (item, raters) in enumerate(ratings_of.items()):
            rows[place] = row = self._learnable(item)
            histories, ratings = self._checked(item, raters)
            total[row], count[row] = ratings.sum(), len(ratings)
            if beliefs is not None:
                beliefs[row] = self._believed(row, histories, ratings, beliefs)
        self._items.set_statistics(rows, Statistics(total, count, beliefs))

    def _learnable(self, item: str | int) -> int:
        """Return the row of an item, after a check that ratings may change its statistics."""
        row = self._items.find(item).row
        if row not in self._unrated:
            raise MetarecError(
                f"{item!r} was there when the model was trained: only items that were added learn while serving; "
                "train on the new ratings for the others"
            )
        if not self.learns:
            raise MetarecError("this run was trained under differential privacy and counts no ratings of any item")
        return row

    def _checked(
        self, item: str | int, raters: Sequence[tuple[History, float]]
    ) -> tuple[list[CheckedHistory], Float[np.ndarray, " raters"]]:
        scale, find = self._items.catalogue.scale, self._items.find
        histories, ratings = [], np.zeros(len(raters), np.float32)
        for place, (history, rating) in enumerate(raters):
            with located(place):
                ratings[place] = check_history([(item, rating)], find, scale).ratings[0]
                histories.append(check_history(history, find, scale))
        return histories, ratings

    def _believed(
        self,
        row: int,
        histories: Sequence[CheckedHistory],
        ratings: Float[np.ndarray, " raters"],
        beliefs: Float[np.ndarray, "items columns"],
    ) -> Float[np.ndarray, " columns"]:
        """Compute the factors of an added item, updated by its ratings."""
        learned = self._items.catalogue.beliefs
        unrated = self._unrated[row][2:]
        if learned is None or not histories:
            return unrated
        path = path_of(self._theta, learned)
        tastes = []
        for history in histories:
            old = history.rows < self._items.trained
            tastes.append(taste_of(beliefs[history.rows[old]], history.ratings[old], path))
        means, covariances = (np.stack(part) for part in zip(*tastes))
        noise = float(np.exp(path["log_noise"]))
        return after_ratings(unrated, means, covariances, ratings, noise, self._prediction_error)

    @functools.cached_property
    def _prediction_error(self) -> Missing:
        """Variance of item factors around their prediction from item features, over the items in training."""
        catalogue, trained = self._items.catalogue, slice(self._items.trained)
        assert catalogue.beliefs is not None
        items, embeddings = catalogue.items, catalogue.embeddings[trained]
        if self._trained_encoder:
            embeddings = self._texts.encode(items.texts[trained], side="document", pretrained=True)
        details = {name: values[trained] for name, values in items.details.items()}
        vectors = None if items.vectors is None else items.vectors[trained]
        return missing(catalogue.beliefs, embeddings, details, catalogue.statistics.count[trained], vectors)


def _check_text(text: str, *field: str | int) -> None:
    if not text.strip():
        raise InputError("the text of the item is empty, so the encoder has nothing to read: write some", *field)


def _checked_vector(vector: Sequence[float] | np.ndarray | None, others: np.ndarray | None) -> np.ndarray | None:
    """Return the vector of a new item, float32 [1, width], NaN if it has none; None in a run without item vectors."""
    if others is None:
        if vector is not None:
            raise InputError("a vector was given, but this run was trained without any: leave it out", "vector")
        return None
    if vector is None:
        return np.full((1, others.shape[1]), np.nan, np.float32)
    row = np.asarray(vector, np.float32)
    if row.shape != (others.shape[1],) or not np.isfinite(row).all():
        raise InputError(
            f"the item's vector has shape {row.shape}, or numbers that are not finite; "
            f"it must be {others.shape[1]} finite numbers, as those of other items are",
            "vector",
        )
    return row[None]


def title_of(item: ColdItem) -> str:
    """Return the title of an item; the beginning of its text if the title is empty."""
    return item.title.strip() or beginning(item.text)
