"""Which items to ask a new user about: those whose ratings, together, would tell most about all the others.

What is believed of a user's taste is a normal distribution, so what an answer would leave open does not depend on what
the answer is: a rating of item ``i`` takes ``C f (f' C f + rest + noise)^-1 f' C`` off the covariance ``C`` of the
taste (Rasmussen & Williams 2006, "Gaussian processes for machine learning", equation 2.24). Questions are chosen
greedily by how much less uncertain that makes the ratings of all items, each item counting as often as people rate it
(Bayesian experimental design for prediction; Chaloner & Verdinelli 1995, "I-optimality"), times the chance that the
user knows the item at all. Where it is known what the user knows, these items are all that counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from metarec_jax.core.types import Params, Rows
from metarec_jax.learner.prior import RATINGS


class Question(NamedTuple):
    """An item to ask about.

    Attributes:
        id: as the data set writes it.
        title: what people call it.
        known: how many training users rated it, as a share of those who rated the item that was rated most.
        gain: by how much an answer is expected to lower the variance of a rating, in squared units of ratings, on
            average over what people rate (of some items alone: over these); after the questions before, and times the
            chance of an answer.
        row: of the catalogue.
    """

    id: str
    title: str
    known: float
    gain: float
    row: int


class Uncertain(NamedTuple):
    """What is open about a user.

    Attributes:
        covariance: float [rank, rank], of the taste.
        factors: float [items, rank], what a taste is multiplied with.
        spread: float [items], variance of a rating around that.
    """

    covariance: np.ndarray
    factors: np.ndarray
    spread: np.ndarray


def uncertain(prior: Params, items: Float[np.ndarray, "items columns"], support: Rows) -> Uncertain:
    """What a support leaves open.

    Args:
        prior: parameters of a prior path that has beliefs (see `metarec_jax.learner.prior`).
        items: statistics of all items.
        support: the user's, padded; each field without a users axis.
    """
    gain, noise = math.exp(float(prior["log_gain"]) / 2), math.exp(float(prior["log_noise"]))
    rest, factors = items[:, RATINGS + 1].astype(np.float64), items[:, RATINGS + 2 :].astype(np.float64) * gain
    rows = support.item[support.mask > 0]
    told = factors[rows].T @ (factors[rows] / (rest[rows] + noise)[:, None])
    return Uncertain(np.linalg.inv(np.eye(factors.shape[1]) + told), factors, rest + noise)


def choose(
    about: Uncertain,
    chance: Float[np.ndarray, " items"],
    weight: Float[np.ndarray, " items"],
    allowed: Bool[np.ndarray, " items"],
    k: int,
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The `k` items to ask about, first question first, and what each should gain; fewer where no more are left.

    Args:
        about: what is open.
        chance: that the user can answer.
        weight: how much each item's rating matters; they sum to 1.
        allowed: which items may be asked about.
        k: how many.
    """
    covariance, factors = np.asarray(about.covariance, np.float64), np.asarray(about.factors, np.float64)
    matters = factors.T @ (factors * weight[:, None])
    open_, rows, gains = allowed.copy(), [], []
    for _ in range(min(k, int(allowed.sum()))):
        reach = factors @ covariance
        variance = np.einsum("ir,ir->i", reach, factors) + about.spread
        gain = chance * np.einsum("ir,ir->i", reach @ matters, reach) / variance
        best = int(np.argmax(np.where(open_, gain, -np.inf)))
        rows.append(best)
        gains.append(float(gain[best]))
        open_[best] = False
        # Planned as if every question were answered: what an answer would tell, a later question need not ask again.
        covariance = covariance - np.outer(reach[best], reach[best]) / variance[best]
    return np.array(rows, np.int64), np.array(gains)
