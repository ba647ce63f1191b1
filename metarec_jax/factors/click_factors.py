"""Item factors of clicks, in the form of those of ratings: implicit least squares as a Bayesian linear regression.

Given the items' factors ``f_i``, a user's factors under the loss of `metarec_jax.factors.implicit` are the posterior
mean of ``t ~ N(0, P^-1)`` after a measurement 1 of ``f_i . t`` for each clicked item, with

    P = alpha G + ridge (clicks + alpha items) I,      G = sum over all items of f_i f_i'.

In the basis of the eigenvectors of ``G``, ``P`` is diagonal, and with factors scaled to ``P = I`` at no clicks it is
``1 + growth_k clicks``: `metarec_jax.learner.prior` folds a user in with these factors, and the outer loop can train
the growth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from metarec_jax.core.stored_columns import Column, blocks, computed, count_values
from metarec_jax.core.types import Items
from metarec_jax.factors.feature_map import feature_map
from metarec_jax.factors.implicit import Penalties, fit_clicks, fold_in_many
from metarec_jax.factors.item_factors import FACTORS, Beliefs, Plan, joined, numbered, plan
from metarec_jax.factors.update import path_of, taste_of
from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.metrics.catalogue_ranking import catalogue_metrics

SWEEPS = 16
"""Sweeps of a fit."""
_ALPHAS, _RIDGES = (0.3, 0.1, 1.0), (0.003, 0.006, 0.012, 0.024)
"""Weights of the loss that `choose_penalties` tries."""
_CHOOSING_ROWS, _CHOOSING_USERS, _CHOOSING_SWEEPS = 200_000, 500, 8
"""For the choice: greatest number of clicks, greatest number of users that are folded in, and sweeps of a fit."""
_CHOOSING_SCORES = 1 << 26
"""For the choice: greatest number of scores of all users that are folded in."""
_SHOWN, _METRIC = 0.8, "ndcg@100"
"""For the choice: share of a user's clicks that are shown, and the metric of the list."""
_SHARPNESS = np.geomspace(1, 64, 25)
"""Values of the sharpness that are tried."""
_NEW, _LIFTS = 0.2, (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Share of the items that `choose_lift` treats as new, and the factors of their scores that it tries."""
DEFAULT = Penalties(), 8.0
"""Weights of the loss and sharpness where there are too few users to choose them."""


def choose_penalties(
    user: Column,
    item: Column,
    *,
    items: int,
    rank: int,
    seed: int,
    mesh: Mesh | None = None,
    watch: Callable[[int], None] = lambda fit: None,
) -> tuple[Penalties, float]:
    """Choose the weights of the loss, and the sharpness of scores, on clicks of training users.

    Some users are left out of a fit and folded in from most of their clicks. The weights are those with the best nDCG
    of their other clicks, by a search along the ridge and then along the weight of what was not clicked; the sharpness
    is the factor of the scores with the greatest log-probability of these clicks, under a softmax over the items that
    were not shown.

    Args:
        user, item: int [rows], each pair once. Columns are read in slices.
        items: number of items.
        rank: number of factors.
        seed: seed of the draws.
        mesh: devices that share the tables; None takes one.
        watch: called after each fit with its number.

    Returns:
        The weights, and the sharpness.
    """
    who, item, drawn, out = _draw(user, item, items, seed)
    fitted = ~out
    asked = out & (drawn >= _SHOWN)
    held = _Held.of(who, item, out & ~asked, asked, np.bincount(item[fitted], minlength=items) > 0)
    if held is None:
        return DEFAULT
    _, trained = np.unique(who[fitted], return_inverse=True)
    number = 0

    def scores_of(penalties: Penalties) -> np.ndarray:
        nonlocal number
        found = fit_clicks(
            trained,
            item[fitted],
            np.ones(len(trained), np.float32),
            users=int(trained.max()) + 1,
            items=items,
            rank=rank,
            penalties=penalties,
            sweeps=_CHOOSING_SWEEPS,
            mesh=mesh,
        ).items
        watch(number)
        number += 1
        return fold_in_many(*held.shown, held.users, found, penalties) @ found.T

    best = (-1.0, DEFAULT[0], np.zeros(held.candidates.shape))
    for tried in ([(_ALPHAS[0], ridge) for ridge in _RIDGES], [(alpha, None) for alpha in _ALPHAS[1:]]):
        ridge_before = best[1].ridge
        for alpha, ridge in tried:
            penalties = Penalties(alpha, ridge or ridge_before)
            scores = scores_of(penalties)
            best = max(best, (held.ndcg(scores), penalties, scores), key=lambda value: value[0])
    _, penalties, scores = best
    chances = [held.log_probability(sharpness * scores) for sharpness in _SHARPNESS]
    return penalties, float(_SHARPNESS[int(np.argmax(chances))])


def choose_lift(
    items: Items,
    embeddings: Float[np.ndarray, "items hidden"],
    user: Column,
    item: Column,
    penalties: Penalties,
    *,
    rank: int,
    seed: int,
    mesh: Mesh | None = None,
) -> float:
    """Choose the factor of the scores of new items, on clicks of training users.

    Factors that are predicted from features are shrunk, and so are the scores. Some items are left out of a fit as if
    they were new, and some users, who are folded in from most of their clicks on the other items. The factor is the one
    with the best nDCG of all their other clicks, those on new items included, among all items.

    Args:
        items: the catalogue.
        embeddings: embeddings of the items' texts.
        user, item: int [rows], each pair once. Columns are read in slices.
        penalties: weights of the loss.
        rank: number of factors.
        seed: seed of the draws.
        mesh: devices that share the tables; None takes one.

    Returns:
        The factor; 1 where there are too few clicks to choose it.
    """
    who, item, drawn, out = _draw(user, item, len(items), seed)
    new = (np.random.default_rng([seed, 9]).random(len(items)) < _NEW)[item]
    fitted = ~out & ~new
    known = np.bincount(item[fitted], minlength=len(items)) > 0
    shown = out & known[item] & (drawn < _SHOWN)
    held = _Held.of(who, item, shown, out & ~shown, np.bincount(item[~out], minlength=len(items)) > 0)
    if held is None:
        return 1.0
    clicked = who[fitted], item[fitted]
    made = plan(rank, items, embeddings, *clicked)
    found = believe_clicks(made, items, embeddings, *clicked, penalties, 1.0, mesh=mesh)
    path, (who, item) = path_of({}, found), held.shown
    rows = [found.table[item[who == number]] for number in range(held.users)]
    tastes = np.stack([taste_of(own, np.ones(len(own)), path)[0] for own in rows])
    scores = tastes @ found.table[:, FACTORS:].T
    return max(_LIFTS, key=lambda lift: held.ndcg(np.where(known, 1.0, lift) * scores))


def _draw(user: Column, item: Column, items: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw clicks for a choice: user, item, a number between 0 and 1, and whether the user is left out of the fit."""
    rng = np.random.default_rng([seed, 8])
    count = count_values(user)
    users = np.flatnonzero(count)
    turn = rng.permutation(len(users))
    order = np.cumsum(count[users][turn])
    taken = turn[: max(int(np.searchsorted(order, _CHOOSING_ROWS)), min(len(users), 10))]
    most = min(_CHOOSING_USERS, max(_CHOOSING_SCORES // items, 1))
    who, item, drawn = _rows_of(users[taken], user, item, rng)
    who = np.searchsorted(users, who)
    return who, item, drawn, np.isin(who, taken[: min(len(taken) // 5, most)])


def _rows_of(
    some_users: np.ndarray, user: Column, item: Column, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User and item of each row of some users, and a number between 0 and 1, which is drawn for rows of others, too."""
    found = [(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))]
    for some in blocks(len(user)):
        who, drawn = user[some], rng.random(some.stop - some.start)
        mine = np.isin(who, some_users)
        found.append((who[mine], item[some][mine], drawn[mine]))
    who, item_, drawn = (np.concatenate(part) for part in zip(*found))
    return who, item_, drawn


CHOICES = len(_ALPHAS) + len(_RIDGES) - 1
"""Number of fits of `choose_penalties`."""


class _Held(NamedTuple):
    """Clicks of users who are left out of a fit.

    Attributes:
        users: number of users.
        shown: user and item of each click that is folded in, int [shown].
        targets: user and item of each of the others, int [targets].
        candidates: bool [users, items], items that were clicked by somebody in the fit and were not shown.
    """

    users: int
    shown: tuple[np.ndarray, np.ndarray]
    targets: tuple[np.ndarray, np.ndarray]
    candidates: np.ndarray

    @classmethod
    def of(
        cls, who: np.ndarray, item: np.ndarray, shown: np.ndarray, asked: np.ndarray, known: np.ndarray
    ) -> _Held | None:
        """Keep the users with clicks of both kinds; None if there is none."""
        asked = asked & known[item]
        some = np.intersect1d(who[shown], who[asked])
        if not len(some):
            return None
        place = np.full(int(who.max()) + 1, -1)
        place[some] = np.arange(len(some))
        shown, asked = (np.flatnonzero(part & (place[who] >= 0)) for part in (shown, asked))
        candidates = np.tile(known, (len(some), 1))
        candidates[place[who[shown]], item[shown]] = False
        return cls(len(some), (place[who[shown]], item[shown]), (place[who[asked]], item[asked]), candidates)

    def ndcg(self, scores: np.ndarray) -> float:
        """Mean nDCG of the lists."""
        user, item = self.targets
        targets = [item[user == number] for number in range(self.users)]
        hidden = [np.flatnonzero(~row) for row in self.candidates]
        return float(catalogue_metrics(scores, hidden, targets, [_METRIC])[_METRIC].mean())

    def log_probability(self, scores: np.ndarray) -> float:
        """Mean log-probability of the targets."""
        most = scores.max()
        of_all = np.sum(np.exp(scores - most), axis=1, where=self.candidates)
        return float(np.mean(scores[self.targets] - most - np.log(of_all)[self.targets[0]]))


def believe_clicks(
    plan: Plan,
    items: Items,
    embeddings: Float[np.ndarray, "items hidden"],
    user: Column,
    item: Column,
    penalties: Penalties,
    sharpness: float,
    lift: float = 1.0,
    *,
    mesh: Mesh | None = None,
    watch: Callable[[int], None] = lambda sweep: None,
    folder: Path | None = None,
) -> Beliefs:
    """Fit item factors to clicks.

    Args:
        plan: from `metarec_jax.factors.item_factors.plan`.
        items: the catalogue.
        embeddings: embeddings of the items' texts.
        user, item: int [rows], each pair once. Columns are read in slices.
        penalties, sharpness: from `choose_penalties`.
        lift: from `choose_lift`.
        mesh: devices that share the tables; None takes one.
        watch: called after each sweep with its number.
        folder: where files are made if there are many rows; None takes the folder for temporary files.

    Returns:
        The item factors; those of items without clicks are predicted from their features, times `lift`.
    """
    count, of_user = count_values(item, len(items)), count_values(user)
    sources = plan.sources.of_counts(count)
    # The popularity of a new item is unknown: factors that depended on it would be predicted as those of a mean one.
    rows = joined(sources.rows(items.details, embeddings, np.zeros(len(items)), items.vectors))
    seen = np.flatnonzero(count)
    fitted = fit_clicks(
        numbered(user, of_user),
        numbered(item, count),
        computed(item, lambda some: np.ones(len(some)), np.float32),
        users=int(np.count_nonzero(of_user)),
        items=len(seen),
        rank=plan.rank,
        penalties=penalties,
        sweeps=SWEEPS,
        mesh=mesh,
        watch=watch,
        folder=folder,
    )
    factors = np.asarray(fitted.items, np.float64)
    size, basis = np.linalg.eigh(factors.T @ factors)
    none = penalties.ridge * (penalties.alpha * len(seen)) ** penalties.power
    precision = penalties.alpha * np.maximum(size, 0) + none
    factors = factors @ basis / np.sqrt(precision)
    of_new = np.zeros((1 + len(plan.features), FACTORS + plan.rank))
    # An item of n clicks weighs n / (n + 5).
    found = feature_map(rows[seen] @ plan.features, factors, count[seen] / (count[seen] + 5.0))
    of_new[:, FACTORS:] = lift * np.concatenate([found[:1], plan.features @ found[1:]])
    table = of_new[0] + rows @ of_new[1:]
    table[seen] = 0
    table[seen, FACTORS:] = factors
    tastes = no_tastes(plan.rank, 0)
    tastes["growth"] = np.log(penalties.ridge / precision).astype(np.float32)
    return Beliefs(table.astype(np.float32), 1.0, of_new.astype(np.float32), sources, tastes, sharpness)
