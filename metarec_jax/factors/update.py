"""Posterior of a new item's mean and factors given its first ratings, without fitting all factors again.

The prior is the prediction from the item's features; its error variance is estimated on items with many ratings. Given
the tastes of the users who rate the item (from their other ratings), the posterior is that of a Bayesian linear
regression of their ratings on their tastes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarec_jax.core.types import Params, Strings
from metarec_jax.factors.item_factors import FACTORS, LEAST, MEAN, REST, Beliefs

_OFTEN = 20
"""Number of ratings from which an item's fitted mean and factors are taken as exact."""


class Missing(NamedTuple):
    """Error variance of predictions from features.

    Attributes:
        mean: variance of an item's mean around its prediction.
        factors: float64 [rank], variance of each factor around its prediction.
    """

    mean: float
    factors: np.ndarray


def missing(
    beliefs: Beliefs,
    embeddings: Float[np.ndarray, "items hidden"],
    details: Mapping[str, Strings],
    count: Float[np.ndarray, " items"],
    vectors: Float[np.ndarray, "items width"] | None = None,
) -> Missing:
    """Estimate the error variance of predictions from features on the items with many ratings.

    Args:
        beliefs: item factors of the catalogue.
        embeddings, details, vectors: features of its items, as the factors were fitted with.
        count: number of ratings of each item.

    Returns:
        The variances.
    """
    often = count >= min(_OFTEN, count.max(initial=0))
    apart = np.square(beliefs.table - beliefs.of_new_items(embeddings, details, vectors), dtype=np.float64)[often]
    return Missing(float(apart[:, MEAN].mean()), apart[:, FACTORS:].mean(axis=0))


def taste_of(
    rows: Float[np.ndarray, "rated columns"], ratings: Float[np.ndarray, " rated"], params: Params
) -> tuple[Float[np.ndarray, " rank"], Float[np.ndarray, "rank rank"]]:
    """Compute mean and covariance of a user's taste given ratings, in the units of `rows`.

    This is the posterior of the prior path (`metarec_jax.learner.prior.taste_of`) with its trained noise, gain and
    prior mean, for a user with an average profile.

    Args:
        rows: item factors of the rated items.
        ratings: the ratings.
        params: parameters of the prior path, from `path_of`.

    Returns:
        Posterior mean and covariance.
    """
    rows = np.asarray(rows, np.float64)
    gain = np.exp(float(params["log_gain"]) / 2)
    precision = 1 / (rows[:, REST] + np.exp(float(params["log_noise"])))
    choice = {name: np.asarray(value, np.float64) for name, value in params["taste"]["choice"].items()}
    chosen = (rows[:, FACTORS:] - choice["middle"]).sum(axis=0) / (len(rows) + np.exp(choice["log_doubt"]))
    expected, factors = chosen @ choice["kernel"], rows[:, FACTORS:] * gain
    before = np.eye(factors.shape[1])
    if "growth" in params["taste"]:  # of clicks
        before += np.diag(np.exp(np.asarray(params["taste"]["growth"], np.float64)) * np.sum(ratings))
    covariance = np.linalg.inv(before + factors.T @ (factors * precision[:, None]))
    surprise = ratings - rows[:, MEAN] - factors @ expected
    return gain * (expected + covariance @ (factors.T @ (precision * surprise))), gain**2 * covariance


def path_of(theta: Params, beliefs: Beliefs) -> Params:
    """Find the parameters of the prior path with item factors.

    Args:
        theta: parameters of a learner.
        beliefs: item factors.

    Returns:
        The parameters in `theta`; their initial values where its prior path has no item factors.
    """
    own = theta.get("prior", {})
    if "log_noise" in own:
        return own
    return {"log_noise": np.log(beliefs.noise), "log_gain": 0.0, "taste": beliefs.tastes}


def after_ratings(
    row: Float[np.ndarray, " columns"],
    tastes: Float[np.ndarray, "raters rank"],
    doubts: Float[np.ndarray, "raters rank rank"],
    ratings: Float[np.ndarray, " raters"],
    noise: float,
    apart: Missing,
) -> Float[np.ndarray, " columns"]:
    """Compute the posterior of an item's mean and factors given ratings.

    Args:
        row: item factors of the item before (see `metarec_jax.factors.item_factors`).
        tastes: mean of each rater's taste, from the ratings of other items.
        doubts: covariance of each rater's taste.
        ratings: the ratings.
        noise: variance of a rating around its expectation.
        apart: error variance of `row`, from `missing`.

    Returns:
        float32, the item factors after the ratings; unchanged where there are none.
    """
    if not len(ratings):
        return np.asarray(row, np.float32)
    before = np.asarray(row, np.float64)
    factors = before[FACTORS:]
    prior = np.concatenate([[apart.mean], apart.factors])
    known = np.concatenate([np.ones((len(ratings), 1)), tastes], axis=1)
    # The residual variance and the uncertainty of a rater's taste add to the noise.
    left = max(before[REST] - prior.sum(), LEAST)
    spread = noise + left + np.einsum("r,nrs,s->n", factors, doubts, factors)
    surprise = ratings - before[MEAN] - tastes @ factors
    precision = np.diag(1 / np.maximum(prior, 1e-9)) + known.T @ (known / spread[:, None])
    covariance = np.linalg.inv(precision)
    change = covariance @ (known.T @ (surprise / spread))
    after = before.copy()
    after[MEAN] += change[0]
    after[FACTORS:] += change[1:]
    after[REST] = max(before[REST] - (prior.sum() - np.trace(covariance)), LEAST)
    return after.astype(np.float32)
