"""Fit every baseline of lists over the catalogue, with hyperparameters that are chosen on validation users."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float
from scipy import sparse

from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.evaluation.budget import ListBudget
from metarec_jax.evaluation.list_baselines import (
    MOST_EASE_ITEMS,
    ListBaseline,
    at_random,
    ease,
    ials,
    item_knn,
    popularity,
    text_similarity,
)
from metarec_jax.evaluation.lists import Lists, Scores, judge

CHOOSING = "ndcg_list@100"
"""The metric of validation users that chooses hyperparameters."""

VALIDATED = "validation nDCG@100"
"""Setting of a tuned baseline that holds the value that chose it."""

Value = Callable[[Scores], float]
"""A method -> its value on validation users, the greater the better."""


def value_on(validation: Lists, clicks: np.ndarray, users: int) -> Value:
    """Make a function that evaluates methods on validation users by `CHOOSING`.

    Args:
        validation: tasks of validation users.
        clicks: float [candidates], training clicks of each.
        users: number of training users.

    Returns:
        The function.
    """

    def value(scores: Scores) -> float:
        judged = judge(validation, scores, (CHOOSING,), clicks, users, method="a candidate of the tuning")
        return float(judged.values[CHOOSING].mean())

    return value


def tune(
    candidates: Iterable[ListBaseline], value: Value, tried: Callable[[ListBaseline], None] = lambda best: None
) -> ListBaseline:
    """Choose the candidate of the greatest value; the first one where several are equal.

    Args:
        candidates: baselines, at least one; only the best so far is kept.
        value: evaluates a baseline on validation users.
        tried: called after each candidate with the best one so far.

    Returns:
        The chosen baseline; its settings have the value as `VALIDATED`.
    """
    best: tuple[float, ListBaseline] | None = None
    for candidate in candidates:
        found = value(candidate.scores)
        if best is None or found > best[0]:
            settings = {**candidate.settings, VALIDATED: found}
            best = found, dataclasses.replace(candidate, settings=settings)
        tried(best[1])
    assert best is not None
    return best[1]


def fit_list_baselines(
    train: sparse.csr_matrix,
    embeddings: Float[np.ndarray, "items hidden"],
    value: Value,
    budget: ListBudget,
    reporter: Reporter = QUIET,
    *,
    most_ease_items: int = MOST_EASE_ITEMS,
) -> tuple[tuple[ListBaseline, ...], tuple[str, ...]]:
    """Fit every baseline on the clicks of training users.

    Args:
        train: float32 CSR [training users, candidates].
        embeddings: text embeddings of the candidates.
        value: evaluates a baseline on validation users.
        budget: candidates of each tuned baseline.
        reporter: shows progress.
        most_ease_items: items above which EASE is left out.

    Returns:
        The baselines, in the order of the table, and notes on how they were chosen and which one is absent.
    """
    items = train.shape[1]
    sizes = budget.trials
    trials = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    notes = [f"each baseline has the best of {trials} settings on validation users, by nDCG@100"]
    if items > most_ease_items:
        notes.append(f"EASE is absent: its matrix is items x items, and {items:,} items are above {most_ease_items:,}")
    plain = next(iter(text_similarity(embeddings, (0.0,))))
    found = [
        at_random(items),
        popularity(train),
        dataclasses.replace(
            plain,
            name="text similarity, plain",
            definition="similarity to the mean text embedding of the clicked items",
            settings={},
        ),
    ]
    done = itertools.count(1)
    with reporter.bar("tuning the baselines", sum(sizes)) as advance:

        def best(candidates: Iterable[ListBaseline]) -> ListBaseline:
            return tune(candidates, value, lambda chosen: advance(next(done), f"{chosen.name} {chosen.settings}"))

        found.append(best(text_similarity(embeddings, budget.away)))
        found.append(best(item_knn(train, budget.neighbours)))
        if items <= most_ease_items:
            found.append(best(ease(train, budget.ridges)))
        rank, *others = budget.ranks
        first = best(ials(train, [(rank, *weights) for weights in budget.weights]))
        weights = first.settings["alpha"], first.settings["ridge"]
        second = [best([found]) for found in ials(train, [(rank, *weights) for rank in others])]
        found.append(max((first, *second), key=lambda one: one.settings[VALIDATED]))
    return tuple(found), tuple(notes)
