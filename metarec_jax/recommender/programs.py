"""Compiled functions of a recommender: adaptation of users, scores of items, and derivatives of scores.

Each is a pure function of a model, its parameters, the items (see `metarec_jax.recommender.item_table`) and some users.
Only this module of the recommender calls `adapt_user` and `apply_user` and depends on the form of adapted parameters.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metarec_jax.core.exported_programs import Traced
from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import path_names
from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Episodes, Params, Prepared, Rows, Tables
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.learner.inputs import Context, Features
from metarec_jax.meta.batch import planned
from metarec_jax.meta.gram import Adapted, Plan, gram_of
from metarec_jax.meta.model import Model, Task, Trainable
from metarec_jax.meta.user import adapt_user, apply_user, context_of, summarised, variance_user
from metarec_jax.recommender.item_table import ItemTensors, tables_of

jax.export.register_pytree_node_serialization(
    Adapted,
    serialized_name="metarec_jax.meta.gram.Adapted",
    serialize_auxdata=lambda fields: json.dumps(fields[0].forms).encode(),
    deserialize_auxdata=lambda data: (Plan(tuple(json.loads(data))),),
)
"""Registers `Adapted` for the export of `adapt` (see `metarec_jax.core.exported_programs`)."""


class UserTask(NamedTuple):
    """Users of a call; every array has a leading axis of users.

    Attributes:
        embedding: float32 [users, hidden], embeddings of the users' texts from the encoder.
        support: rows on which the inner loop adapts.
        adapted: result of `adapt` for these users; empty for functions that do not use it.
    """

    embedding: Any
    support: Rows
    adapted: Params = ()


class ItemRows(NamedTuple):
    """Items to score, in the catalogue or not: embeddings [items, hidden] and statistics [items, columns]."""

    embedding: Any
    statistic: Any


def traced(model: Model, scale: Scale, told: str, users_at_once: int, items_at_once: int) -> dict[str, Any]:
    """The programs of a model by name, for calls without the arguments that are given here.

    Args:
        model: the model.
        scale: the rating scale.
        told: identifier of the model (see `metarec_jax.core.exported_programs.Traced`).
        users_at_once: greatest number of users that are adapted in parallel.
        items_at_once: greatest number of items that are scored in parallel.

    Returns:
        The programs.
    """
    standard = scale.standardised()
    bound: dict[str, tuple[Callable[..., Any], tuple[Any, ...], list[str]]] = {
        "prepare": (prepare, (), []),
        "adapt": (adapt, (users_at_once,), []),
        "score": (score, (), []),
        "score_with_deviation": (score_with_deviation, (standard,), []),
        "score_all": (score_all, (items_at_once,), ["at_once"]),
        "score_all_with_deviation": (score_all_with_deviation, (standard, items_at_once), ["at_once"]),
        "influences": (influences, (), []),
        "embedding_gradients": (embedding_gradients, (), []),
    }
    return {
        name: Traced(functools.partial(function, model, *arguments), told, static)
        for name, (function, arguments, static) in bound.items()
    }


def prepare(model: Model, theta: Params, items: Array) -> Array:
    """Compute prepared embeddings of items.

    Args:
        model: the model.
        theta: parameters of the model.
        items: float32 [items, hidden], from the encoder.

    Returns:
        [items, hidden].
    """
    width = theta["input"]["user"]["shift"].shape[0]
    return model.prepare(theta, Tables(items, jnp.zeros((0, width), jnp.float32))).items


def adapt(model: Model, at_once: int, trainable: Trainable, items: ItemTensors, task: UserTask) -> Params:
    """Compute the adapted parameters of each user.

    Args:
        model: the functions.
        at_once: greatest number of users that are adapted in parallel.
        trainable: theta and phi.
        items: items of the catalogue.
        task: the users.

    Returns:
        Adapted parameters, with a leading axis of users.
    """
    theta = trainable.theta
    tables = tables_of(model, theta, items, task.embedding)
    users = jnp.arange(len(task.embedding))
    products = {"support": {path: product[task.support.item] for path, product in items.products.items()}}

    def one(task: Task) -> Params:
        episode = task.episode
        context = context_of(tables, episode.user, episode.support, None, theta, task.products)
        return adapt_user(model, trainable, context).end

    tasks = Task(Episodes(users, task.support, query=None, weight=None), products)
    return over_users(one, tasks, at_once=min(len(task.embedding), at_once))


def _over_catalogue(
    model: Model,
    items_at_once: int,
    trainable: Trainable,
    items: ItemTensors,
    task: UserTask,
    at_once: int,
    score: Callable[[Context, Params, Features], Array],
) -> Array:
    """Apply `score`, (context, adapted parameters, rows) -> [..., rows], to every user and every item.

    It scores `at_once` users and a block of `items_at_once` items at a time, so that activations fit the CPU caches.
    """
    theta = trainable.theta
    tables = tables_of(model, theta, items, task.embedding)
    total = items.items.shape[0]
    block = min(total, items_at_once)
    kernels = dict(zip(path_names(theta), jax.tree.leaves(theta)))
    dtype = jnp.result_type(*kernels.values())

    def one(task: tuple[Array, UserTask]) -> Array:
        user, own = task
        context = summarised(model, theta, context_of(tables, user, own.support))
        # Inner products of each item with each row of the support, which factored kernels use.
        if items.gram is None:
            support = Fixed(items.items, own.support.item, "support")
            gram = gram_of(Fixed(items.items, None, "recommended"), support, dtype)
        else:
            gram = items.gram[own.support.item].T

        def scores(start: Array | int) -> Array:
            part = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=block)
            products = [(kernels[path], part(product)) for path, product in items.products.items()]
            rows = Fixed(part(items.items), None, "recommended", products, {"support": part(gram)})
            return score(context, own.adapted, Features(rows, part(items.statistic)))

        def put(turn: Array, found: Array) -> Array:
            start = jnp.minimum(turn * block, total - block)  # the last block overlaps the previous one
            return jax.lax.dynamic_update_slice_in_dim(found, scores(start), start, axis=-1)

        if block == total:
            return scores(0)
        empty = jnp.zeros((*jax.eval_shape(scores, 0).shape[:-1], total), dtype)
        return jax.lax.fori_loop(0, -(-total // block), put, empty)

    return over_users(one, (jnp.arange(len(task.embedding)), task), at_once=at_once)


def score_all(
    model: Model, items_at_once: int, trainable: Trainable, items: ItemTensors, task: UserTask, at_once: int
) -> Float[Array, "users items"]:
    """Score every item of the catalogue for every user.

    Args:
        model: the functions.
        items_at_once: greatest number of items that are scored in parallel.
        trainable: theta and phi.
        items: items of the catalogue.
        task: the users, with adapted parameters.
        at_once: number of users that are scored in parallel; it must divide their number.

    Returns:
        Scores.
    """

    def score(context: Context, adapted: Params, rows: Features) -> Array:
        return model.head.mean(apply_user(model, trainable, context, adapted, rows))

    return _over_catalogue(model, items_at_once, trainable, items, task, at_once, score)


def score_all_with_deviation(
    model: Model,
    scale: Scale,
    items_at_once: int,
    trainable: Trainable,
    items: ItemTensors,
    task: UserTask,
    at_once: int,
) -> Float[Array, "users two items"]:
    """Compute the score and the standard deviation of every user's rating of every item.

    Args:
        model, items_at_once, trainable, items, task, at_once: as for `score_all`.
        scale: the standardised rating scale.

    Returns:
        Scores and standard deviations, stacked on the second axis, in units of the standardised scale. Standard
        deviations are NaN if the model does not define them.
    """
    both = functools.partial(_mean_and_deviation, model, scale, trainable)
    return _over_catalogue(model, items_at_once, trainable, items, task, at_once, both)


def _mean_and_deviation(
    model: Model, scale: Scale, trainable: Trainable, context: Context, adapted: Params, rows: Features
) -> Float[Array, "two items"]:
    """Scores and standard deviations of one user's rows, as `score_all_with_deviation` gives them."""
    levels = np.asarray(scale.levels, np.float32)
    outputs = apply_user(model, trainable, context, adapted, rows)
    mean = model.head.mean(outputs)
    if model.updater.variance is not None and model.head.unit is not None:
        deviation = model.head.unit * jnp.sqrt(variance_user(model, trainable, context, rows))
    elif model.head.above is None or scale.kind == "click":
        deviation = jnp.full_like(mean, jnp.nan)
    else:
        # E[(R - l)^2] for the lowest level l, as a sum over the levels that R exceeds (Abel summation).
        square = model.head.above(outputs) @ jnp.diff(jnp.square(levels - levels[0]))
        deviation = jnp.sqrt(jnp.maximum(square - jnp.square(mean - levels[0]), 0.0))
    return jnp.stack([mean, deviation])


def score(
    model: Model, trainable: Trainable, items: ItemTensors, task: UserTask, rows: ItemRows
) -> Float[Array, "users items"]:
    """Score some items for every user; products with shared kernels are computed once for all users.

    Args:
        model: the functions.
        trainable: theta and phi.
        items: items of the catalogue.
        task: the users, with adapted parameters.
        rows: the items to score, with prepared embeddings.

    Returns:
        Scores.
    """

    def one(context: Context, adapted: Params) -> Array:
        features = Features(Fixed(rows.embedding, None, "recommended"), rows.statistic)
        return model.head.mean(apply_user(model, trainable, context, adapted, features))

    return _each_user(model, trainable, items, task, one)


def score_with_deviation(
    model: Model, scale: Scale, trainable: Trainable, items: ItemTensors, task: UserTask, rows: ItemRows
) -> Float[Array, "users two items"]:
    """Compute the score and the standard deviation of every user's rating of some items.

    Args:
        model, trainable, items, task, rows: as for `score`.
        scale: as for `score_all_with_deviation`.

    Returns:
        As `score_all_with_deviation`.
    """

    def one(context: Context, adapted: Params) -> Array:
        features = Features(Fixed(rows.embedding, None, "recommended"), rows.statistic)
        return _mean_and_deviation(model, scale, trainable, context, adapted, features)

    return _each_user(model, trainable, items, task, one)


def embedding_gradients(
    model: Model, trainable: Trainable, items: ItemTensors, task: UserTask, rows: ItemRows
) -> Float[Array, "users items hidden"]:
    """Compute the gradient of every user's score of some items by the item's embedding.

    Args:
        model, trainable, items, task: as for `score`.
        rows: the items, with embeddings from the encoder.

    Returns:
        Gradients.
    """
    no_user = jnp.zeros((0, task.embedding.shape[-1]), rows.embedding.dtype)

    def one(context: Context, adapted: Params) -> Array:
        def total(embeddings: Array) -> Array:
            prepared = model.prepare(trainable.theta, Tables(embeddings, no_user)).items
            features = Features(Fixed(prepared, None, "recommended"), rows.statistic)
            return jnp.sum(model.head.mean(apply_user(model, trainable, context, adapted, features)))

        return jax.grad(total)(rows.embedding)

    return _each_user(model, trainable, items, task, one)


def _each_user(
    model: Model, trainable: Trainable, items: ItemTensors, task: UserTask, function: Callable[[Context, Params], Array]
) -> Array:
    """Apply (context, adapted parameters) -> array to every user."""
    tables = tables_of(model, trainable.theta, items, task.embedding)

    def one(task: tuple[Array, UserTask]) -> Array:
        user, own = task
        return function(context_of(tables, user, own.support), own.adapted)

    return over_users(one, (jnp.arange(len(task.embedding)), task))


def influences(
    model: Model, trainable: Trainable, items: ItemTensors, task: UserTask, rows: Int[Array, " items"]
) -> tuple[Float[Array, "users items"], Float[Array, "users items support"]]:
    """Score some items for every user, and differentiate each score by the weight of each support row.

    The derivative passes through every inner step and all other functions of the support (see
    `metarec_jax.recommender.attribution`).

    Args:
        model: the functions.
        trainable: theta and phi.
        items: items of the catalogue.
        task: the users; their adapted parameters are computed anew.
        rows: the items, as rows of the catalogue.

    Returns:
        Scores, and derivatives; these are 0 for padded rows.
    """
    # Training may leave out derivatives (first order) or recompute steps; here all of them are differentiated once.
    model = model._replace(order="second", backward="stored")
    tables = tables_of(model, trainable.theta, items, task.embedding)
    features = Features(Fixed(tables.items[rows], None, "recommended"), items.statistic[rows])
    episodes = Episodes(jnp.arange(len(task.embedding)), task.support, query=None, weight=None)
    plan, products = planned(model, trainable.theta, tables, episodes)

    def one(task: Task) -> tuple[Array, Array]:
        episode = task.episode

        def scores(weight: Array) -> Array:
            support = episode.support._replace(mask=weight)
            context = context_of(tables, episode.user, support, None, trainable.theta, task.products)
            adapted = adapt_user(model, trainable, context, plan).end
            return model.head.mean(apply_user(model, trainable, context, adapted, features))

        score, back = jax.vjp(scores, episode.support.mask)
        by_weight = jax.vmap(lambda one_item: back(one_item)[0])(jnp.eye(len(score), dtype=score.dtype))
        return score, jnp.where(episode.support.mask > 0, by_weight, 0.0)

    return over_users(one, Task(episodes, products))


def adapt_and_score(
    model: Model,
    trainable: Trainable,
    tables: Prepared,
    statistic: Float[Array, "items columns"],
    item: Int[Array, " support"],
    rating: Float[Array, " support"],
    mask: Float[Array, " support"],
) -> Float[Array, " items"]:
    """Adapt to one user and score every item, as one program for export.

    Args:
        model: the functions.
        trainable: theta and phi.
        tables: the items, and one user.
        statistic: statistics of the items.
        item, rating, mask: the user's support, padded.

    Returns:
        Scores.
    """
    support = Rows(item, rating, mask, jnp.where(mask[:, None] > 0, statistic[item], 0.0))
    context = context_of(tables, jnp.int32(0), support)
    adapted = adapt_user(model, trainable, context).end
    rows = Features(Fixed(tables.items, None, "recommended"), statistic)
    return model.head.mean(apply_user(model, trainable, context, adapted, rows))
