"""Baselines without a network, from a constant to a ridge regression per user.

Each baseline is fitted on the rows of training users only. To predict, it reads the same inputs as the model: a user's
support, and for every row the sum and count of the ratings that *other training users* gave the item
(`Rows.statistic`). `metarec_jax.evaluation.fit_baselines` chooses their hyperparameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Episodes, Rows
from metarec_jax.core.variance import standardisation
from metarec_jax.metrics.predictions import Predictions

USERS_AT_ONCE = 256  # bounds the memory of the gathered embeddings [users, support, hidden] of the ridge


class Scale(NamedTuple):
    """Mean and median of the training ratings, and the ends of the rating scale."""

    mean: float
    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        name: name of the row in the table.
        definition: one-line description.
        predict: episodes -> predictions [users, query]; it never reads the ratings of the query.
        settings: hyperparameters by name.
    """

    name: str
    definition: str
    predict: Callable[[Episodes], Predictions]
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)


def fit_scale(train: Iterable[Episodes], low: float, high: float) -> Scale:
    """Compute the mean and median of all ratings of training users.

    Args:
        train: episodes; ratings of support and query both count.
        low, high: ends of the rating scale.

    Returns:
        Mean, median and ends of the rating scale.

    Raises:
        MetarecError: there is no rating.
    """
    found = []
    for episodes in train:
        for rows in (episodes.support, episodes.query):
            real = (np.asarray(rows.mask) > 0) & (np.asarray(episodes.weight) > 0)[:, None]
            found.append(np.asarray(rows.rating, dtype=np.float64)[real])
    ratings = np.concatenate(found) if found else np.zeros(0)
    if len(ratings) == 0:
        raise MetarecError("the training users have no ratings, so no baseline can be fitted: give more users to train")
    return Scale(float(ratings.mean()), float(np.median(ratings)), low, high)


def constant(scale: Scale) -> Baseline:
    """The training median (for MAE) and mean (for RMSE) for all items; all scores are tied."""

    def predict(episodes: Episodes) -> Predictions:
        same = np.ones(np.shape(episodes.query.item))
        return Predictions(scale.median * same, scale.mean * same, 0 * same)

    return Baseline("constant, random order", "training median (MAE) and mean (RMSE); every order counts", predict)


def popularity(scale: Scale, *, clicks: bool = False) -> Baseline:
    """Rank by the number of training ratings of the item, or of its clicks; ratings are predicted by the constant.

    Args:
        scale: scale of the training ratings.
        clicks: whether ratings are clicks.

    Returns:
        The baseline.
    """

    def predict(episodes: Episodes) -> Predictions:
        # The number of clicks is their sum: the count includes rows that were not clicked.
        count = np.asarray(episodes.query.statistic, dtype=np.float64)[..., 0 if clicks else 1]
        return constant(scale).predict(episodes)._replace(score=count)

    what = "clicks; other" if clicks else "ratings; rating"
    return Baseline("popularity", f"ranks by the number of training {what} predictions constant", predict)


def user_mean(scale: Scale) -> Baseline:
    """The mean of the user's support; the training mean for a user without any. All scores are tied."""

    def predict(episodes: Episodes) -> Predictions:
        rating, mask = _ratings(episodes.support)
        count = mask.sum(axis=1)
        mean = np.where(count > 0, (rating * mask).sum(axis=1) / np.maximum(count, 1), scale.mean)
        return _same_for_all_items(mean, episodes)

    return Baseline("user mean", "mean of the user's support ratings", predict)


def user_median(scale: Scale) -> Baseline:
    """The median of the user's support; the training median for a user without any. All scores are tied."""

    def predict(episodes: Episodes) -> Predictions:
        rating, mask = _ratings(episodes.support)
        count = mask.sum(axis=1)
        # A column of training medians keeps the index valid for users, or batches, without any support.
        padded = np.sort(np.where(mask > 0, rating, np.inf), axis=1)
        padded = np.concatenate([padded, np.full((len(padded), 1), scale.median)], axis=1)
        row, last = np.arange(len(padded)), padded.shape[1] - 1
        lower = np.where(count > 0, (count - 1) // 2, last).astype(int)
        upper = np.where(count > 0, count // 2, last).astype(int)
        return _same_for_all_items((padded[row, lower] + padded[row, upper]) / 2, episodes)

    return Baseline("user median", "median of the user's support ratings", predict)


def item_mean(scale: Scale, *, item_shrink: float) -> Baseline:
    """The item's mean rating by training users, shrunk to the training mean.

    Args:
        scale: scale of the training ratings.
        item_shrink: prior count of the item's mean, in ratings.

    Returns:
        The baseline.
    """

    def predict(episodes: Episodes) -> Predictions:
        return _rating(item_prior(episodes.query, scale.mean, item_shrink), scale)

    return Baseline(
        "item mean", "item's mean over training users, shrunk to their mean", predict, {"item_shrink": item_shrink}
    )


def click_rate(scale: Scale, *, item_shrink: float) -> Baseline:
    """The share of clicks among the training rows of the item, shrunk to that of all rows.

    Args:
        scale: scale of the training ratings.
        item_shrink: prior count of the item's share, in rows.

    Returns:
        The baseline.
    """
    return dataclasses.replace(
        item_mean(scale, item_shrink=item_shrink),
        name="item click rate",
        definition="share of the item's training rows that are clicks, shrunk to that of all rows",
    )


def item_mean_user_bias(scale: Scale, *, item_shrink: float, user_shrink: float) -> Baseline:
    """The item mean plus the user's mean residual from it on the support, shrunk to 0.

    Args:
        scale: scale of the training ratings.
        item_shrink: prior count of the item's mean, in ratings.
        user_shrink: prior count of the user's bias, in ratings.

    Returns:
        The baseline.
    """

    def predict(episodes: Episodes) -> Predictions:
        return _rating(_biased(episodes, scale, item_shrink, user_shrink)[1], scale)

    return Baseline(
        "item mean + user bias",
        "item mean, plus the user's mean residual on the support, both shrunk",
        predict,
        {"item_shrink": item_shrink, "user_shrink": user_shrink},
    )


def ridge(
    scale: Scale,
    items: Float[np.ndarray, "items hidden"],
    *,
    item_shrink: float,
    user_shrink: float,
    penalty: float,
    known: Bool[np.ndarray, " items"] | None = None,
) -> Baseline:
    """Ridge regression per user, from item embeddings to the residuals of item mean + user bias.

    With centred item embeddings X [support, hidden] and residuals r [support] of one user, a query item x gets
    x X^T (X X^T + penalty I)^-1 r on top: the minimiser of |r - X w|^2 + penalty |w|^2 in its dual form, whose
    matrix is only support x support. (Saunders et al., ICML 1998; as a meta-learner's head: Bertinetto et al.,
    ICLR 2019, equation 6.)

    Args:
        scale: scale of the training ratings.
        items: embeddings, row by `Rows.item`.
        item_shrink, user_shrink: as for `item_mean_user_bias`.
        penalty: above 0.
        known: bool [items], the items over whose mean embeddings are centred: those that training users rated. None
            takes all items.

    Returns:
        The baseline.

    Raises:
        MetarecError: the penalty is not above 0.
    """
    if penalty <= 0:
        raise MetarecError(f"the ridge penalty is {penalty}; it must be above 0, or the system may have no solution")
    found = standardisation(np.asarray(items if known is None else items[known], np.float64))
    centred = np.asarray(items, dtype=np.float32) - found.shift.astype(np.float32)
    if not found.scale:
        centred = np.zeros_like(centred)

    def adapt(support: Rows, query: Rows, residual: Float[np.ndarray, "users support"]):
        mask = np.asarray(support.mask, dtype=np.float32)
        x = centred[np.asarray(support.item)] * mask[..., None]  # masked rows are 0, and so are their coefficients
        gram = (x @ x.transpose(0, 2, 1)).astype(np.float64) + penalty * np.eye(x.shape[1])
        coefficient = np.linalg.solve(gram, residual[..., None])
        weight = coefficient.transpose(0, 2, 1) @ x
        return (weight @ centred[np.asarray(query.item)].transpose(0, 2, 1))[:, 0]

    def predict(episodes: Episodes) -> Predictions:
        residual, base = _biased(episodes, scale, item_shrink, user_shrink)
        more = np.zeros_like(base)
        for first in range(0, len(base), USERS_AT_ONCE):
            part = slice(first, first + USERS_AT_ONCE)
            support, query = (Rows(*(field[part] for field in rows)) for rows in (episodes.support, episodes.query))
            more[part] = adapt(support, query, residual[part])
        return _rating(base + more, scale)

    return Baseline(
        "ridge per user",
        "closed-form ridge on item embeddings over item mean + user bias",
        predict,
        {"item_shrink": item_shrink, "user_shrink": user_shrink, "penalty": penalty},
    )


def to_nearest_level(baseline: Baseline, levels: Sequence[float]) -> Baseline:
    """Round the point prediction of a baseline to the nearest level that a rating can have.

    Rounding lowers the MAE by about .03 on MovieLens. Since the head of a model may use the levels, models are also
    compared with a baseline that does.

    Args:
        baseline: the baseline to round.
        levels: values that a rating can have.

    Returns:
        A baseline with the same mean and score, and a rounded point prediction.
    """
    ladder = np.sort(np.asarray(levels, dtype=np.float64))

    def predict(episodes: Episodes) -> Predictions:
        predictions = baseline.predict(episodes)
        level = np.searchsorted((ladder[1:] + ladder[:-1]) / 2, np.asarray(predictions.point))
        return predictions._replace(point=ladder[level])

    return dataclasses.replace(
        baseline,
        name=f"{baseline.name}, nearest level",
        definition=f"{baseline.definition}; MAE of the nearest level",
        predict=predict,
    )


def item_prior(rows: Rows, mean: float, item_shrink: float) -> Float[np.ndarray, "users n"]:
    """Shrunk mean rating of the items of some rows: (sum + item_shrink x mean) / (count + item_shrink).

    Args:
        rows: the rows; only ``statistic`` is read.
        mean: value to which item means are shrunk.
        item_shrink: prior count, in ratings.

    Returns:
        float64 [users, n].
    """
    statistic = np.asarray(rows.statistic, dtype=np.float64)
    return (statistic[..., 0] + item_shrink * mean) / (statistic[..., 1] + item_shrink)


def _ratings(rows: Rows) -> tuple[Float[np.ndarray, "users n"], Float[np.ndarray, "users n"]]:
    return np.asarray(rows.rating, dtype=np.float64), np.asarray(rows.mask, dtype=np.float64)


def _biased(
    episodes: Episodes, scale: Scale, item_shrink: float, user_shrink: float
) -> tuple[Float[np.ndarray, "users support"], Float[np.ndarray, "users query"]]:
    """Residuals of item mean + user bias on the support (0 in padded slots), and its predictions of the query."""
    rating, mask = _ratings(episodes.support)
    residual = (rating - item_prior(episodes.support, scale.mean, item_shrink)) * mask
    bias = residual.sum(axis=1, keepdims=True) / (mask.sum(axis=1, keepdims=True) + user_shrink)
    return (residual - bias) * mask, item_prior(episodes.query, scale.mean, item_shrink) + bias


def _rating(value: Float[np.ndarray, "users query"], scale: Scale) -> Predictions:
    """Predictions from one value per item. Scores are not clipped, which would make the best items tie."""
    clipped = np.clip(value, scale.low, scale.high)
    return Predictions(clipped, clipped, value)


def _same_for_all_items(value: Float[np.ndarray, " users"], episodes: Episodes) -> Predictions:
    same = np.broadcast_to(value[:, None], np.shape(episodes.query.item)).astype(np.float64)
    return Predictions(same, same, same)
