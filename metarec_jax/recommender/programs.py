"""What a recommender compiles: adapting users, scoring items for them, and what explanations differentiate.

Each is a pure function of a model, its parameters, what is on the shelf (see `metarec_jax.recommender.item_table`),
and some users.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Episodes, Params, Rows, Tables
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.learner.inputs import Context, Features
from metarec_jax.meta.gram import gram_of
from metarec_jax.meta.user import Model, Task, Trainable, adapt_user, apply_user, context_of, summarised, variance_user
from metarec_jax.recommender import attribution as explaining
from metarec_jax.recommender.item_table import Shelves, tables_of
from metarec_jax.train.catalogue import Scale

_ADAPTED_AT_ONCE = 32
"""Users whose inner loops run at the same time."""
ITEMS_AT_ONCE = 4096
"""Items of a large catalogue that are scored at the same time."""


class UserTask(NamedTuple):
    """What a compiled program needs of a user: the embedding of the text, the support, and what the user keeps."""

    embedding: Any
    support: Rows
    kept: Params = ()


class Asked(NamedTuple):
    """Items to be scored, of the catalogue or not: prepared embeddings, and statistics."""

    embedding: Any
    statistic: Any


def prepare(model: Model, theta: Params, items: Array) -> Array:
    """Embeddings of items as the learner reads them."""
    width = theta["input"]["user"]["shift"].shape[0]
    return model.prepare(theta, Tables(items, jnp.zeros((0, width), jnp.float32))).items


def adapt(model: Model, trainable: Trainable, shelves: Shelves, task: UserTask) -> Params:
    """What each user keeps after the inner loop."""
    theta = trainable.theta
    tables = tables_of(model, theta, shelves, task.embedding)
    users = jnp.arange(len(task.embedding))
    products = {"support": {path: product[task.support.item] for path, product in shelves.products.items()}}

    def one(task: Task) -> Params:
        episode = task.episode
        context = context_of(tables, episode.user, episode.support, None, theta, task.products)
        return adapt_user(model, trainable, context).end

    tasks = Task(Episodes(users, task.support, query=None, weight=None), products)
    return over_users(one, tasks, at_once=min(len(task.embedding), _ADAPTED_AT_ONCE))


def _over_shelf(
    model: Model,
    trainable: Trainable,
    shelves: Shelves,
    task: UserTask,
    at_once: int,
    read: Callable[[Context, Params, Features], Array],
) -> Array:
    """What `read` gives each user for every item on the shelf: (context, what the user keeps, rows) -> [..., rows].

    A few users are scored at a time, and of a large catalogue some items, so that what lies between the layers stays
    in a processor's caches: items are read from memory once.
    """
    theta = trainable.theta
    tables = tables_of(model, theta, shelves, task.embedding)
    items = shelves.items.shape[0]
    count = min(items, ITEMS_AT_ONCE)
    kernels = dict(zip(path_names(theta), jax.tree.leaves(theta)))
    dtype = jnp.result_type(*kernels.values())

    def one(task: tuple[Array, UserTask]) -> Array:
        user, own = task
        context = summarised(model, theta, context_of(tables, user, own.support))
        # How alike each item is to each of the support, which factored kernels ask for.
        if shelves.gram is None:
            support = Fixed(shelves.items, own.support.item, "support")
            gram = gram_of(Fixed(shelves.items, None, "recommended"), support, dtype)
        else:
            gram = shelves.gram[own.support.item].T

        def found(start: Array | int) -> Array:
            some = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=count)
            products = [(kernels[path], some(product)) for path, product in shelves.products.items()]
            rows = Fixed(some(shelves.items), None, "recommended", products, {"support": some(gram)})
            return read(context, own.kept, Features(rows, some(shelves.statistic)))

        def put(turn: Array, whole: Array) -> Array:
            start = jnp.minimum(turn * count, items - count)  # the last turn meets some items again
            return jax.lax.dynamic_update_slice_in_dim(whole, found(start), start, axis=-1)

        if count == items:
            return found(0)
        empty = jnp.zeros((*jax.eval_shape(found, 0).shape[:-1], items), dtype)
        return jax.lax.fori_loop(0, -(-items // count), put, empty)

    return over_users(one, (jnp.arange(len(task.embedding)), task), at_once=at_once)


def score_all(
    model: Model, trainable: Trainable, shelves: Shelves, task: UserTask, at_once: int
) -> Float[Array, "users items"]:
    """Every user's score of every item on the shelf."""

    def read(context: Context, kept: Params, rows: Features) -> Array:
        return model.head.mean(apply_user(model, trainable, context, kept, rows))

    return _over_shelf(model, trainable, shelves, task, at_once, read)


def judge_all(
    model: Model, scale: Scale, trainable: Trainable, shelves: Shelves, task: UserTask, at_once: int
) -> Float[Array, "users two items"]:
    """The same, and the standard deviation of the rating; NaN where the model sees none."""
    levels = np.asarray(scale.levels, np.float32)

    def read(context: Context, kept: Params, rows: Features) -> Array:
        outputs = apply_user(model, trainable, context, kept, rows)
        mean = model.head.mean(outputs)
        if model.updater.variance is not None and model.head.unit is not None:
            deviation = model.head.unit * jnp.sqrt(variance_user(model, trainable, context, rows))
        elif model.head.above is None or scale.kind == "click":
            deviation = jnp.full_like(mean, jnp.nan)
        else:
            # E[R - l]^2 around the lowest level l, as a sum over the levels that R is above (Abel summation).
            over = model.head.above(outputs) @ jnp.diff(jnp.square(levels - levels[0]))
            deviation = jnp.sqrt(jnp.maximum(over - jnp.square(mean - levels[0]), 0.0))
        return jnp.stack([mean, deviation])

    return _over_shelf(model, trainable, shelves, task, at_once, read)


def score(
    model: Model, trainable: Trainable, shelves: Shelves, task: UserTask, asked: Asked
) -> Float[Array, "users items"]:
    """Every user's score of every item asked for; what the items are multiplied with is multiplied once for all."""
    tables = tables_of(model, trainable.theta, shelves, task.embedding)
    features = Features(Fixed(asked.embedding, None, "recommended"), asked.statistic)

    def one(task: tuple[Array, UserTask]) -> Array:
        user, own = task
        context = context_of(tables, user, own.support)
        return model.head.mean(apply_user(model, trainable, context, own.kept, features))

    return over_users(one, (jnp.arange(len(task.embedding)), task))


def deviation(
    model: Model, trainable: Trainable, shelves: Shelves, task: UserTask, asked: Asked
) -> Float[Array, "users items"]:
    """The standard deviation of every user's rating of every item asked for."""
    tables = tables_of(model, trainable.theta, shelves, task.embedding)
    features = Features(Fixed(asked.embedding, None, "recommended"), asked.statistic)
    unit = model.head.unit or 1.0

    def one(task: tuple[Array, UserTask]) -> Array:
        user, own = task
        context = context_of(tables, user, own.support)
        return unit * jnp.sqrt(variance_user(model, trainable, context, features))

    return over_users(one, (jnp.arange(len(task.embedding)), task))


class OfUsers(NamedTuple):
    """Users as `metarec_jax.recommender.attribution` wants them."""

    user: Array
    support: Rows
    kept: Params


def influences(
    model: Model, trainable: Trainable, shelves: Shelves, task: UserTask, rows: Array
) -> tuple[Array, Array]:
    """`metarec_jax.recommender.attribution.score_and_influences` of rows of the catalogue."""
    tables = tables_of(model, trainable.theta, shelves, task.embedding)
    users = OfUsers(jnp.arange(len(task.embedding)), task.support, task.kept)
    return explaining.score_and_influences(model, trainable, tables, users, rows, shelves.statistic)


def slopes(
    model: Model, trainable: Trainable, shelves: Shelves, task: UserTask, asked: Asked
) -> Float[Array, "users items hidden"]:
    """`metarec_jax.recommender.attribution.score_slopes` of embeddings that are not prepared."""
    tables = tables_of(model, trainable.theta, shelves, task.embedding)
    users = OfUsers(jnp.arange(len(task.embedding)), task.support, task.kept)
    return explaining.score_slopes(model, trainable, tables, users, asked.embedding, asked.statistic)
