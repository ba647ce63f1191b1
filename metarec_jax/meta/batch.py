"""Many users: shared computations are done once, and each user's own in micro-batches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array
from optax.microbatching import AccumulationType, microbatch

from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import path_names
from metarec_jax.core.types import BatchRows, Episodes, Params, Prepared, Tables
from metarec_jax.learner.gathered_rows import multiply
from metarec_jax.meta.gram import Plan
from metarec_jax.meta.model import Model, Products
from metarec_jax.meta.user import plan_user, told

Result = TypeVar("Result")


def planned(model: Model, theta: Params, tables: Prepared | BatchRows, episodes: Episodes) -> tuple[Plan, Products]:
    """Choose the form of adapted parameters for a batch, and compute the products with shared kernels.

    Each product is one large matrix product: over the distinct rows of a table where a device's part of the batch has
    at least as many rows as the table, otherwise over the rows of the batch.

    Args:
        model: the functions.
        theta: parameters of the learner.
        tables: prepared tables, or prepared rows of the batch.
        episodes: a batch; without a query (None), there are products of support and user only.

    Returns:
        The plan, and products as arrays with a leading axis of users.
    """
    items = {"support": episodes.support.item}
    if episodes.query is not None:
        items["query"] = episodes.query.item
    kernels = dict(zip(path_names(theta), jax.tree.leaves(theta)))
    products: dict[str, dict[str, Array]] = {}
    plan = plan_batch(model, theta, tables, episodes)
    for path, met in plan.met:
        if isinstance(tables, BatchRows):
            for name in met & {*items, "user"}:
                products.setdefault(name, {})[path] = multiply(getattr(tables, name), kernels[path])
            continue
        for table, ids in ((tables.items, items), (tables.users, {"user": episodes.user[:, None]})):
            wanted = {name: rows for name, rows in ids.items() if name in met}
            if not wanted:
                continue
            joint = jnp.concatenate(list(wanted.values()), axis=1)
            whole = joint.size >= table.shape[0] * _devices()
            kernel = kernels[path]
            product = multiply(table, kernel)[joint] if whole else multiply(table[joint], kernel)
            ends = [sum(r.shape[1] for r in list(wanted.values())[: i + 1]) for i in range(len(wanted) - 1)]
            for name, part in zip(wanted, jnp.split(product, ends, axis=1)):
                products.setdefault(name, {})[path] = part[:, 0] if name == "user" else part
    return plan, products


def gathered(tables: Prepared | Tables, episodes: Episodes) -> BatchRows:
    """Gather the rows of a batch, for `Task.rows`.

    Args:
        tables: prepared tables, or tables of a host.
        episodes: a batch.

    Returns:
        The rows.
    """

    def rows(table: Any, ids: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[ids], table)

    support, query = (rows(tables.items, part.item) for part in (episodes.support, episodes.query))
    return BatchRows(support, query, rows(tables.users, episodes.user))


def prepare_rows(model: Model, theta: Params, rows: Prepared | BatchRows) -> Prepared | BatchRows:
    """Prepare the rows of a batch as `Model.prepare` does those of a table.

    Args:
        model: the functions.
        theta: parameters of the learner.
        rows: embeddings of a batch; prepared tables in their place are returned as they are.

    Returns:
        The prepared rows, or the tables.
    """
    if not isinstance(rows, BatchRows):
        return rows

    def of_items(part: Array) -> Array:
        found = model.prepare(theta, Tables(part.reshape(-1, part.shape[-1]), rows.user)).items
        return found.reshape(*part.shape[:-1], -1)

    users = model.prepare(theta, Tables(rows.support[:, 0], rows.user)).users
    return BatchRows(of_items(rows.support), of_items(rows.query), users)


def _devices() -> int:
    """Number of devices over which the compiler splits the users of a batch; each would multiply a whole table.

    In a program for one of several devices (`jax.shard_map`), the batch belongs to this device alone, so this is 1.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[name] for name in mesh.axis_names if name not in mesh.manual_axes)


def plan_batch(model: Model, theta: Params, tables: Prepared | BatchRows, episodes: Episodes) -> Plan:
    """Choose the form of adapted parameters for a batch by abstract evaluation.

    Args:
        model, theta, tables, episodes: as for `planned`.

    Returns:
        The plan.
    """
    found: list[Plan] = []

    first = jax.tree.map(lambda leaf: leaf[0], episodes)
    if isinstance(tables, BatchRows):
        of_first = jax.tree.map(lambda leaf: leaf[0], tables)

        def run(theta: Params, rows: BatchRows, episode: Episodes) -> None:
            found.append(plan_user(model, theta, *told(None, rows, episode)))

        jax.eval_shape(run, theta, of_first, first)
    else:

        def run_with(theta: Params, tables: Prepared, episode: Episodes) -> None:
            found.append(plan_user(model, theta, *told(tables, None, episode)))

        jax.eval_shape(run_with, theta, tables, first)
    return found[0]


def sum_over_users(
    function: Callable[[Any, Any], tuple[Array, Result]], shared: Any, tasks: Any, *, at_once: int
) -> tuple[Array, Result]:
    """Sum a scalar over users in micro-batches, with memory for `at_once` users, also for its derivative.

    The gradient of each micro-batch is computed immediately after its value and accumulated, so that no residuals are
    stored and nothing is computed twice.

    Args:
        function: (shared, task of one user) -> (scalar, auxiliary output without gradient).
        shared: a tree that all users share.
        tasks: a tree with a leading axis of users.
        at_once: users of a micro-batch; it must divide their number. 0 takes all users at once, without micro-batches.

    Returns:
        The sum, and the auxiliary output of each user.
    """
    users = jax.tree.leaves(tasks)[0].shape[0]
    if at_once in (0, users):
        return sum_at_once(function, shared, tasks)
    return _sum_by_parts(function, at_once, shared, tasks)


def sum_at_once(function: Callable[[Any, Any], tuple[Array, Result]], shared: Any, tasks: Any) -> tuple[Array, Result]:
    """`sum_over_users` of all users at once.

    Args:
        function, shared, tasks: as for `sum_over_users`.

    Returns:
        As `sum_over_users`.
    """
    values, rest = over_users(lambda task: function(shared, task), tasks)
    return jnp.sum(values), jax.tree.map(jax.lax.stop_gradient, rest)


_SUM, _CONCAT = AccumulationType.SUM, AccumulationType.CONCAT


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_by_parts(function: Any, at_once: int, shared: Any, tasks: Any) -> Any:
    part = functools.partial(sum_at_once, function)
    return microbatch(part, argnums=1, microbatch_size=at_once, accumulator=(_SUM, _CONCAT))(shared, tasks)


def _forward(function: Any, at_once: int, shared: Any, tasks: Any) -> tuple[Any, Any]:
    """The sum and its gradient, which is scaled by the cotangent later (the sum is a scalar)."""
    arguments = jax.tree.map(lambda leaf: leaf.value, (shared, tasks))
    wanted = jax.tree.map(lambda leaf: leaf.perturbed, (shared, tasks))

    def part(shared: Any, tasks: Any) -> Any:
        def of_moving(*moving: Any) -> Any:
            return sum_at_once(function, *merge(wanted, moving, (shared, tasks)))

        moving = tuple(merge(wanted, (shared, tasks), None))
        return jax.value_and_grad(of_moving, argnums=(0, 1), has_aux=True)(*moving)

    accumulator = ((_SUM, _CONCAT), (_SUM, _CONCAT))
    return microbatch(part, argnums=1, microbatch_size=at_once, accumulator=accumulator)(*arguments)


def _backward(function: Any, at_once: int, gradient: Any, cotangents: Any) -> Any:
    return scaled_gradient(gradient, cotangents)


def scaled_gradient(gradient: Any, cotangents: Any) -> Any:
    """The gradient of a sum, which was computed with it, times the cotangent of the sum.

    Args:
        gradient: gradient by all arguments.
        cotangents: of the sum, and of the auxiliary output.

    Returns:
        A tree like `gradient`.
    """
    cotangent = cotangents[0]
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return jax.tree.map(jnp.zeros_like, gradient)
    return jax.tree.map(lambda leaf: leaf * cotangent, gradient)


_sum_by_parts.defvjp(_forward, _backward, symbolic_zeros=True)


def merge(which: Any, yes: Any, no: Any) -> Any:
    """Merge two trees.

    Args:
        which: a tree of bool.
        yes, no: leaves where `which` is true, and where it is false; None represents a tree of None.

    Returns:
        A tree like `which`.
    """
    leaves, structure = jax.tree.flatten(which)
    yes = structure.flatten_up_to(yes)
    no = [None] * len(leaves) if no is None else structure.flatten_up_to(no)
    return structure.unflatten([y if w else n for w, y, n in zip(leaves, yes, no)])
