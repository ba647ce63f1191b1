"""What the first ratings of a new item say of it, without learning everything anew.

The item's mean and factors were predicted from its text and details; how far such predictions miss is known from the
items that were rated often. Given the tastes of those who rate the new item (from their other ratings), what is
missing is found in closed form: Bayesian linear regression of their ratings on their tastes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarec_jax.core.types import Params
from metarec_jax.factors.em import LEAST
from metarec_jax.factors.item_factors import FACTORS, MEAN, REST, Beliefs

_OFTEN = 20
"""Ratings from which on what is believed of an item is about what is true of it."""


class Missing(NamedTuple):
    """How far predictions from features miss.

    Attributes:
        mean: variance of an item's mean around what is predicted.
        factors: float64 [rank], of its factors.
    """

    mean: float
    factors: np.ndarray


def missing(
    beliefs: Beliefs,
    embeddings: Float[np.ndarray, "items hidden"],
    details: Mapping[str, tuple[str, ...]],
    count: Float[np.ndarray, " items"],
    vectors: Float[np.ndarray, "items width"] | None = None,
) -> Missing:
    """How far predictions from texts and details miss for the items that were rated often.

    Args:
        beliefs: about the catalogue.
        embeddings, details, vectors: of its items, as the beliefs were learned with.
        count: how often each was rated.
    """
    often = count >= min(_OFTEN, count.max(initial=0))
    apart = np.square(beliefs.table - beliefs.of_new_items(embeddings, details, vectors), dtype=np.float64)[often]
    return Missing(float(apart[:, MEAN].mean()), apart[:, FACTORS:].mean(axis=0))


def taste_of(
    rows: Float[np.ndarray, "rated columns"], ratings: Float[np.ndarray, " rated"], params: Params
) -> tuple[Float[np.ndarray, " rank"], Float[np.ndarray, "rank rank"]]:
    """Mean and covariance of a user's taste, given ratings, in the units of `rows`.

    The posterior of the prior path (`metarec_jax.learner.prior.taste_of`) with what the outer loop made of it: noise,
    gain, and what is expected of who rates such items. Nothing is known of the profile, so it is the average user's.

    Args:
        rows: beliefs about what was rated.
        ratings: what was given.
        params: of the prior path, from `path_of`.
    """
    rows = np.asarray(rows, np.float64)
    gain = np.exp(float(params["log_gain"]) / 2)
    precision = 1 / (rows[:, REST] + np.exp(float(params["log_noise"])))
    choice = {name: np.asarray(value, np.float64) for name, value in params["taste"]["choice"].items()}
    chosen = (rows[:, FACTORS:] - choice["middle"]).sum(axis=0) / (len(rows) + np.exp(choice["log_doubt"]))
    expected, factors = chosen @ choice["kernel"], rows[:, FACTORS:] * gain
    covariance = np.linalg.inv(np.eye(factors.shape[1]) + factors.T @ (factors * precision[:, None]))
    surprise = ratings - rows[:, MEAN] - factors @ expected
    return gain * (expected + covariance @ (factors.T @ (precision * surprise))), gain**2 * covariance


def path_of(theta: Params, beliefs: Beliefs) -> Params:
    """Parameters of the prior path of a learner; where it has none, as they are before training."""
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
    """The belief about an item after some ratings of it.

    Args:
        row: the belief before (see `metarec_jax.factors.item_factors`).
        tastes, doubts: mean and covariance of the taste of each who rated it, from other items.
        ratings: what they gave.
        noise: variance of a rating around what is believed.
        apart: from `missing`.

    Returns:
        float32, the belief after; the same where nobody rated it.
    """
    if not len(ratings):
        return np.asarray(row, np.float32)
    before = np.asarray(row, np.float64)
    factors = before[FACTORS:]
    prior = np.concatenate([[apart.mean], apart.factors])
    known = np.concatenate([np.ones((len(ratings), 1)), tastes], axis=1)
    # What factors never explain, and what is not known of a rater's taste, is noise, too.
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
