"""Fit every baseline of the package, with hyperparameters that are chosen on validation users.

Such baselines outperform published models of this field, so every table includes them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Episodes
from metarec_jax.evaluation.baselines import (
    Baseline,
    click_rate,
    constant,
    fit_scale,
    item_mean,
    item_mean_user_bias,
    popularity,
    ridge,
    to_nearest_level,
    user_mean,
    user_median,
)
from metarec_jax.evaluation.budget import FULL, Budget
from metarec_jax.metrics.metrics import compute, evaluate_users, merge, sums


def tune(candidates: Iterable[Baseline], validation: Sequence[Episodes], metric: str = "mae") -> Baseline:
    """Choose the candidate with the least error on validation users; the first one where several are equal.

    Args:
        candidates: baselines.
        validation: episodes of validation users.
        metric: the error, "mae" or "rmse".

    Returns:
        The chosen baseline.

    Raises:
        MetarecError: there is no candidate, or no validation user.
    """

    def error(baseline: Baseline) -> float:
        parts = [
            sums(
                evaluate_users(
                    baseline.predict(e), e.query, method=baseline.name, users=e.user, weight=e.weight, metrics=(metric,)
                )
            )
            for e in validation
        ]
        return compute(merge(parts)).get(metric, np.nan)

    scored = [(error(candidate), candidate) for candidate in candidates]
    if not scored or np.isnan(scored[0][0]):
        raise MetarecError("baselines are tuned on validation users, and there are none: raise episodes.validation")
    return min(scored, key=lambda pair: pair[0])[1]


def fit_baselines(
    train: Iterable[Episodes],
    validation: Sequence[Episodes],
    *,
    low: float,
    high: float,
    levels: Sequence[float] = (),
    items: Float[np.ndarray, "items hidden"] | None = None,
    known: Bool[np.ndarray, " items"] | None = None,
    budget: Budget = FULL,
) -> tuple[Baseline, ...]:
    """Fit every baseline on training users, with hyperparameters that are chosen on validation users.

    Args:
        train, validation: episodes, in any number of batches; support lengths may differ between batches. Those of
            `train` are read once, one after the other.
        low, high: ends of the rating scale, to which rating predictions are clipped (scores are not).
        levels: values that a rating can have; without them there are no baselines of the nearest level.
        items: item embeddings [items, hidden] for the ridge; None leaves it out.
        known: bool [items], which items training users rated; all where None.
        budget: candidates that are tried on validation users.

    Returns:
        The baselines, in the order of the table.
    """
    scale = fit_scale(train, low, high)
    biased = tune(
        (
            item_mean_user_bias(scale, item_shrink=a, user_shrink=b)
            for a, b in itertools.product(budget.item_shrinks, budget.user_shrinks)
        ),
        validation,
    )
    learned = [biased]
    if items is not None:
        adapted = functools.partial(ridge, scale, items, known=known, **biased.settings)
        learned.append(tune((adapted(penalty=p) for p in budget.penalties), validation))
    if len(levels) > 0:
        learned = [rule for plain in learned for rule in (plain, to_nearest_level(plain, levels))]
    return (
        constant(scale),
        popularity(scale),
        user_mean(scale),
        user_median(scale),
        tune((item_mean(scale, item_shrink=a) for a in budget.item_shrinks), validation),
        *learned,
    )


def fit_click_baselines(
    train: Iterable[Episodes], validation: Sequence[Episodes], *, budget: Budget = FULL
) -> tuple[Baseline, ...]:
    """Fit every baseline for clicks; squared error chooses hyperparameters, since the true probability minimises it.

    Args:
        train, validation: episodes of training and of validation users.
        budget: candidates that are tried on validation users.

    Returns:
        The baselines, in the order of the table.
    """
    scale = fit_scale(train, 0.0, 1.0)
    rates = (click_rate(scale, item_shrink=a) for a in budget.item_shrinks)
    return constant(scale), popularity(scale, clicks=True), tune(rates, validation, "rmse")
