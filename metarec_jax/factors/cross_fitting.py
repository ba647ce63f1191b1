"""Cross-fitting of item factors: no training user's own ratings influence the factors in that user's episodes.

The training users are divided into folds, and the factors for a fold are fitted to the ratings of all other folds. Only
the choice of the fitted items and the target of the rotation depend on the numbers of ratings of all folds.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.data.splits import AsNew, Folded
from metarec_jax.factors.hyperparameters import Hyperparameters
from metarec_jax.factors.item_factors import FACTORS, MEAN, REST, Beliefs, believe, main_features, rated_most
from metarec_jax.factors.user_prior import expect_tastes


def believe_all(
    config: Hyperparameters,
    data: Interactions,
    embeddings: np.ndarray,
    rows: np.ndarray,
    profiles: np.ndarray,
    seed: int,
    reporter: Reporter = QUIET,
    *,
    dropout: float = 0.0,
) -> tuple[Beliefs, Folded]:
    """Fit item factors to all training rows, and to the rows outside each fold.

    Args:
        config: variances, rank and number of folds.
        data: the data set; only the training rows are read.
        embeddings: float32 [items, hidden], embeddings of the items' texts.
        rows: int64 [n], the training rows of `data`.
        profiles: float32 [users, hidden], as for `metarec_jax.factors.user_prior.expect_tastes`.
        seed: seed of the assignment of users to folds.
        reporter: shows progress.
        dropout: share of the rows of a training user that get the factors of a new item.

    Returns:
        The factors fitted to all training rows, and those of each fold for the training episodes.

    Raises:
        MetarecError: there are fewer than two training users, so that no fold has other users.
    """
    unit = 0.25 if data.kind == "click" else 1.0
    users = np.unique(data.user[rows])
    if len(users) < 2:
        raise MetarecError(
            f"factors.rank is {config.rank}, but there are {len(users)} training users, and each learns factors from "
            "the others: use --factors.rank 0, or bring more data"
        )
    fold = np.zeros(len(data.users), np.int32)
    folds = min(config.folds, len(users))
    fold[users] = np.random.default_rng([seed, 4]).permutation(len(users)) % folds

    basis = rated_most(config, len(data.items), data.item[rows])
    count = np.bincount(data.item[rows], minlength=len(data.items))
    towards = main_features(config, data.items, embeddings, count)

    def of(some: np.ndarray) -> Beliefs:
        columns = data.user[some], data.item[some], data.rating[some]
        return believe(config, data.items, embeddings, *columns, unit, basis, towards)

    others = []
    with reporter.bar("learning item factors", folds + 1) as advance:
        everyone = of(rows)
        advance(1)
        for number in range(folds):
            others.append(of(rows[fold[data.user[rows]] != number]))
            advance(number + 2)
    parts = everyone.table[:, MEAN], everyone.table[:, REST], everyone.table[:, FACTORS:]
    ratings = data.user[rows], data.item[rows], data.rating[rows]
    tastes = expect_tastes(config, parts, everyone.noise, *ratings, profiles)
    tables = np.stack([beliefs.table for beliefs in others])
    as_new = None
    if dropout:
        known = (embeddings, data.items.details, data.items.vectors)
        as_new = AsNew(np.stack([beliefs.of_new_items(*known) for beliefs in others]), dropout)
    return dataclasses.replace(everyone, tastes=tastes), Folded(tables, fold, as_new)
