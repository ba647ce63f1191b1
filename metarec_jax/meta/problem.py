"""Meta-learning of any loss: the functions of the recommender's inner and outer loop for a loss of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import partition, path_names
from metarec_jax.core.types import Params
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.meta import inner
from metarec_jax.meta.adaptation import (
    adapt_task,
    adapted_theta,
    first_not_finite,
    inputs_of_task,
    plan_task,
    with_reptile,
)
from metarec_jax.meta.batch import sum_over_users
from metarec_jax.meta.gram import Form, Plan
from metarec_jax.meta.model import Outcome, Trainable
from metarec_jax.meta.outer import Losses, TrainState, updated
from metarec_jax.meta.updaters import Inputs, Updater

Loss = Callable[[Params, Any], Array]
"""(parameters, rows of one task) -> scalar; a pure function."""


class Problem(NamedTuple):
    """What is meta-learned: a loss, and how its parameters are adapted to a task.

    Attributes:
        loss: (params, support of one task) -> scalar, for a tree of arrays as `params`.
        updater: the rule of the inner loop.
        steps: number of inner steps.
        adapted: patterns of the paths of the parameters that the inner loop changes ("hidden/kernel").
        query_loss: (params, query of one task) -> scalar, for the outer loop; None takes `loss`.
        rows: patterns of the paths of those leaves of support and query, [rows, in] or [in], that the loss multiplies
            with parameters as ``rows @ kernel`` (see `metarec_jax.meta.gram`). Such a leaf is an object with `shape`
            and ``@``, of which ``jnp.asarray`` makes an array.
        mask: support -> weight of each of its rows [rows], for rules that solve in closed form; None weights all alike.
        order: "second", "first" or "reptile" (see `metarec_jax.meta.inner.adapt`).
        form: "auto" stores adapted matrices as low-rank changes where that saves floats, "dense" never, "factored"
            wherever possible.
        unroll: inner steps in one iteration of the compiled loop.
        backward: "stored", "remat" or "mixed" (see `metarec_jax.meta.inner.adapt`).
    """

    loss: Loss
    updater: Updater
    steps: int
    adapted: tuple[str, ...] = (".*",)
    query_loss: Loss | None = None
    rows: tuple[str, ...] = ()
    mask: Callable[[Any], Array] | None = None
    order: inner.Order = "second"
    form: Form = "auto"
    unroll: int = 1
    backward: inner.Backward = "stored"


class Tasks(NamedTuple):
    """A batch of tasks.

    Attributes:
        support: what the inner loop adapts to, a tree with a leading axis of tasks.
        query: what the outer loss is measured on, a tree with a leading axis of tasks.
        weight: [tasks], weight of each task in the outer loss; 0 leaves a task out, and None weights all alike.
    """

    support: Any
    query: Any
    weight: Any = None


class Adaptation(NamedTuple):
    """Result of adapting to one task.

    Attributes:
        params: the parameters after the last step, a tree like those before.
        losses: [steps], the support loss before each step.
    """

    params: Params
    losses: Array


def init_state(
    problem: Problem, params: Params, optimizer: optax.GradientTransformation, key: Array | None = None
) -> TrainState:
    """Make the state before the first outer step.

    Args:
        problem: the problem.
        params: initial parameters, a tree of arrays of floats.
        optimizer: transform of the meta-gradient, of the parameters and of what the rule learns.
        key: kept in the state, for the caller's own draws; None takes key 0.

    Returns:
        The state. ``state.trainable`` holds the parameters (``theta``) and what the rule learns (``phi``).

    Raises:
        MetarecError: a pattern of `adapted` matches no parameter, or a parameter is not an array of floats.
    """
    for path, leaf in zip(path_names(params), jax.tree.leaves(params)):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise MetarecError(
                f"the parameter {shown(path)} has the type {jnp.result_type(leaf)}: keep all but arrays of floats out "
                "of the parameters, as `nnx.split(model, nnx.Param, ...)` and `eqx.partition(model, "
                "eqx.is_inexact_array)` do"
            )
    adapted, _ = partition(params, problem.adapted, option="adapted")
    trainable = Trainable(params, problem.updater.init(adapted))
    key = jax.random.key(0) if key is None else key
    return TrainState(trainable, optimizer.init(trainable), jnp.zeros((), jnp.int32), key)


def adapt(problem: Problem, trainable: Trainable, support: Any) -> Adaptation:
    """Adapt the parameters to one task.

    Args:
        problem: the problem.
        trainable: parameters, and what the rule learns.
        support: the rows of one task, without an axis of tasks; map over tasks with `jax.vmap`.

    Returns:
        The adapted parameters as arrays, and the support losses.
    """
    rows = _fixed(problem, support, "support")
    path = _adapt(problem, trainable, rows)
    theta = adapted_theta(problem, trainable.theta, path.end, _named(rows))
    arrays = jax.tree.map(lambda leaf: leaf.array() if hasattr(leaf, "multiplied_by") else leaf, theta, is_leaf=_kernel)
    return Adaptation(arrays, path.losses)


def predict(problem: Problem, trainable: Trainable, tasks: Tasks, function: Callable[[Params, Any], Any]) -> Any:
    """Adapt to each task, and apply a function with its adapted parameters.

    Args:
        problem: the problem.
        trainable: parameters, and what the rule learns.
        tasks: the tasks.
        function: (adapted parameters, query of one task) -> outputs. Like the loss, it may read matrices that are
            stored as low-rank changes in products only.

    Returns:
        The outputs, with a leading axis of tasks.
    """

    def one(task: Tasks) -> Any:
        support, query = _fixed(problem, task.support, "support"), _fixed(problem, task.query, "query")
        path = _adapt(problem, trainable, support, lambda theta: function(theta, query))
        return function(adapted_theta(problem, trainable.theta, path.end, _named(support)), query)

    return over_users(one, tasks._replace(weight=None))


def meta_loss(problem: Problem, trainable: Trainable, tasks: Tasks, *, at_once: int = 0) -> tuple[Array, Losses]:
    """Compute the mean query loss of a batch of tasks after adaptation.

    Args:
        problem: the problem.
        trainable: parameters, and what the rule learns.
        tasks: the tasks.
        at_once: number of tasks computed in parallel, which bounds memory; it must divide their number. 0 takes all.

    Returns:
        The mean over tasks by their weight, and the losses: their weighted sum, the sum of weights, and for each task
        the first inner step with a loss that was not finite (``steps + 1`` where all were finite).

    Raises:
        MetarecError: `at_once` does not divide the number of tasks.
    """

    def lose(trainable: Trainable, task: Tasks) -> tuple[Array, Outcome]:
        support, query = _fixed(problem, task.support, "support"), _fixed(problem, task.query, "query")
        loss = problem.query_loss or problem.loss
        path = _adapt(problem, trainable, support, lambda theta: loss(theta, query))
        theta = adapted_theta(problem, trainable.theta, path.end, _named(support))
        lost = loss(theta, query)
        lost = jnp.where(task.weight > 0, task.weight * lost, 0.0)
        lost = with_reptile(problem, trainable.theta, path.end, _named(support), lost, task.weight)
        return lost, Outcome(lost, task.weight, first_not_finite(path.losses, lost, task.weight == 0))

    count = jax.tree.leaves(tasks.support)[0].shape[0]
    if at_once and count % at_once:
        raise MetarecError(f"at_once is {at_once}, which does not divide the {count} tasks: use a divisor")
    if tasks.weight is None:
        tasks = tasks._replace(weight=jnp.ones(count, jnp.result_type(*jax.tree.leaves(trainable.theta))))
    total, outcomes = sum_over_users(lose, trainable, tasks, at_once=at_once)
    weight = jnp.sum(outcomes.rows)
    return total / jnp.where(weight > 0, weight, 1.0), Losses(total, weight, outcomes.stopped)


def meta_gradient(
    problem: Problem, trainable: Trainable, tasks: Tasks, *, at_once: int = 0
) -> tuple[Trainable, Losses]:
    """Compute the gradient of `meta_loss` by the parameters and by what the rule learns.

    Args:
        problem, trainable, tasks, at_once: as for `meta_loss`.

    Returns:
        The gradient, a tree like `trainable`, and the losses.
    """
    loss = functools.partial(meta_loss, problem, at_once=at_once)
    return jax.grad(loss, has_aux=True)(trainable, tasks)


def make_step(
    problem: Problem, optimizer: optax.GradientTransformation, *, at_once: int = 0
) -> Callable[[TrainState, Tasks], tuple[TrainState, Losses]]:
    """Make the outer step: the meta-gradient of a batch of tasks and an update by an optax transform.

    Args:
        problem: the problem.
        optimizer: the transform that `init_state` was given.
        at_once: as for `meta_loss`.

    Returns:
        (state, tasks) -> (new state, losses), to be compiled with `jax.jit`. Where tasks are placed on the devices of a
        mesh by their leading axis, each device computes its tasks.
    """

    def step(state: TrainState, tasks: Tasks) -> tuple[TrainState, Losses]:
        gradient, losses = meta_gradient(problem, state.trainable, tasks, at_once=at_once)
        return updated(state, gradient, optimizer), losses

    return step


def pad_tasks(tasks: Sequence[Any], length: int = 0) -> tuple[Any, np.ndarray]:
    """Stack tasks with unequal numbers of rows, filled up with zeros.

    Args:
        tasks: trees of arrays of equal structure, whose leaves have a leading axis of the rows of the task.
        length: number of rows of each task in the result; 0 takes the largest.

    Returns:
        A tree of arrays [tasks, rows, ...], and float32 [tasks, rows], 1 for rows of a task and 0 for the others.

    Raises:
        MetarecError: there is no task, the leaves of one differ in length, or one has more than `length` rows.

    >>> pad_tasks([{"x": [1.0, 2.0]}, {"x": [3.0]}])[1].tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    trees = [jax.tree.map(np.asarray, task, is_leaf=lambda leaf: isinstance(leaf, list)) for task in tasks]
    if not trees:
        raise MetarecError("pad_tasks was given no task: pass a list of at least one")
    counts = []
    for number, tree in enumerate(trees):
        sizes = {len(leaf) if leaf.ndim else 0 for leaf in jax.tree.leaves(tree)}
        if len(sizes) != 1:
            raise MetarecError(
                f"the arrays of task {number} have {sorted(sizes)} rows: every array of a task needs the same number"
            )
        counts.append(sizes.pop())
    length = length or max(counts)
    if max(counts) > length:
        number = counts.index(max(counts))
        raise MetarecError(f"task {number} has {counts[number]} rows, more than the length {length}: shorten it")

    def stacked(*leaves: np.ndarray) -> np.ndarray:
        return np.stack([np.pad(leaf, [(0, length - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)) for leaf in leaves])

    mask = (np.arange(length) < np.array(counts)[:, None]).astype(np.float32)
    return jax.tree.map(stacked, *trees), mask


def _kernel(leaf: Any) -> bool:
    return hasattr(leaf, "multiplied_by")


def _fixed(problem: Problem, rows: Any, name: str) -> Any:
    """The rows of a task as JAX arrays, with an object in place of each leaf that `problem.rows` matches."""
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, rows)
    if not problem.rows:
        return rows
    chosen, _ = partition(rows, problem.rows, option="rows", of=f"array of the {name}")
    matched = {path for path, leaf in zip(path_names(chosen), jax.tree.leaves(chosen))}
    leaves, structure = jax.tree.flatten(rows)
    found = []
    for path, leaf in zip(path_names(rows), leaves):
        if path in matched and jnp.ndim(leaf) not in (1, 2):
            raise MetarecError(
                f"rows matches {shown(path)}, an array of shape {jnp.shape(leaf)} in a task's {name}: Gram space needs "
                "[rows, in] or [in]; leave it out of rows"
            )
        found.append(Fixed(leaf, None, f"{name}/{path}") if path in matched else leaf)
    return structure.unflatten(found)


def _named(rows: Any) -> dict[str, Fixed]:
    leaves = jax.tree.leaves(rows, is_leaf=lambda leaf: isinstance(leaf, Fixed))
    return {leaf.name: leaf for leaf in leaves if isinstance(leaf, Fixed)}


def _plan(problem: Problem, theta: Params, support: Any, query: Callable[[Params], Any] | None) -> Plan:
    adapted, _ = partition(theta, problem.adapted)
    if not problem.rows and problem.form != "factored":
        return Plan(("dense",) * len(jax.tree.leaves(adapted)))

    def apply(theta: Params, name: str) -> Any:
        return problem.loss(theta, support) if query is None or name == "support" else query(theta)

    return plan_task(problem, theta, apply, query=query is not None)


def _adapt(
    problem: Problem, trainable: Trainable, support: Any, query: Callable[[Params], Any] | None = None
) -> inner.Path:
    """The inner loop of one task; `query` is what is computed with its result."""

    def loss(theta: Params) -> Array:
        return problem.loss(theta, support)

    def inputs() -> Inputs:
        weight = None if problem.mask is None else problem.mask(support)
        return inputs_of_task(problem, trainable.theta, loss, weight)

    return adapt_task(
        problem,
        trainable.theta,
        trainable.phi,
        loss,
        _plan(problem, trainable.theta, support, query),
        _named(support),
        inputs,
    )
