"""Beliefs that a training user meets must not come from that user's own ratings, which they would give away.

The training users are dealt into folds. What users of a fold meet was learned from all the others.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from metarec_jax.collaborative.beliefs import FACTORS, MEAN, REST, Beliefs, believe, main_features, rated_most
from metarec_jax.collaborative.sources import POPULARITY, TEXT, VECTOR
from metarec_jax.collaborative.tastes import expect_tastes
from metarec_jax.config import FactorsConfig
from metarec_jax.data.dropout import AsNew
from metarec_jax.data.splits import Folded
from metarec_jax.errors import MetarecError
from metarec_jax.progress import QUIET, Reporter
from metarec_jax.types import Interactions


def believe_all(
    config: FactorsConfig,
    data: Interactions,
    embeddings: np.ndarray,
    rows: np.ndarray,
    profiles: np.ndarray,
    seed: int,
    reporter: Reporter = QUIET,
) -> tuple[Beliefs, Folded]:
    """Beliefs from the training `rows` of `data`, and those that the training users meet.

    Args:
        config: variances, rank and the number of folds.
        data: of which no other row is looked at.
        embeddings: float32 [items, hidden], of the items' texts.
        rows: int64 [n].
        profiles: float32 [users, hidden], as for `metarec_jax.collaborative.tastes.expect_tastes`.
        seed: who is in which fold.
        reporter: where progress is shown.

    Raises:
        MetarecError: there is one training user, whom nobody else could teach anything.
    """
    unit = (data.high - data.low) / 4 or 1.0
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

    tables, parts_as_new = [], []
    with reporter.bar("learning what users share", folds + 1) as advance:
        everyone = of(rows)
        advance(1)
        for number in range(folds):
            others = of(rows[fold[data.user[rows]] != number])
            tables.append(others.table)
            if config.dropout:
                parts_as_new.append(_parts_as_new(config, others, data, embeddings))
            advance(number + 2)
    parts = everyone.table[:, MEAN], everyone.table[:, REST], everyone.table[:, FACTORS:]
    ratings = data.user[rows], data.item[rows], data.rating[rows]
    tastes = expect_tastes(config, parts, everyone.noise, *ratings, profiles)
    as_new = None
    if config.dropout:
        without = [0.0, *_own_dropout(config)] if any(_own_dropout(config)) else [0.0]
        as_new = AsNew(np.stack(parts_as_new, axis=1), config.dropout, np.array(without))
    return dataclasses.replace(everyone, tastes=tastes), Folded(np.stack(tables), fold, as_new)


def _own_dropout(config: FactorsConfig) -> tuple[float, ...]:
    """Of text, details and vectors."""
    return config.text_dropout, config.details_dropout, config.vectors_dropout


def _parts_as_new(
    config: FactorsConfig, beliefs: Beliefs, data: Interactions, embeddings: np.ndarray
) -> Float[np.ndarray, "sources items columns"]:
    """What is believed of all items as if they were new, as parts that are dropped apart: all in one where none is."""
    parts = beliefs.parts_of_new_items(embeddings, data.items.details, data.items.vectors)
    if not any(_own_dropout(config)):
        return np.sum(list(parts.values()), axis=0)[None]
    known = {"": parts.pop(""), TEXT: parts.pop(TEXT), VECTOR: parts.pop(VECTOR, np.zeros_like(parts[POPULARITY]))}
    del parts[POPULARITY]  # of an item that nobody rated there is none
    details = np.sum(list(parts.values()), axis=0) if parts else np.zeros_like(known[TEXT])
    return np.stack([known[""], known[TEXT], details, known[VECTOR]])
