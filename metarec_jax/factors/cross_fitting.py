"""Cross-fitting of item factors: no training user's own ratings influence the factors in that user's episodes.

The training users are divided into folds, and the factors for a fold are fitted to the ratings of all other folds. Only
the plan (numbers of factors, standardisation and components of item features) depends on which items all folds rated;
for clicks, which have a plan for each fold, only the weights of the loss (`choose_penalties`) and the factor of the
scores of new items (`choose_lift`).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jax.sharding import Mesh

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.row_ranges import Selection, where
from metarec_jax.core.stored_columns import count_values, picked
from metarec_jax.core.types import Interactions
from metarec_jax.data.splits import AsNew, Folded
from metarec_jax.factors.click_factors import CHOICES, believe_clicks, choose_lift, choose_penalties
from metarec_jax.factors.click_factors import SWEEPS as CLICK_SWEEPS
from metarec_jax.factors.fit_cache import Cache
from metarec_jax.factors.fit_memory import Sizes, announce
from metarec_jax.factors.implicit import Penalties
from metarec_jax.factors.item_factors import FACTORS, MEAN, REST, Beliefs, believe, plan
from metarec_jax.factors.row_products import one_device
from metarec_jax.factors.user_prior import expect_tastes, no_tastes, sample_of

FOLDS, FEW_FOLDS, MANY_ROWS = 5, 2, 2_000_000
"""Folds of training users, and folds from how many ratings on."""


def believe_all(
    rank: int,
    data: Interactions,
    embeddings: np.ndarray,
    rows: Selection,
    profiles: np.ndarray,
    seed: int,
    reporter: Reporter = QUIET,
    *,
    dropout: float = 0.0,
    folds: int = 0,
    mesh: Mesh | None = None,
    cache: Cache | None = None,
    weights: tuple[Penalties, float, float] | None = None,
    for_new_items: bool = False,
) -> tuple[Beliefs, Folded]:
    """Fit item factors to all training rows, and to the rows outside each fold.

    Args:
        rank: number of factors of an item.
        data: the data set; only the training rows are read.
        embeddings: float32 [items, hidden], embeddings of the items' texts.
        rows: int64 [n], the training rows of `data`; its columns are read in slices.
        profiles: float32 [users, hidden], as for `metarec_jax.factors.user_prior.expect_tastes`.
        seed: seed of the assignment of users to folds.
        reporter: shows progress.
        dropout: share of the rows of a training user that get the factors of a new item.
        folds: number of folds; 0 takes `FOLDS`, or `FEW_FOLDS` from `MANY_ROWS` ratings on.
        mesh: devices that share the tables; None takes one.
        cache: where long fits are kept; None keeps none.
        weights: for clicks, weights of the loss, sharpness of scores, and factor of the scores of new items; None
            chooses them on the training rows.
        for_new_items: for clicks, whether the factor of the scores of new items is chosen, too; otherwise it is 1.

    Returns:
        The factors fitted to all training rows, and those of each fold for the training episodes.

    Raises:
        MetarecError: there are fewer than two training users, so that no fold has other users; or the machine does not
            have the memory for the fit.
    """
    users = np.flatnonzero(count_values(picked(data.user, rows)))
    if len(users) < 2:
        raise MetarecError(
            f"factors.rank is {rank}, but there are {len(users)} training users, and each learns factors from "
            "the others: use --factors.rank 0, or bring more data"
        )
    fold = np.zeros(len(data.users), np.int32)
    folds = min(folds or (FOLDS if len(rows) < MANY_ROWS else FEW_FOLDS), len(users))
    fold[users] = np.random.default_rng([seed, 4]).permutation(len(users)) % folds

    planned = functools.partial(plan, rank, data.items, embeddings)
    clicked = picked(data.user, rows), picked(data.item, rows)
    mesh = one_device() if mesh is None else mesh
    common = planned(*clicked)
    features, columns = common.features.shape[1], 1 + common.columns.shape[1] + common.start.shape[1]
    announce(Sizes(len(rows), len(users), len(data.items), features, columns, folds), mesh, reporter)
    if data.clicks_alone and weights is None:
        with reporter.bar("weights of clicks", CHOICES + for_new_items) as advance:
            penalties, sharpness = choose_penalties(
                *clicked, items=len(data.items), rank=rank, seed=seed, mesh=mesh, watch=lambda fit: advance(fit + 1, "")
            )
            lift = 1.0
            if for_new_items:
                lift = choose_lift(data.items, embeddings, *clicked, penalties, rank=rank, seed=seed, mesh=mesh)
                advance(CHOICES + 1, "")
            weights = penalties, sharpness, lift

    def of(some: Selection, label: str) -> Beliefs:
        which = picked(data.user, some), picked(data.item, some)
        if weights is not None:
            made = planned(*which)
            with reporter.bar(label, CLICK_SWEEPS) as advance:
                watch = lambda sweep: advance(sweep + 1, "")  # noqa: E731
                folder = None if cache is None else cache.folder
                chosen = *which, *weights
                return believe_clicks(made, data.items, embeddings, *chosen, mesh=mesh, watch=watch, folder=folder)
        columns = *which, picked(data.rating, some)
        return believe(common, data.items, embeddings, *columns, mesh=mesh, cache=cache, reporter=reporter, label=label)

    def outside(number: int) -> Selection:
        return where(rows, lambda some: fold[data.user[some]] != number)

    everyone = of(rows, "item factors")
    others = [of(outside(n), f"item factors without fold {n + 1} of {folds}") for n in range(folds)]
    tables = np.stack([beliefs.table for beliefs in others])
    as_new = None
    if dropout:
        known = (embeddings, data.items.details, data.items.vectors)
        as_new = AsNew(np.stack([beliefs.of_new_items(*known) for beliefs in others]), dropout)
    folded = Folded(tables, fold, as_new)
    if data.clicks_alone:
        profile = no_tastes(rank, profiles.shape[1])["profile"]
        return dataclasses.replace(everyone, tastes=everyone.tastes | {"profile": profile}), folded
    parts = everyone.table[:, MEAN], everyone.table[:, REST], everyone.table[:, FACTORS:]
    sampled = np.zeros(len(data.users), bool)
    sampled[users[sample_of(len(users))]] = True
    some_rows = where(rows, lambda some: sampled[data.user[some]])
    user, item, rating = (np.asarray(picked(column, some_rows)) for column in (data.user, data.item, data.rating))
    tastes = expect_tastes(parts, everyone.noise, user, item, rating, profiles, reporter=reporter)
    return dataclasses.replace(everyone, tastes=tastes), folded
