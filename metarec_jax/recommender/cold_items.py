"""New items: embedded by their text, added to the catalogue, and updated from their first ratings without training."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from metarec_jax.config.run import Config, covers_all
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items, Params
from metarec_jax.data.splits import Statistics
from metarec_jax.factors.update import Missing, after_ratings, missing, path_of, taste_of
from metarec_jax.recommender.errors import InputError, located
from metarec_jax.recommender.history import History, check_history
from metarec_jax.recommender.items import ItemIndex
from metarec_jax.recommender.text_encoder import TextEncoder


class ColdItems:
    """Adds items to a catalogue and learns from their ratings.

    Args:
        config: config of the run.
        items: the catalogue, which grows.
        texts: encodes the items' texts.
        theta: parameters of the learner.

    Attributes:
        learns: whether ratings of added items may be used; False in a run under differential privacy.
    """

    def __init__(self, config: Config, items: ItemIndex, texts: TextEncoder, theta: Params):
        self.learns = not covers_all(config)
        self._items, self._texts, self._theta = items, texts, theta
        self._trained_encoder = config.encoder.train != "no"
        self._unrated: dict[int, np.ndarray] = {}  # statistics of added items before any rating

    def read(
        self, text: str, details: Mapping[str, str], vector: np.ndarray | None = None
    ) -> tuple[Float[np.ndarray, "one hidden"], Float[np.ndarray, "one columns"]]:
        """Compute the embedding and the statistic of an item without ratings.

        Args:
            text: text of the item.
            details: details of the item.
            vector: float32 [1, width], vector of the item, for a run with item vectors.

        Returns:
            float32 embedding and statistic.

        Raises:
            InputError: the text is empty.
        """
        _check_text(text)
        embedding = self._texts.encode([text])
        statistic = np.zeros((1, 2), np.float32)
        beliefs = self._items.catalogue.beliefs
        if beliefs is not None:
            # Item factors are predicted from the embedding that they were learned with.
            before = self._texts.encode([text], pretrained=True) if self._trained_encoder else embedding
            values: dict[str, tuple[str, ...]] = {name: (value,) for name, value in details.items()}
            statistic = np.concatenate([statistic, beliefs.of_new_items(before, values, vector)], axis=1)
        return embedding, statistic.astype(np.float32)

    def add(
        self,
        text: str,
        id: str,
        title: str,
        details: Mapping[str, str],
        vector: Sequence[float] | np.ndarray | None,
    ) -> str:
        """Add an item without ratings; see `Recommender.add_item`.

        Args:
            text: text of the item, which the encoder reads.
            id: id of the item; "" generates one.
            title: title of the item; "" takes the beginning of the text.
            details: details of the item, by the catalogue's names of details.
            vector: vector of the item, for a run with item vectors.

        Returns:
            The id.

        Raises:
            InputError: an argument is refused; the field is its name.
        """
        old = self._items.catalogue.items
        _check_text(text, "text")
        for name in details:
            self._items.details.check_name(name, "details", name)
        if id and self._items.titles.has_id(id):
            raise InputError(f"there is an item with the id {id!r} already: choose another one", "id")
        number = len(old) + 1
        while not id or self._items.titles.has_id(id):
            id, number = f"new-{number}", number + 1
        row = _checked_vector(vector, old.vectors)
        embedding, statistic = self.read(text, details, row)
        items = Items(
            ids=(*old.ids, id),
            titles=(*old.titles, title.strip() or _beginning(text)),
            texts=(*old.texts, text),
            details={name: (*values, details.get(name, "")) for name, values in old.details.items()},
            vectors=None if old.vectors is None or row is None else np.concatenate([old.vectors, row]),
        )
        self._unrated[len(old)] = statistic[0]
        self._items.add(items, embedding[0], statistic[0])
        return id

    def learn(self, item: str | int, raters: Sequence[tuple[History, float]]) -> None:
        """Set the statistics of an added item from its ratings; see `Recommender.learn_item`.

        Args:
            item: the added item.
            raters: for each user who rated the item, the user's other ratings, and the rating of the item.

        Raises:
            MetarecError: the item was not added, the run is private, or a history or rating is not valid.
        """
        row, scale = self._items.find(item).row, self._items.catalogue.scale
        if row not in self._unrated:
            raise MetarecError(
                f"{item!r} was there when the model was trained: only items that were added learn while serving; "
                "train on the new ratings for the others"
            )
        if not self.learns:
            raise MetarecError("this run was trained under differential privacy and counts no ratings of any item")
        histories, ratings = [], np.zeros(len(raters), np.float32)
        for place, (history, rating) in enumerate(raters):
            with located(place):
                ratings[place] = check_history([(item, rating)], self._items.find, scale).ratings[0]
                histories.append(check_history(history, self._items.find, scale))
        learned, before = self._items.catalogue.beliefs, self._items.catalogue.statistics
        total, count, beliefs = before.total.copy(), before.count.copy(), before.beliefs
        total[row], count[row] = ratings.sum(), len(ratings)
        if learned is not None and beliefs is not None:
            beliefs = beliefs.copy()
            beliefs[row] = self._unrated[row][2:]
            if histories:
                trained = [history.rows < self._items.trained for history in histories]
                path = path_of(self._theta, learned)
                tastes = [
                    taste_of(beliefs[history.rows[old]], history.ratings[old], path)
                    for old, history in zip(trained, histories)
                ]
                means, covariances = (np.stack(part) for part in zip(*tastes))
                noise = float(np.exp(path["log_noise"]))
                beliefs[row] = after_ratings(beliefs[row], means, covariances, ratings, noise, self._prediction_error)
        self._items.set_statistics(row, Statistics(total, count, beliefs))

    @functools.cached_property
    def _prediction_error(self) -> Missing:
        """Variance of item factors around their prediction from texts, over the items in training."""
        catalogue, trained = self._items.catalogue, slice(self._items.trained)
        assert catalogue.beliefs is not None
        items, embeddings = catalogue.items, catalogue.embeddings[trained]
        if self._trained_encoder:
            embeddings = self._texts.encode(items.texts[trained], pretrained=True)
        details = {name: values[trained] for name, values in items.details.items()}
        vectors = None if items.vectors is None else items.vectors[trained]
        return missing(catalogue.beliefs, embeddings, details, catalogue.statistics.count[trained], vectors)


def _check_text(text: str, *field: str | int) -> None:
    if not text.strip():
        raise InputError("the text of the item is empty, so the encoder has nothing to read: write some", *field)


def _checked_vector(vector: Sequence[float] | np.ndarray | None, others: np.ndarray | None) -> np.ndarray | None:
    """The vector of a new item, float32 [1, width], NaN where it has none; None in a run without item vectors."""
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


def _beginning(text: str, most: int = 80) -> str:
    """The first sentence or line of a text, truncated to `most` characters."""
    first = re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0].strip().rstrip(".")
    return first if len(first) <= most else first[: most - 1].rstrip() + "…"
