"""Choice of the items to ask a new user about, so that their ratings reduce the variance of all ratings the most.

The posterior of a user's taste is normal, so the variance after an answer does not depend on the answer: a rating of
item ``i`` reduces the covariance ``C`` of the taste by ``C f (f' C f + rest + noise)^-1 f' C`` (Rasmussen & Williams
2006, "Gaussian processes for machine learning", equation 2.24). Questions are chosen greedily. The criterion is the
reduction of the variance of the ratings of all items, weighted by how often each item is rated (Bayesian experimental
design for prediction; Chaloner & Verdinelli 1995, "I-optimality"), times the probability that the user can answer. If
the items that a user can rate are given, only these are asked about and weighted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params, Rows
from metarec_jax.learner.prior import RATINGS
from metarec_jax.recommender.items import ItemIndex
from metarec_jax.recommender.user_state import UserState


class Question(NamedTuple):
    """An item to ask about.

    Attributes:
        id: id of the item in the data set.
        title: title of the item.
        known: number of training users who rated the item, divided by that of the item with most ratings.
        gain: expected reduction of the variance of a rating, in squared units of ratings, averaged over the weighted
            items, given the answers to the earlier questions; times the probability of an answer.
        row: row of the catalogue.
    """

    id: str
    title: str
    known: float
    gain: float
    row: int


class TastePosterior(NamedTuple):
    """The distribution of a user's taste, given a support.

    Attributes:
        covariance: float [rank, rank], covariance of the taste.
        factors: float [items, rank]; a rating's mean is linear in the taste with these coefficients.
        noise: float [items], variance of a rating given the taste.
    """

    covariance: np.ndarray
    factors: np.ndarray
    noise: np.ndarray


def questions(
    items: ItemIndex,
    theta: Params,
    state: UserState,
    k: int,
    skip: Int[np.ndarray, " skipped"],
    among: Int[np.ndarray, " known"],
) -> list[Question]:
    """Choose the items to ask a user about next; see `Recommender.interview`.

    Args:
        items: the catalogue.
        theta: parameters of the learner.
        state: state of the user; rated items are not asked about.
        k: greatest number of questions; at least 1.
        skip: rows of items not to ask about.
        among: rows of the only items to ask about; empty for all.

    Returns:
        The questions, most informative first.

    Raises:
        MetarecError: `k` is below 1, or the run has no item factors.
    """
    catalogue = items.catalogue
    if catalogue.beliefs is None:
        raise MetarecError(
            "this run has no item factors, from which questions are chosen: train one with --factors.rank 32"
        )
    if k < 1:
        raise MetarecError(f"k is {k}; it must be at least 1")
    count = catalogue.statistics.count.astype(np.float64)
    known = count / max(count.max(), 1)
    allowed, chance, weight = np.ones(len(items), bool), known, count / max(count.sum(), 1)
    if len(among):
        allowed = np.isin(np.arange(len(items)), among)
        chance, weight = np.ones(len(items)), allowed / allowed.sum()
    allowed[state.history.rows] = False
    allowed[skip] = False
    taste = taste_posterior(jax.device_get(theta["prior"]), items.table.statistic[: len(items)], state.support)
    rows, gains = choose(taste, chance, weight, allowed, k)
    ids, titles = catalogue.items.ids, catalogue.items.titles
    return [Question(ids[r], titles[r], known[r], g, int(r)) for r, g in zip(rows, gains)]


def taste_posterior(prior: Params, statistic: Float[np.ndarray, "items columns"], support: Rows) -> TastePosterior:
    """Compute the posterior of a user's taste, given the support.

    Args:
        prior: parameters of a prior path with item factors (see `metarec_jax.learner.prior`).
        statistic: statistics of all items.
        support: padded support of one user, without a users axis.

    Returns:
        The posterior.
    """
    gain, noise = math.exp(float(prior["log_gain"]) / 2), math.exp(float(prior["log_noise"]))
    rest = statistic[:, RATINGS + 1].astype(np.float64)
    factors = statistic[:, RATINGS + 2 :].astype(np.float64) * gain
    rows = support.item[support.mask > 0]
    before = np.eye(factors.shape[1])
    if "growth" in prior.get("taste", {}):  # of clicks
        before += np.diag(np.exp(np.asarray(prior["taste"]["growth"], np.float64)) * support.rating.sum())
    precision = before + factors[rows].T @ (factors[rows] / (rest[rows] + noise)[:, None])
    return TastePosterior(np.linalg.inv(precision), factors, rest + noise)


def choose(
    taste: TastePosterior,
    chance: Float[np.ndarray, " items"],
    weight: Float[np.ndarray, " items"],
    allowed: Bool[np.ndarray, " items"],
    k: int,
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Greedily choose items to ask about.

    Args:
        taste: taste of the user.
        chance: probability that the user can rate each item.
        weight: weight of the variance of each item's rating; the weights sum to 1.
        allowed: which items may be asked about.
        k: greatest number of questions; fewer are chosen if fewer items are allowed.

    Returns:
        Rows, first question first, and the expected gain of each.
    """
    covariance, factors = np.asarray(taste.covariance, np.float64), np.asarray(taste.factors, np.float64)
    weighted = factors.T @ (factors * weight[:, None])
    left, rows, gains = allowed.copy(), [], []
    for _ in range(min(k, int(allowed.sum()))):
        reach = factors @ covariance
        variance = np.einsum("ir,ir->i", reach, factors) + taste.noise
        gain = chance * np.einsum("ir,ir->i", reach @ weighted, reach) / variance
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        rows.append(best)
        gains.append(float(gain[best]))
        left[best] = False
        # Later questions are chosen as if this one were answered, which avoids redundant questions.
        covariance = covariance - np.outer(reach[best], reach[best]) / variance[best]
    return np.array(rows, np.int64), np.array(gains)
