"""What is believed of every item: a mean, factors of what sets users apart over it, and a variance that is left.

Before a user has rated anything, a rating is ``mean_i + factor_i . w + rest``, with a taste ``w ~ N(0, 1)`` of the
user, ``rest ~ N(0, rest_i)`` and noise. Means and factors of rated items are learned from the ratings of training
users; of an item that nobody rated they follow from what is known of the item itself, and the more often an item was
rated, the less they do (the hybrid of collaborative and content-based filtering).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from metarec_jax.core.types import Items, Params
from metarec_jax.factors.em import batches, learn, low_rank
from metarec_jax.factors.hyperparameters import Hyperparameters
from metarec_jax.factors.item_features import POPULARITY, TEXT, VECTOR, Sources
from metarec_jax.factors.user_prior import no_tastes

MEAN, REST, FACTORS = 0, 1, 2
"""Columns of a table of beliefs: the mean, the rest of the variance, and from here on factors."""
_ROUNDS = 3
"""Times that item means and user biases are found given the other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Beliefs:
    """A belief about every item, and how to come by one about a new item.

    Attributes:
        table: float32 [items, 2 + rank]: mean, rest, factors, in ratings.
        noise: variance of a rating around all that.
        of_new: float32 [1 + width, 2 + rank], what an item's row of sources is multiplied with; the first row is added.
        sources: how that row is made.
        tastes: what to expect of a user's taste (see `metarec_jax.factors.user_prior`).
    """

    table: np.ndarray
    noise: float
    of_new: np.ndarray
    sources: Sources
    tastes: Params

    def of_new_items(
        self,
        embeddings: Float[np.ndarray, "items hidden"],
        details: Mapping[str, tuple[str, ...]] | None = None,
        vectors: Float[np.ndarray, "items width"] | None = None,
    ) -> Float[np.ndarray, "items columns"]:
        """Beliefs about items that nobody has rated, from their texts, and from their details and vectors, if known."""
        rows = self.sources.rows(details or {}, embeddings, np.zeros(len(embeddings)), vectors)
        total, first = np.broadcast_to(self.of_new[0], (len(embeddings), self.of_new.shape[1])), 1
        for name in sorted(rows):
            width = rows[name].shape[1]
            total = total + rows[name].astype(np.float32) @ self.of_new[first : first + width]
            first += width
        return total


NOTHING_KNOWN = Beliefs(
    np.zeros((0, FACTORS), np.float32), 1.0, np.zeros((1, FACTORS), np.float32), Sources({}, {}, {}), no_tastes(0, 0)
)
"""Beliefs about no items."""


def believe(
    config: Hyperparameters,
    items: Items,
    embeddings: Float[np.ndarray, "items hidden"],
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    unit: float,
    basis: np.ndarray,
    towards: np.ndarray,
) -> Beliefs:
    """Beliefs from ratings, which expect the same taste of everyone.

    Args:
        config: variances in squared units of ratings, and the rank.
        items: the catalogue.
        embeddings: of their texts.
        user, item: int [rows], who rated what.
        rating: float [rows].
        unit: of ratings: a quarter of the scale.
        basis: int [n], the items that tastes are learned on, from `rated_most`.
        towards: float [items, rank], what factors are turned towards, from `main_features`.
    """
    count = np.bincount(item, minlength=len(items)).astype(np.float64)
    sources = Sources.of(items, embeddings, count)
    rows = sources.rows(items.details, embeddings, count, items.vectors)
    value = np.asarray(rating, np.float64) / unit
    centre, weights, own = _means(config, rows, count, user, item, value)
    mean = centre + _joined(rows, _variances(config, rows, mean=True)) @ weights + own

    features = _with_one(_joined(rows, _variances(config, rows)))
    features[:, 0] *= np.sqrt(config.bias)
    place = np.full(len(items), -1)
    place[basis] = np.arange(len(basis))
    among = place[item] >= 0
    first = features[basis] @ features[basis].T + config.item * np.eye(len(basis))
    learned = learn(
        batches(user[among], place[item[among]], value[among]),
        mean[basis],
        first,
        noise=config.noise,
        strength=config.strength,
        iterations=config.iterations,
    )
    rank = min(config.rank, len(basis))
    factors, rest = (np.asarray(part, np.float64) for part in low_rank(learned.kernel, rank=rank))
    factors = np.pad(factors, ((0, 0), (0, config.rank - rank)))
    factors = turned(factors, towards[basis])
    # An item off the basis covaries with the others by its features alone: k(new, basis) K0^-1 F.
    onto = features[basis].T @ np.linalg.solve(first, factors)

    table = np.zeros((len(items), FACTORS + config.rank))
    table[:, MEAN] = mean * unit
    table[:, FACTORS:] = features @ onto
    table[basis, FACTORS:] = factors
    whole = np.sum(np.square(features), axis=1) + config.item
    table[:, REST] = np.maximum(whole - np.sum(np.square(table[:, FACTORS:]), axis=1), 1e-4)
    table[basis, REST] = rest
    table[:, FACTORS:] *= unit
    table[:, REST] *= unit**2

    # The variances of sources are part of these maps, so that rows of sources alone are needed later.
    scale = np.concatenate([[1.0], np.sqrt(_columns(rows, _variances(config, rows)))])
    of_new = np.zeros((len(scale), FACTORS + config.rank))
    of_new[:, FACTORS:] = onto * scale[:, None] * unit
    of_new[0, FACTORS:] = onto[0] * np.sqrt(config.bias) * unit
    of_new[:, MEAN] = np.concatenate([[centre], weights * np.sqrt(_columns(rows, _variances(config, rows, mean=True)))])
    of_new[:, MEAN] *= unit
    of_new[0, REST] = (config.item + config.mean_item) * unit**2
    noise = float(learned.noise) * unit**2
    return Beliefs(table.astype(np.float32), noise, of_new.astype(np.float32), sources, no_tastes(config.rank, 0))


def rated_most(config: Hyperparameters, items: int, item: np.ndarray) -> np.ndarray:
    """The items that tastes are learned on: of the others there is next to nothing to learn.

    Args:
        config: of which ``items`` is how many, at most.
        items: of the catalogue.
        item: int [rows], what was rated.
    """
    count = np.bincount(item, minlength=items)
    return np.sort(np.argsort(-count, kind="stable")[: min(int((count > 0).sum()), config.items)])


def main_features(
    config: Hyperparameters, items: Items, embeddings: Float[np.ndarray, "items hidden"], count: np.ndarray
) -> Float[np.ndarray, "items rank"]:
    """The main directions in which rated items differ by what is known of them, whatever the ratings were.

    Args:
        config: variances, and the rank.
        items: the catalogue.
        embeddings: of their texts.
        count: [items], how often each was rated.
    """
    rows = Sources.of(items, embeddings, count).rows(items.details, embeddings, count, items.vectors)
    features = _with_one(_joined(rows, _variances(config, rows)))
    _, _, directions = np.linalg.svd(features[count > 0], full_matrices=False)
    main = features @ directions[: config.rank].T
    return np.pad(main, ((0, 0), (0, config.rank - main.shape[1])))


def _means(
    config: Hyperparameters,
    rows: dict[str, np.ndarray],
    count: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    value: np.ndarray,
) -> tuple[float, np.ndarray, np.ndarray]:
    """The mean of every item as ``centre + features . weights + own``, free of who happened to rate it.

    Means are a Gaussian process over items, of features and a part of each item's own; the bias of every user is
    shrunk towards 0. Each is found given the other.
    """
    features = _joined(rows, _variances(config, rows, mean=True))
    centre = float(value.mean()) if len(value) else 0.0
    _, who = np.unique(user, return_inverse=True)
    rated = np.bincount(who)
    bias = np.zeros(len(rated))
    # Weights given all but the items' own parts; a mean of n ratings has variance own + noise / n.
    seen = count > 0
    spread = config.mean_item + config.mean_noise / count[seen]
    precision = features[seen].T @ (features[seen] / spread[:, None]) + np.eye(features.shape[1])
    weights, own = np.zeros(features.shape[1]), np.zeros(len(count))
    for _ in range(_ROUNDS):
        total = np.bincount(item, weights=value - centre - bias[who], minlength=len(count))
        average = total[seen] / count[seen]
        weights = np.linalg.solve(precision, features[seen].T @ (average / spread))
        own[seen] = (average - features[seen] @ weights) * config.mean_item / spread
        left = value - centre - (features @ weights + own)[item]
        bias = np.bincount(who, weights=left) / (rated + config.mean_users)
    return centre, weights, own


def turned(
    factors: Float[np.ndarray, "items rank"], towards: Float[np.ndarray, "items rank"]
) -> Float[np.ndarray, "items rank"]:
    """`factors`, turned to lie as close to others as can be (orthogonal Procrustes; Schonemann 1966).

    Only products of factors mean anything, and turning does not change those. But what is expected of tastes is about
    single factors, and the same for the users of all folds: so all are turned towards one place, on which nobody's
    ratings have any influence.
    """
    left, _, right = np.linalg.svd(factors.T @ towards)
    return factors @ (left @ right)


def _variances(config: Hyperparameters, rows: dict[str, np.ndarray], *, mean: bool = False) -> dict[str, float]:
    """The variance of each source, in means or in tastes."""
    of_details = config.mean_details if mean else config.details
    known = (
        {TEXT: config.mean_text, POPULARITY: config.mean_popularity, VECTOR: config.mean_vectors}
        if mean
        else {TEXT: config.text, POPULARITY: config.popularity, VECTOR: config.vectors}
    )
    return {name: known.get(name, of_details) for name in rows}


def _columns(rows: dict[str, np.ndarray], variances: dict[str, float]) -> np.ndarray:
    return np.concatenate([np.full(rows[name].shape[1], variances[name]) for name in sorted(rows)])


def _joined(rows: dict[str, np.ndarray], variances: dict[str, float]) -> np.ndarray:
    """All sources side by side, each times the root of its variance."""
    return np.concatenate([rows[name] * np.sqrt(variances[name]) for name in sorted(rows)], axis=1)


def _with_one(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
