"""Item factors: the mean, the factors and the residual variance of every item.

Before a user has rated anything, a rating is ``mean_i + factor_i . w + rest + noise``, with a taste ``w ~ N(0, 1)`` of
the user and ``rest ~ N(0, rest_i)``. Means and factors of rated items are fitted to the ratings of training users, with
predictions from the items' features as prior mean: the more ratings an item has, the less its features matter (a hybrid
of collaborative and content-based filtering). An item without ratings gets the predictions.
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
"""Columns of the table of item factors: mean, residual variance, and first factor."""
_ROUNDS = 3
"""Alternations between estimating item means and user biases."""


@dataclasses.dataclass(frozen=True, eq=False)
class Beliefs:
    """Item factors of a catalogue, and how they are predicted for new items.

    Attributes:
        table: float32 [items, 2 + rank], mean, residual variance and factors of each item, in units of ratings.
        noise: variance of a rating around its expectation given the taste and the residual.
        of_new: float32 [1 + width, 2 + rank], linear map from an item's features to its row; the first row is the
            intercept.
        sources: standardisation of the features.
        tastes: parameters of the prior of users' tastes (see `metarec_jax.factors.user_prior`).
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
        """Predict the factors of items without ratings from their features.

        Args:
            embeddings: embeddings of the items' texts.
            details: values of each detail, by its name; details that are left out count as unknown.
            vectors: further vectors of the items; None where unknown.

        Returns:
            Rows with the columns of `table`.
        """
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
"""Item factors of an empty catalogue."""


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
    """Fit item factors to ratings, with the same prior of the taste for all users.

    Args:
        config: rank, and variances in squared units of ratings.
        items: the catalogue.
        embeddings: embeddings of the items' texts.
        user, item: int [rows], user and item of each rating.
        rating: float [rows].
        unit: a quarter of the rating scale.
        basis: int [n], items whose factors are fitted to ratings, from `rated_most`.
        towards: float [items, rank], target of the rotation of the factors, from `main_features`.

    Returns:
        The item factors; the prior mean of tastes is zero.
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
    # The covariance of an item outside the basis depends on its features only: k(new, basis) K0^-1 F.
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

    # Include the scales of the sources in the maps, so that these apply to standardised features.
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
    """Select the items with the most ratings, whose factors are fitted to ratings.

    Args:
        config: ``items`` is the greatest number of items.
        items: number of items of the catalogue.
        item: int [rows], item of each rating.

    Returns:
        int [n], items in ascending order; items without ratings are left out.
    """
    count = np.bincount(item, minlength=items)
    return np.sort(np.argsort(-count, kind="stable")[: min(int((count > 0).sum()), config.items)])


def main_features(
    config: Hyperparameters, items: Items, embeddings: Float[np.ndarray, "items hidden"], count: np.ndarray
) -> Float[np.ndarray, "items rank"]:
    """Project item features on the main directions in which the features of rated items vary.

    The result depends on which items are rated, but not on the values of the ratings.

    Args:
        config: variances and rank.
        items: the catalogue.
        embeddings: embeddings of the items' texts.
        count: [items], number of ratings of each item.

    Returns:
        Projections on the first `rank` singular vectors; zero columns where there are fewer.
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
    """Estimate item means ``centre + features . weights + own``, adjusted for the biases of the users who rated.

    Means have a Gaussian process prior with a part explained by features and an independent part ``own`` of each item;
    the biases of users are shrunk towards 0. Means and biases are estimated alternately.
    """
    features = _joined(rows, _variances(config, rows, mean=True))
    centre = float(value.mean()) if len(value) else 0.0
    _, who = np.unique(user, return_inverse=True)
    rated = np.bincount(who)
    bias = np.zeros(len(rated))
    # Precision of the weights with the items' own parts integrated out: a mean of n ratings has variance
    # own + noise / n.
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
    """Rotate factors to be as close as possible to a target (orthogonal Procrustes; Schonemann 1966).

    A rotation does not change inner products of factors, and thus no prediction. But the prior of tastes has parameters
    for single factors that all folds share, so the factors of all folds are rotated towards one target, which does not
    depend on the values of ratings.

    Args:
        factors: the factors.
        towards: the target.

    Returns:
        The rotated factors.
    """
    left, _, right = np.linalg.svd(factors.T @ towards)
    return factors @ (left @ right)


def _variances(config: Hyperparameters, rows: dict[str, np.ndarray], *, mean: bool = False) -> dict[str, float]:
    """Variance of each source in item means, or else in tastes."""
    of_details = config.mean_details if mean else config.details
    known = (
        {TEXT: config.mean_text, POPULARITY: config.mean_popularity, VECTOR: config.mean_vectors}
        if mean
        else {TEXT: config.text, POPULARITY: config.popularity, VECTOR: config.vectors}
    )
    return {name: known.get(name, of_details) for name in rows}


def _columns(rows: dict[str, np.ndarray], variances: dict[str, float]) -> np.ndarray:
    """Variance of each column of the joined features, [width]."""
    return np.concatenate([np.full(rows[name].shape[1], variances[name]) for name in sorted(rows)])


def _joined(rows: dict[str, np.ndarray], variances: dict[str, float]) -> np.ndarray:
    """Concatenate all sources by name, each times the square root of its variance, [items, width]."""
    return np.concatenate([rows[name] * np.sqrt(variances[name]) for name in sorted(rows)], axis=1)


def _with_one(rows: np.ndarray) -> np.ndarray:
    """Prepend a column of ones."""
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
