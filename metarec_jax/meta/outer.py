"""The outer loop: meta loss of a batch of episodes, and the step that goes down it.

Everything is written for one user; `jax.vmap` over users stands in `over_users`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metarec_jax.learner import mlp
from metarec_jax.learner.fixed import Fixed
from metarec_jax.learner.heads import Head
from metarec_jax.meta import inner
from metarec_jax.meta.factored import Factoring, Form
from metarec_jax.meta.partition import combine, partition
from metarec_jax.meta.updaters import Updater
from metarec_jax.types import Episodes, Params, Rows, Tables

Result = TypeVar("Result")
Task = TypeVar("Task")


class Model(NamedTuple):
    """The functions that make up a model; the numbers are in `Trainable`."""

    apply: Callable[[Params, mlp.Context, mlp.Features], Array]
    head: Head
    updater: Updater
    adapted: tuple[str, ...]
    steps: int
    order: Literal["second", "first"]
    form: Form = "auto"


class Trainable(NamedTuple):
    """What the outer loop trains: the learner's theta and the updater's phi."""

    theta: Params
    phi: Params


class TrainState(NamedTuple):
    """Everything that an outer step reads and writes.

    Attributes:
        trainable: what is trained.
        optimiser: state of the optax transform.
        step: int32 [], outer steps taken.
        key: typed key of the run; step ``i`` draws from ``fold_in(key, i)``, each user from that and the user's row.
    """

    trainable: Trainable
    optimiser: optax.OptState
    step: Array
    key: Array


class Losses(NamedTuple):
    """Sums that merge by addition: query loss, and the query rows that it is summed over."""

    query: Array
    rows: Array


def masked_mean(values: Float[Array, " n"], mask: Float[Array, " n"]) -> Float[Array, ""]:
    """Mean of `values` where `mask` is 1, and 0 where no mask is."""
    return jnp.sum(jnp.where(mask > 0, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1.0)


def features_of(tables: Tables, rows: Rows, name: str) -> mlp.Features:
    """What the learner sees of some rows; `name` says which rows, as `metarec_jax.meta.factored.Fixed` needs."""
    return mlp.Features(embedding=Fixed(tables.items, rows.item, name), statistic=rows.statistic)


def context_of(tables: Tables, user: Array, support: Rows, key: Array | None = None) -> mlp.Context:
    """What the learner sees of one user; with a `key` (of this user's) it trains, and may draw from it."""
    return mlp.Context(
        embedding=Fixed(tables.users, user, "user"),
        support=features_of(tables, support, "support"),
        rating=support.rating,
        mask=support.mask,
        key=key,
    )


def factor_user(model: Model, theta: Params, context: mlp.Context) -> tuple[Factoring, Params]:
    """How one user's inner loop is computed, and the shared part of theta."""
    adapted, shared = partition(theta, model.adapted)

    def loss(adapted: Params) -> Array:
        outputs = model.apply(combine(adapted, shared), context, context.support)
        return masked_mean(model.head.loss(outputs, context.rating), context.mask)

    return Factoring(loss, adapted, model.form), shared


def adapt_user(model: Model, trainable: Trainable, context: mlp.Context) -> tuple[Params, Float[Array, " steps"]]:
    """The inner loop of one user.

    Returns:
        What the user keeps (see `apply_user`), and the support loss before each step.
    """
    factoring, _ = factor_user(model, trainable.theta, context)
    return inner.adapt(
        factoring.value_and_gradient,
        model.updater,
        trainable.phi,
        factoring.start(),
        steps=model.steps,
        order=model.order,
    )


def apply_user(
    model: Model, trainable: Trainable, context: mlp.Context, kept: Params, rows: mlp.Features
) -> Float[Array, "n outputs"]:
    """Outputs for some rows of a user that `adapt_user` led to `kept`."""
    factoring, shared = factor_user(model, trainable.theta, context)
    return model.apply(combine(factoring.kernels(kept, order=model.order), shared), context, rows)


def predict_user(
    model: Model, trainable: Trainable, tables: Tables, episode: Episodes, key: Array | None = None
) -> Float[Array, "query outputs"]:
    """Outputs for the query of one user, after adapting to the support."""
    context = context_of(tables, episode.user, episode.support, key)
    kept, _ = adapt_user(model, trainable, context)
    return apply_user(model, trainable, context, kept, features_of(tables, episode.query, "query"))


def lose_user(
    model: Model, trainable: Trainable, tables: Tables, episode: Episodes, key: Array | None = None
) -> Losses:
    """Query loss of one user after adapting to the support: its sum over the query, and the number of rows summed."""
    if key is not None:
        key = jax.random.fold_in(key, episode.user)
    outputs = predict_user(model, trainable, tables, episode, key)
    mask = episode.query.mask * episode.weight
    loss = model.head.loss(outputs, episode.query.rating)
    return Losses(query=jnp.sum(jnp.where(mask > 0, loss, 0.0)), rows=jnp.sum(mask))


def over_users(function: Callable[[Task], Result], tasks: Task) -> Result:
    """Maps a function of one user's task (an episode, or any tree) over the users of a batch: the only ``vmap``."""
    return jax.vmap(function)(tasks)


def predict(
    model: Model, trainable: Trainable, tables: Tables, episodes: Episodes
) -> Float[Array, "users query outputs"]:
    """Outputs for the queries of a batch of users, each after adapting to its own support."""
    return over_users(lambda episode: predict_user(model, trainable, tables, episode), episodes)


def meta_loss(
    model: Model, trainable: Trainable, tables: Tables, episodes: Episodes, key: Array | None = None
) -> tuple[Float[Array, ""], Losses]:
    """Mean query loss of a batch after adaptation, and the sums that it is the ratio of.

    Args:
        model: the functions.
        trainable: theta and phi.
        tables: embeddings.
        episodes: a batch.
        key: of this outer step; None does without randomness.
    """
    losses = over_users(lambda episode: lose_user(model, trainable, tables, episode, key), episodes)
    sums = jax.tree.map(jnp.sum, losses)
    return sums.query / jnp.maximum(sums.rows, 1.0), sums


def make_step(
    model: Model, optimiser: optax.GradientTransformation
) -> Callable[[TrainState, Tables, Episodes], tuple[TrainState, Losses]]:
    """The outer step, a pure function: (state, tables, episodes) -> (state, losses before the step)."""

    def step(state: TrainState, tables: Tables, episodes: Episodes) -> tuple[TrainState, Losses]:
        key = jax.random.fold_in(state.key, state.step)
        gradient, losses = jax.grad(meta_loss, argnums=1, has_aux=True)(model, state.trainable, tables, episodes, key)
        with jax.named_scope("outer_update"):
            updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.trainable)
            trainable = cast("Trainable", optax.apply_updates(state.trainable, updates))
        return TrainState(trainable, optimiser_state, state.step + 1, state.key), losses

    return step
