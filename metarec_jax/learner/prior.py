"""The prior path of every learner: the outputs to which the network's outputs are added.

It predicts item mean + user bias or, with item factors (see `metarec_jax.factors`), the posterior of a Bayesian linear
regression on the item factors, in closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.learner.heads import Head
from metarec_jax.learner.inputs import Context, Features, whole
from metarec_jax.learner.spd_inverse import inverse

RATINGS = 2
"""Columns of a row's statistic for sum and count of ratings; the others are mean, residual variance and factors."""


class Believed(NamedTuple):
    """Initial values of a prior path with item factors.

    Attributes:
        noise: variance of a rating around its prediction.
        tastes: parameters of the prior of users' tastes, from `metarec_jax.factors.user_prior`.
        sharpness: for clicks, the factor between scores and log-odds.
    """

    noise: float
    tastes: Params
    sharpness: float = 1.0


class Taste(NamedTuple):
    """Posterior of a user's taste ``w``.

    Attributes:
        mean: posterior mean [rank].
        covariance: posterior covariance [rank, rank].
        expected: prior mean [rank], before any rating is read.
    """

    mean: Array
    covariance: Array
    expected: Array


def init(head: Head, mean_rating: float, believed: Believed | None = None) -> Params:
    """Initial parameters of the prior path.

    Args:
        head: interpretation of the outputs.
        mean_rating: mean rating of the training users.
        believed: initial values for a prior path with item factors; None without item factors.

    Returns:
        The parameters.
    """
    if believed is not None:
        scored = {}
        if "growth" in believed.tastes:
            sharpness = jnp.float32(believed.sharpness)
            scored = {"log_sharpness": jnp.log(sharpness), "offset": -sharpness / 2, "popularity": jnp.float32(0)}
        return {
            **({"score": scored} if scored else {}),
            "log_noise": jnp.log(jnp.float32(believed.noise)),
            "log_gain": jnp.float32(0),
            "taste": jax.tree.map(jnp.asarray, believed.tastes),
            "head": head.init_believed(believed.noise),
        }
    return {
        "mean": jnp.float32(mean_rating),
        "log_item_weight": jnp.log(jnp.float32(5.0)),
        "log_user_weight": jnp.log(jnp.float32(5.0)),
        "head": head.init(),
    }


def prior_outputs(
    params: Params, head: Head, context: Context, rows: Features, *, statistics: bool
) -> Float[Array, "n outputs"]:
    """Compute the outputs of the prior path for some rows.

    Without item factors this is item mean + user bias, both shrunk: ``item_mean = (sum + a mean) / (count + a)`` and
    ``user_bias = sum_support residual / (support + b)``, with learned ``a``, ``b`` and ``mean``: posterior means under
    normal priors (Efron & Morris 1975). With item factors, see `posterior`. With factors of clicks, the output is a
    score whose softmax over the catalogue predicts the next click. Without clicks of the user it is predicted by the
    items' shares of all clicks: the logarithm of an item's clicks is added.

    Args:
        params: from `init`.
        head: interpretation of the outputs.
        context: the user.
        rows: n rows to score.
        statistics: whether item statistics and the user's bias are used; if not, and without item factors, outputs are
            those of the mean rating.

    Returns:
        [n, outputs].
    """
    if "log_noise" in params:
        mean, variance = posterior(params, context, rows)
        if "score" not in params:
            return head.believed(params["head"], mean, variance)
        own = params["score"]
        nothing = jnp.sum(context.mask * context.rating) <= 0
        popular = (own["popularity"] + nothing) * jnp.log1p(rows.statistic[:, 1])
        return (jnp.exp(own["log_sharpness"]) * mean + popular + own["offset"])[:, None]
    if not statistics:
        return head.prior(params["head"], jnp.full(rows.statistic.shape[0], params["mean"]), jnp.zeros(()))
    residual = _residual(params, head, context) * context.mask
    bias = jnp.sum(residual) / (jnp.sum(context.mask) + jnp.exp(params["log_user_weight"]))
    return head.prior(params["head"], _item_mean(params, rows.statistic), bias)


def posterior(params: Params, context: Context, rows: Features) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Mean and variance of a user's expected ratings of some rows, given the support.

    A support row is predicted from the other support rows, without its own rating (Rasmussen & Williams 2006, "Gaussian
    processes for machine learning", equations 5.12 and 2.8).

    Args:
        params: parameters of the prior path.
        context: the user.
        rows: n rows; the support is recognised as ``context.support``.

    Returns:
        Mean [n] in ratings, and variance [n] in squared ratings.
    """
    mean, rest, factors = _belief(params, rows)
    taste = taste_of(params, context) if context.taste is None else context.taste
    mean = mean + factors @ taste.expected
    deviation = factors @ (taste.mean - taste.expected)
    spread = jnp.sum((factors @ taste.covariance) * factors, axis=-1)
    if rows is context.support:
        own = spread * _precision(params, context)
        deviation = (deviation - own * (context.rating - mean)) / (1 - own)
        spread = spread / (1 - own)
    return mean + deviation, spread + rest


def summarise(params: Params, context: Context) -> Taste | None:
    """Compute the posterior of the user's taste once per user, if no parameter that it depends on is adapted.

    Args:
        params: parameters of the whole learner; adapted ones are None.
        context: the user.

    Returns:
        The posterior; None without item factors, or where the inner loop adapts a parameter of the prior path.
    """
    own = params.get("prior", {})
    if "log_noise" not in own or not whole(own["log_noise"], own["log_gain"], own["taste"]):
        return None
    return taste_of(own, context)


def taste_of(params: Params, context: Context) -> Taste:
    """Compute the posterior of the user's taste, ``N(w0 + C F' R^-1 (y - F w0), C)`` with ``C = (1 + F' R^-1 F)^-1``.

    This equals Gaussian process regression over the items of the support (Rasmussen & Williams 2006, equation 2.8), but
    the matrices have the number of factors as size, not the length of the support.

    Args:
        params: parameters of the prior path.
        context: the user.

    Returns:
        The posterior.
    """
    mean, _, factors = _belief(params, context.support)
    expected = _expected(params["taste"], context)
    precision = _precision(params, context)
    before = jnp.eye(factors.shape[-1], dtype=factors.dtype)
    if "growth" in params["taste"]:
        before = before + jnp.diag(jnp.exp(params["taste"]["growth"]) * jnp.sum(context.mask * context.rating))
    covariance = inverse(before + factors.T @ (factors * precision[:, None]))
    surprise = precision * (context.rating - mean - factors @ expected)
    return Taste(expected + covariance @ (factors.T @ surprise), covariance, expected)


def _expected(params: Params, context: Context) -> Float[Array, " rank"]:
    """Prior mean ``w0`` of the taste, given the user's profile and the rated items, but not the ratings."""
    factors = context.support.statistic[..., RATINGS + 2 :]
    rated = jnp.sum(context.mask)
    chosen = (context.mask @ factors - rated * params["choice"]["middle"]) / (
        rated + jnp.exp(params["choice"]["log_doubt"])
    )
    return chosen @ params["choice"]["kernel"] + context.embedding @ params["profile"]["kernel"]


def rating_features(params: Params, head: Head, context: Context) -> Float[Array, "support 1"]:
    """Residual of each support rating from the item's mean, in quarters of the rating scale; 0 where padded.

    The residual of a row does not depend on other ratings, or on the row's weight.

    Args:
        params: parameters of the prior path.
        head: interpretation of the outputs.
        context: the user.

    Returns:
        [support, 1].
    """
    residual = jnp.where(context.mask > 0, _residual(params, head, context), 0.0)
    return residual[:, None] / head.quarter


def _belief(params: Params, rows: Features) -> tuple[Array, Array, Array]:
    belief = rows.statistic[..., RATINGS:]
    return belief[..., 0], belief[..., 1], belief[..., 2:] * jnp.exp(params["log_gain"] / 2)


def _precision(params: Params, context: Context) -> Float[Array, " support"]:
    """Precision of each support rating as a measurement of the factors' contribution; 0 where padded."""
    _, rest, _ = _belief(params, context.support)
    return context.mask / (rest + jnp.exp(params["log_noise"]))


def _residual(params: Params, head: Head, context: Context) -> Float[Array, " support"]:
    return head.residual(_item_mean(params, context.support.statistic), context.rating)


def _item_mean(params: Params, statistic: Float[Array, "n columns"]) -> Float[Array, " n"]:
    if "log_noise" in params:
        return statistic[:, RATINGS]
    weight = jnp.exp(params["log_item_weight"])
    return (statistic[:, 0] + weight * params["mean"]) / (statistic[:, 1] + weight)
