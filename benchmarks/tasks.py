"""The batch of a case, as plain arrays for all contenders."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import InnerLoopCase
from benchmarks.rivals import Layers, Task
from metarec_jax.core.types import Interactions


def task_of(case: InnerLoopCase) -> Task:
    """Random weights and embeddings (whose values do not affect the cost), and the ratings of the case."""
    rng = np.random.default_rng(0)
    ids, labels, items = _real(case, rng) if case.real else _distinct(case, rng)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    table = normal(items, case.features, scale=case.features**-0.5)
    theta: Layers = {
        "hidden": {"kernel": normal(case.features, case.hidden), "bias": normal(case.hidden, scale=0.1)},
        "output": {"kernel": normal(case.hidden, case.classes), "bias": normal(case.classes, scale=0.1)},
    }
    rates = {
        layer: {name: np.log(rng.uniform(0.01, 0.05, case.steps)).astype(np.float32) for name in arrays}
        for layer, arrays in theta.items()
    }
    split = case.support
    return Task(
        table=table,
        support_ids=ids[:, :split],
        support_labels=labels[:, :split],
        query_ids=ids[:, split:],
        query_labels=labels[:, split:],
        theta=theta,
        log_rate=rates,
        offset=normal(case.classes, scale=0.1),
    )


def _distinct(case: InnerLoopCase, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows with different items."""
    items = case.users * (case.support + case.query)
    ids = np.arange(items, dtype=np.int32).reshape(case.users, -1)
    return ids, rng.integers(0, case.classes, ids.shape).astype(np.int32), items


def movielens() -> Interactions:
    """MovieLens-100K. Importing this module does not import the readers of data, which random ratings do not need."""
    from metarec_jax.config.data import DataConfig
    from metarec_jax.data import load

    return load(DataConfig(), seed=0)


def users_of(case: InnerLoopCase) -> np.ndarray:
    """Rows of the users of MovieLens-100K in a case of real ratings: the first with enough ratings."""
    data = movielens()
    rows = case.support + case.query
    found = np.flatnonzero(np.bincount(data.user, minlength=len(data.users)) >= rows)
    if len(found) < case.users:
        raise SystemExit(f"{case.name}: only {len(found)} users have {rows} ratings, {case.users} are needed")
    return found[: case.users]


def _real(case: InnerLoopCase, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Ratings of MovieLens-100K, a fixed number of each user."""
    data = movielens()
    ids, labels = [], []
    for user in users_of(case):
        chosen = rng.permutation(np.flatnonzero(data.user == user))[: case.support + case.query]
        ids.append(data.item[chosen])
        labels.append(data.rating[chosen] - 1)
    return np.stack(ids).astype(np.int32), np.stack(labels).astype(np.int32), len(data.items)
