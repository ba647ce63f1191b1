"""Interpretation of a learner's outputs: a rating, a distribution over rating levels, or the probability of a click.

A head also defines the outputs of the *prior path*, which encode "item mean + user bias", so that a model whose network
outputs zero predicts this baseline.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import HEADS
from metarec_jax.core.types import Params

LOGISTIC = 3 / np.pi**2
"""Square of the scale of a logistic distribution, divided by its variance."""


class Head(NamedTuple):
    """The meaning of outputs, as pure functions of one user's rows.

    Attributes:
        outputs: number of outputs of a row.
        init: () -> params of the prior path.
        prior: (params, item_mean [n], user_bias []) -> outputs [n, outputs] that predict item mean + user bias.
        init_believed: noise -> params of the prior path with item factors; the noise is a variance of ratings.
        believed: (params, mean [n], variance [n]) -> outputs that predict a rating with this mean and variance.
        residual: (item_mean [n], rating [n]) -> residuals whose mean is the user bias, [n].
        loss: (outputs [n, outputs], rating [n]) -> loss of each row [n].
        mean: outputs -> expected rating [n]. Best under squared error, and the score that ranks.
        point: outputs -> the rating with the least expected absolute error [n].
        curvature: an upper bound of the second derivative of a row's loss by its outputs, in any direction.
        unit: value of an output of 1, in ratings; None where outputs are logits.
        quarter: a quarter of the rating scale, in ratings: about the distance between two levels.
        above: outputs -> probability that the rating is above each level but the greatest [n, levels - 1]; None where
            outputs do not define a distribution.
    """

    outputs: int
    init: Callable[[], Params]
    prior: Callable[[Params, Array, Array], Array]
    init_believed: Callable[[float], Params]
    believed: Callable[[Params, Array, Array], Array]
    residual: Callable[[Array, Array], Array]
    loss: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    point: Callable[[Array], Array]
    curvature: float = 1.0
    unit: float | None = None
    quarter: float = 1.0
    above: Callable[[Array], Array] | None = None


@dataclasses.dataclass(frozen=True)
class HeadKind:
    """A registered head.

    Attributes:
        build: (levels, low, high) -> the head for ratings of that scale.
        clicks: whether the head is for clicks instead of ratings.
    """

    build: Callable[[tuple[float, ...], float, float], Head]
    clicks: bool = False


def register_head(name: str, *, clicks: bool = False) -> Callable[[Callable[..., Head]], Callable[..., Head]]:
    """Register a function (levels, low, high) -> head.

    Args:
        name: name of the head in ``learner.head``.
        clicks: whether the head is for clicks instead of ratings.

    Returns:
        The decorator.
    """

    def decorate(build: Callable[..., Head]) -> Callable[..., Head]:
        HEADS.register(name)(HeadKind(build, clicks))
        return build

    return decorate


@register_head("rating")
def _rating(levels: tuple[float, ...], low: float, high: float) -> Head:
    return rating_head(low, high)


@register_head("click", clicks=True)
def _click(levels: tuple[float, ...], low: float, high: float) -> Head:
    return click_head()


@register_head("classes")
def _classes(levels: tuple[float, ...], low: float, high: float) -> Head:
    return classes_head(_at_least_two("classes", levels), cross_entropy(levels))


@register_head("ordinal")
def _ordinal(levels: tuple[float, ...], low: float, high: float) -> Head:
    return classes_head(_at_least_two("ordinal", levels), ordinal_loss(levels))


def _at_least_two(kind: str, levels: tuple[float, ...]) -> tuple[float, ...]:
    if len(levels) < 2:
        raise MetarecError(
            f"learner.head {kind!r} needs ratings with at least 2 and at most 20 distinct values; "
            "these are continuous or constant: use --learner.head rating"
        )
    return levels


def rating_head(low: float, high: float) -> Head:
    """Regression: one output, the rating, under squared error in units of a quarter of the scale.

    Args:
        low, high: ends of the rating scale.

    Returns:
        The head.
    """
    unit = (high - low) / 4 or 1.0

    def expected(outputs: Float[Array, "n 1"]) -> Float[Array, " n"]:
        return jnp.clip(outputs[:, 0] * unit, low, high)

    return Head(
        outputs=1,
        init=dict,
        prior=lambda params, item_mean, bias: (item_mean + bias)[:, None] / unit,
        init_believed=lambda noise: {},
        believed=lambda params, mean, variance: mean[:, None] / unit,
        residual=lambda item_mean, rating: rating - item_mean,
        loss=lambda outputs, rating: jnp.square(outputs[:, 0] - rating / unit) / 2,
        mean=expected,
        point=expected,
        unit=unit,
        quarter=unit,
    )


Loss = Callable[[Float[Array, "n classes"], Float[Array, " n"]], Float[Array, " n"]]


def cross_entropy(levels: tuple[float, ...]) -> Loss:
    """Negative log-probability of the true level."""
    level = np.asarray(levels, np.float32)

    def loss(outputs: Float[Array, "n classes"], rating: Float[Array, " n"]) -> Float[Array, " n"]:
        target = jnp.argmin(jnp.abs(rating[:, None] - level[None]), axis=-1)
        return -jnp.take_along_axis(jax.nn.log_softmax(outputs), target[:, None], axis=-1)[:, 0]

    return loss


def ordinal_loss(levels: tuple[float, ...]) -> Loss:
    """Mean over thresholds ``c`` of the log-loss of ``P(R <= c)``, which penalises an error by its number of levels.

    This is ordinal regression as extended binary classification (Li & Lin 2006, "Ordinal regression by extended binary
    classification", equation 4).
    """
    level = np.asarray(levels, np.float32)
    threshold = (level[1:] + level[:-1]) / 2

    def loss(outputs: Float[Array, "n classes"], rating: Float[Array, " n"]) -> Float[Array, " n"]:
        log_p = jax.nn.log_softmax(outputs)
        below = jax.lax.cumlogsumexp(log_p, axis=1)[:, :-1]
        above = jax.lax.cumlogsumexp(log_p, axis=1, reverse=True)[:, 1:]
        return -jnp.mean(jnp.where(rating[:, None] <= threshold[None], below, above), axis=-1)

    return loss


def classes_head(levels: tuple[float, ...], loss: Loss) -> Head:
    """A distribution over the rating levels, trained with `loss`.

    The prior path is a normal density around item mean + user bias, evaluated at the levels:
    ``logit_c = offset_c - (level_c - m)^2 / (2 s^2)`` with learned width ``s`` and offsets.

    Args:
        levels: the values that a rating can take.
        loss: `cross_entropy` or `ordinal_loss` of the levels.

    Returns:
        The head.
    """
    level = np.asarray(levels, np.float32)
    unit = (level[-1] - level[0]) / 4

    def prior(params: Params, item_mean: Array, bias: Array) -> Array:
        distance = ((item_mean + bias)[:, None] - level[None]) / unit
        return params["offset"][None] - jnp.square(distance) / 2 * jnp.exp(-2 * params["log_width"])

    def point(outputs: Float[Array, "n classes"]) -> Float[Array, " n"]:
        """The median level: the first whose cumulative probability reaches one half."""
        reached = jnp.cumsum(jax.nn.softmax(outputs), axis=-1) >= 0.5
        # The last level always reaches it, also if the sum is rounded below one half.
        return jnp.asarray(level)[jnp.argmax(reached.at[:, -1].set(True), axis=-1)]

    return Head(
        outputs=len(level),
        init=lambda: {"offset": jnp.zeros(len(level)), "log_width": jnp.zeros(())},
        prior=prior,
        init_believed=functools.partial(_init_cumulative, level),
        believed=_cumulative,
        residual=lambda item_mean, rating: rating - item_mean,
        loss=loss,
        mean=lambda outputs: jax.nn.softmax(outputs) @ level,
        point=point,
        # Böhning 1992, theorem 2.1; the bound also holds where a loss is a difference of log-sum-exps.
        curvature=0.5,
        quarter=float(unit),
        above=lambda outputs: jnp.cumsum(jax.nn.softmax(outputs)[:, :0:-1], axis=-1)[:, ::-1],
    )


def _init_cumulative(level: Float[np.ndarray, " classes"], noise: float) -> Params:
    """Thresholds half-way between levels, and a logistic distribution with variance `noise`."""
    threshold = (level[1:] + level[:-1]) / 2
    return {
        "first": jnp.float32(threshold[0]),
        "log_gap": jnp.log(jnp.asarray(np.diff(threshold))),
        "log_width": jnp.float32(np.log(noise * LOGISTIC) / 2),
    }


def _cumulative(params: Params, mean: Float[Array, " n"], variance: Float[Array, " n"]) -> Float[Array, "n classes"]:
    """Log-probabilities of the levels under the proportional odds model (McCullagh 1980, "Regression models for ordinal
    data", section 2).

    A rating is above a threshold ``t`` with probability ``logistic((mean - t) / s)``, where ``s^2`` is the sum of a
    learned square and of the variance.
    """
    threshold = jnp.append(params["first"], params["first"] + jnp.cumsum(jnp.exp(params["log_gap"])))
    scale = jnp.sqrt(jnp.exp(2 * params["log_width"]) + LOGISTIC * variance)
    above = (mean[:, None] - threshold[None]) / scale[:, None]
    reached, passed = jax.nn.log_sigmoid(above), jax.nn.log_sigmoid(-above)
    # logistic(a) - logistic(b) = logistic(a) logistic(-b) (1 - exp(b - a))
    between = reached[:, :-1] + passed[:, 1:] + jnp.log(-jnp.expm1(above[:, 1:] - above[:, :-1]))
    return jnp.concatenate([passed[:, :1], between, reached[:, -1:]], axis=1)


def click_head() -> Head:
    """The probability of a click: one logit, under binary cross-entropy.

    The prior path adds the user's bias to the log-odds of the item's click rate. The bias is a shrunk mean of residuals
    ``click - rate``, converted to log-odds by a factor 4 (the inverse of the logistic function's steepest slope).
    """

    def prior(params: Params, item_mean: Array, bias: Array) -> Array:
        rate = jnp.clip(item_mean, 1e-3, 1 - 1e-3)
        return (jnp.log(rate) - jnp.log1p(-rate) + 4 * bias)[:, None]

    def loss(outputs: Float[Array, "n 1"], rating: Float[Array, " n"]) -> Float[Array, " n"]:
        return jax.nn.softplus(outputs[:, 0]) - rating * outputs[:, 0]

    def mean(outputs: Float[Array, "n 1"]) -> Float[Array, " n"]:
        return jax.nn.sigmoid(outputs[:, 0])

    return Head(
        outputs=1,
        init=dict,
        prior=prior,
        init_believed=lambda noise: {},
        believed=lambda params, mean, variance: prior(params, mean, jnp.zeros(())),
        residual=lambda item_mean, rating: rating - item_mean,
        loss=loss,
        mean=mean,
        point=lambda outputs: (mean(outputs) >= 0.5).astype(jnp.float32),
        curvature=0.25,
        above=lambda outputs: mean(outputs)[:, None],
    )
