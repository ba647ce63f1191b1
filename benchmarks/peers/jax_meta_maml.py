"""`jax-meta` 1.0.3: the loss that its `MAML` trains by, which maps `adapt` over tasks, and the gradient of that.

Its `MAML` has one rate, which is not learned, for all arrays and steps. (Its `MetaSGD` learns a rate for every number,
but calls `jax.tree_util.tree_multimap`, which JAX no longer has, and its scan gives back another structure than it
takes.) So it takes tasks whose rates are all equal, and computes the gradient with respect to theta alone.
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
"""The quickest of 4, 8, 16, 32, 64 and all users, on two cores."""


class Network(NamedTuple):
    """What the package asks of a network (Haiku's are such): `apply` that takes and returns a state, here none."""

    offset: jax.Array

    def apply(self, theta: Any, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        hidden, output = theta["hidden"], theta["output"]
        features = jax.nn.relu(x @ hidden["kernel"] + hidden["bias"]) / np.sqrt(len(hidden["bias"]))
        return features @ output["kernel"] + output["bias"] + self.offset, state


class Data(NamedTuple):
    """What the package calls a data set: features (or the ids to find them by) and labels of some users."""

    inputs: jax.Array | np.ndarray
    targets: jax.Array | np.ndarray


def prepare(task: Task) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`.

    Raises:
        ValueError: where not all rates are equal.
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
