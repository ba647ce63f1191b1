"""`jax-meta` 1.0.3: the loss of its `MAML`, which maps `adapt` over tasks, and the gradient of that loss.

Its `MAML` has one fixed rate for all arrays and steps. (Its `MetaSGD` learns a rate for every number, but calls
`jax.tree_util.tree_multimap`, which JAX no longer has, and the carry of its scan changes structure.) It therefore takes
tasks with equal rates, and computes the gradient with respect to theta alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax_meta.metalearners import MAML  # pyrefly: ignore[missing-import]

from benchmarks.rivals import MetaGradient, Task, pieces

LEARNED_RATES = False
USERS_AT_ONCE = 16
"""The fastest of 4, 8, 16, 32, 64 and all users, on two cores."""


class Network(NamedTuple):
    """The interface of the package's networks (as in Haiku): `apply` takes and returns a state, here empty."""

    offset: jax.Array

    def apply(self, theta: Any, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        hidden, output = theta["hidden"], theta["output"]
        features = jax.nn.relu(x @ hidden["kernel"] + hidden["bias"]) / np.sqrt(len(hidden["bias"]))
        return features @ output["kernel"] + output["bias"] + self.offset, state


class Data(NamedTuple):
    """A data set of the package: features (or the ids of their rows) and labels of some users."""

    inputs: jax.Array | np.ndarray
    targets: jax.Array | np.ndarray


def prepare(task: Task) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`.

    Raises:
        ValueError: the rates are not equal.
    """
    log_rates = np.unique(np.concatenate(jax.tree.leaves(task.log_rate)))
    if len(log_rates) > 1:
        raise ValueError(f"jax-meta has one rate, the task has {len(log_rates)}: give it with_one_rate(task)")
    maml = MAML(Network(jnp.asarray(task.offset)), num_steps=task.steps, alpha=float(np.exp(log_rates[0])))

    @jax.jit
    def piece(theta: Any, table: jax.Array, support: Data, query: Data) -> tuple[jax.Array, Any]:
        support, query = (data._replace(inputs=table[data.inputs]) for data in (support, query))
        (loss, _), gradient = jax.value_and_grad(maml.batch_outer_loss, has_aux=True)(theta, None, support, query, ())
        return jax.tree.map(lambda mean: mean * len(query.targets) / task.users, (loss, gradient))

    def some(ids: np.ndarray, labels: np.ndarray, users: slice) -> Data:
        return Data(jnp.asarray(ids[users]), jnp.asarray(labels[users]))

    theta, table = jax.device_put((task.theta, task.table))
    batches = [
        (some(task.support_ids, task.support_labels, users), some(task.query_ids, task.query_labels, users))
        for users in pieces(task.users, USERS_AT_ONCE)
    ]

    def run() -> MetaGradient:
        total, *more = (piece(theta, table, *batch) for batch in batches)
        for term in more:
            total = jax.tree.map(jnp.add, total, term)
        loss, gradient = jax.tree.map(np.asarray, total)
        return MetaGradient(float(loss), gradient, None)

    run()  # compiles
    return run
