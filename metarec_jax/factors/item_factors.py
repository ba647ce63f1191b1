"""Item factors: the mean, the factors and the residual variance of every item.

Before a user has rated anything, a rating is ``mean_i + factor_i . w + rest + noise``, with a taste ``w ~ N(0, 1)`` of
the user and ``rest ~ N(0, rest_i)``. They come from a variational factorisation of the training users' ratings
(`metarec_jax.factors.variational`), in which an item has columns of what is known of it beside free factors. What is
known is also the prior mean of an item's mean and free factors: the more ratings an item has, the less its features
matter (a hybrid of collaborative and content-based filtering). An item without ratings gets the predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.stored_columns import Column, computed, count_values, mean_and_deviation
from metarec_jax.core.types import Items, Params, Strings
from metarec_jax.core.variance import varies
from metarec_jax.factors.feature_map import feature_map
from metarec_jax.factors.fit import Known, fit
from metarec_jax.factors.fit_cache import Cache
from metarec_jax.factors.item_features import POPULARITY, Sources
from metarec_jax.factors.row_products import one_device
from metarec_jax.factors.user_prior import no_tastes

MEAN, REST, FACTORS = 0, 1, 2
"""Columns of the table of item factors: mean, residual variance, and first factor."""
LEAST = 1e-4
"""Least residual variance of an item, as a share of the variance of ratings."""
_FEATURES = 512
"""Greatest number of features of a source in the prior means, its leading principal components."""
_FREE = 1.8
"""Free factors for each square root of the ratings per user and item."""


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
        sharpness: for clicks, the factor between scores and log-odds (see `metarec_jax.factors.click_factors`).
    """

    table: np.ndarray
    noise: float
    of_new: np.ndarray
    sources: Sources
    tastes: Params
    sharpness: float = 1.0

    def of_new_items(
        self,
        embeddings: Float[np.ndarray, "items hidden"],
        details: Mapping[str, Strings] | None = None,
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


class Plan(NamedTuple):
    """What fits to all training users and to parts of them have in common. It depends on no rating's value.

    Attributes:
        sources: features of items, standardised over the rated items.
        features: float64 [width, features], map from the joined sources to the features of the prior means.
        source: int [features], source of each feature.
        columns: float64 [width, known], map from the joined sources to the known columns.
        start: float64 [items, free], initial free factors.
        rank: number of factors of an item.
    """

    sources: Sources
    features: np.ndarray
    source: np.ndarray
    columns: np.ndarray
    start: np.ndarray
    rank: int


def plan(rank: int, items: Items, embeddings: Float[np.ndarray, "items hidden"], user: Column, item: Column) -> Plan:
    """Choose the numbers of columns and free factors, and the columns.

    Free factors are as many as the square root of the ratings per user and item allows, and at most half of all. The
    other columns are a 1 and the leading principal components of the sources, each of mean squared norm 1.

    Args:
        rank: number of factors of an item.
        items: the catalogue.
        embeddings: embeddings of the items' texts.
        user, item: int [rows], user and item of each training rating.

    Returns:
        The plan.
    """
    count = count_values(item, len(items))
    sources = Sources.of(items, embeddings, count)
    rows = sources.rows(items.details, embeddings, count, items.vectors)
    seen = count > 0
    density = len(item) / max(np.count_nonzero(count_values(user)) + int(seen.sum()), 1)
    free = min(round(_FREE * np.sqrt(density)), rank // 2)
    parts = [_components(rows[name][seen], _FEATURES) for name in sorted(rows)]
    source = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    features = np.zeros((sum(map(len, parts)), len(source)))
    for number, begin in enumerate(np.cumsum([0, *map(len, parts)])[:-1]):
        features[begin : begin + len(parts[number]), source == number] = parts[number]
    main = _components(joined(rows)[seen] @ features, max(rank - free - 1, 0))
    columns = features @ main / np.sqrt(max(sum(part.shape[1] > 0 for part in parts), 1))
    start = np.random.default_rng(1).normal(scale=0.1, size=(len(items), free))
    return Plan(sources, features, source, columns, start, rank)


def believe(
    plan: Plan,
    items: Items,
    embeddings: Float[np.ndarray, "items hidden"],
    user: Column,
    item: Column,
    rating: Column,
    *,
    mesh: Mesh | None = None,
    cache: Cache | None = None,
    reporter: Reporter = QUIET,
    label: str = "item factors",
) -> Beliefs:
    """Fit item factors to ratings, with the same prior of the taste for all users.

    Args:
        plan: from `plan`.
        items: the catalogue.
        embeddings: embeddings of the items' texts.
        user, item: int [rows], user and item of each rating. Columns are read in slices.
        rating: float [rows].
        mesh: devices that share the tables; None takes one.
        cache: where long fits are kept; None keeps none.
        reporter: shows progress.
        label: what is fitted.

    Returns:
        The item factors; the prior mean of tastes is zero. Where all ratings are equal, all predictions are equal.
    """
    count = count_values(item, len(items))
    sources = plan.sources.of_counts(count)
    centre, scale = mean_and_deviation(rating)
    if not varies(scale, float(np.hypot(centre, scale))):
        return _constant(plan, sources, len(items), centre)
    rows = joined(sources.rows(items.details, embeddings, count, items.vectors))
    rated = np.flatnonzero(count)
    found = fit(
        numbered(user, count_values(user)),
        numbered(item, count),
        computed(rating, lambda some: (some - centre) / scale, np.float32),
        Known(
            _with_one(rows[rated] @ plan.features),
            np.concatenate([[-1], plan.source]),
            _with_one(rows[rated] @ plan.columns),
            plan.start[rated],
        ),
        mesh=one_device() if mesh is None else mesh,
        cache=cache,
        reporter=reporter,
        label=label,
        unit=scale,
    )

    # Maps from (1, joined sources) to means and columns of items without ratings.
    mean_of = np.concatenate([found.map[:1, 0], plan.features @ found.map[1:, 0]])
    known, free = 1 + plan.columns.shape[1], plan.start.shape[1]
    columns_of = np.zeros((len(mean_of), known + free))
    columns_of[0, 0] = 1
    columns_of[1:, 1:known] = plan.columns
    columns_of[0, known:] = found.map[0, 1:]
    columns_of[1:, known:] = plan.features @ found.map[1:, 1:]

    # Weights N(a, C) of users become tastes N(0, I): a goes to the items' means, and C to their factors.
    half = np.zeros((known + free, plan.rank))
    half[:, : known + free] = np.linalg.cholesky(found.covariance)
    least = found.noise.min()
    of_new = np.zeros((len(mean_of), FACTORS + plan.rank))
    of_new[:, MEAN] = (mean_of + columns_of @ found.mean) * scale
    of_new[0, MEAN] += centre
    of_new[0, REST] = (found.new_doubt + max(found.common - least, 0) + LEAST) * scale**2
    of_new[:, FACTORS:] = columns_of @ half * scale
    of_new = _with_expected_popularity(of_new, plan, sources, rows[rated])
    table = of_new[0] + rows @ of_new[1:]
    columns = np.concatenate([_with_one(rows[rated] @ plan.columns), found.free], axis=1)
    table[rated, MEAN] = (found.bias + columns @ found.mean) * scale + centre
    table[rated, REST] = (found.doubt + found.noise - least + LEAST) * scale**2
    table[rated, FACTORS:] = columns @ half * scale
    return Beliefs(
        table.astype(np.float32),
        float(least * scale**2),
        of_new.astype(np.float32),
        sources,
        no_tastes(plan.rank, 0),
    )


def numbered(numbers: Column, count: np.ndarray) -> Column:
    """Renumber a column without gaps.

    Args:
        numbers: int [rows].
        count: int [greatest number + 1], how often each number is there.

    Returns:
        int32 [rows], the place of each number among those whose count is not 0.
    """
    place = np.cumsum(count > 0, dtype=np.int32) - 1
    return computed(numbers, lambda some: place[some], np.int32)


def _with_expected_popularity(
    of_new: np.ndarray, plan: Plan, sources: Sources, rows: Float[np.ndarray, "rated width"]
) -> np.ndarray:
    """Put the popularity that the other features predict in the place of that of an item without ratings.

    Features that tell popular items tell liked ones. With the mean popularity for all new items that would be lost.
    """
    names = sorted(sources.shift)
    place = names.index(POPULARITY)
    own = sum(len(sources.shift[name]) for name in names[:place])
    others = plan.features[:, plan.source != place]
    expected = feature_map(rows @ others, rows[:, own : own + 1], np.ones(len(rows)))
    found = of_new + np.concatenate([expected[:1], others @ expected[1:]]) @ of_new[own + 1 : own + 2]
    found[own + 1] = 0
    return found


def _constant(plan: Plan, sources: Sources, items: int, centre: float) -> Beliefs:
    """Item factors that predict one rating for all users and items."""
    of_new = np.zeros((1 + len(plan.features), FACTORS + plan.rank), np.float32)
    of_new[0, MEAN], of_new[0, REST] = centre, LEAST
    table = np.broadcast_to(of_new[0], (items, of_new.shape[1])).copy()
    return Beliefs(table, LEAST, of_new, sources, no_tastes(plan.rank, 0))


def _components(rows: Float[np.ndarray, "items width"], most: int) -> Float[np.ndarray, "width components"]:
    """Compute the leading directions of the second moments of rows, by decreasing size."""
    rows = np.asarray(rows, np.float64)
    size, directions = np.linalg.eigh(rows.T @ rows)
    real = size > 1e-9 * max(size.max(initial=0), 1e-30)
    return directions[:, ::-1][:, real[::-1]][:, :most]


def joined(rows: Mapping[str, np.ndarray]) -> Float[np.ndarray, "items width"]:
    """Concatenate all sources by name."""
    return np.concatenate([rows[name] for name in sorted(rows)], axis=1)


def _with_one(rows: np.ndarray) -> np.ndarray:
    """Prepend a column of ones."""
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
