"""The outer loop: meta loss of a batch of episodes, and the step that minimises it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import usable
from metarec_jax.core.types import BatchRows, Episodes, Params, Prepared
from metarec_jax.factors.correction import Routes, correct, corrected, descend, items_of, pick
from metarec_jax.meta.batch import gathered, planned, sum_over_users
from metarec_jax.meta.kernel import sum_in_kernel
from metarec_jax.meta.model import Model, Outcome, Shared, Task, Trainable
from metarec_jax.meta.user import lose_user, predict_user


class TrainState(NamedTuple):
    """Everything that an outer step reads and writes.

    Attributes:
        trainable: trainable parameters.
        optimiser: state of the optax transform.
        step: int32 [], number of outer steps taken.
        key: typed key of the run; step ``i`` uses ``fold_in(key, i)``, from which each user's key is derived by row.
        squares: float [rows], sums of `metarec_jax.factors.correction.descend`, where there is a correction.
    """

    trainable: Trainable
    optimiser: optax.OptState
    step: Array
    key: Array
    squares: Params = None


class Exchange(NamedTuple):
    """Communication of a device that computes a part of the batch; by default there is none.

    Attributes:
        total: tree -> its sum over the devices.
        gradient: gradient -> its sum over the devices, where some leaves may be sharded.
        embeddings: embeddings of the device's texts -> embeddings of all texts that its episodes gather.
        key: common key -> key of this device.
    """

    total: Callable[[Any], Any] = lambda tree: tree
    gradient: Callable[[Any], Any] = lambda tree: tree
    embeddings: Callable[[Array], Array] = lambda own: own
    key: Callable[[Array], Array] = lambda key: key


ALONE = Exchange()


class Losses(NamedTuple):
    """Losses of a batch.

    Attributes:
        query: sum of the query loss.
        rows: number of query rows in the sum.
        stopped: int32 [users], as in `metarec_jax.meta.model.Outcome`.
        usable: bool [leaves], whether each parameter of an outer step holds valid numbers (`metarec_jax.core.params`);
            None outside an outer step. An invalid parameter is the cause of a loss that is not finite.
    """

    query: Array
    rows: Array
    stopped: Array
    usable: Array | None = None


def predict(
    model: Model, trainable: Trainable, tables: Prepared | BatchRows, episodes: Episodes
) -> Float[Array, "users query outputs"]:
    """Predict the queries of a batch of users, each after adapting to its own support.

    Args:
        model: the functions.
        trainable: theta and phi.
        tables: prepared tables, or prepared rows of the batch.
        episodes: a batch.

    Returns:
        Outputs.
    """
    shared, tasks = _given(model, trainable, tables, episodes)
    return over_users(functools.partial(predict_user, model, shared), tasks)


def meta_loss(
    model: Model,
    trainable: Trainable,
    tables: Prepared | BatchRows,
    episodes: Episodes,
    key: Array | None = None,
    *,
    at_once: int = 0,
) -> tuple[Float[Array, ""], Losses]:
    """Compute the mean query loss of a batch after adaptation.

    Args:
        model: the functions.
        trainable: theta and phi.
        tables: prepared tables (``model.prepare``), or prepared rows of the batch.
        episodes: a batch.
        key: key of this outer step; None disables dropout.
        at_once: number of users computed in parallel; it must divide their number. 0 takes all.

    Returns:
        The mean over query rows, and the losses.
    """
    shared, tasks = _given(model, trainable, tables, episodes, key)

    def lose(shared: Shared, task: Task) -> tuple[Array, Outcome]:
        outcome = lose_user(model, shared, task)
        return outcome.query, outcome

    if model.kernel:
        if tasks.rows is None:
            shared, tasks = shared._replace(tables=None), tasks._replace(rows=gathered(shared.tables, tasks.episode))
        total, outcomes = sum_in_kernel(lose, model.kernel, shared, tasks)
    else:
        total, outcomes = sum_over_users(lose, shared, tasks, at_once=at_once)
    losses = Losses(total, jnp.sum(outcomes.rows), outcomes.stopped)
    return total / jnp.maximum(losses.rows, 1.0), losses


def share_of_batch(mean: Float[Array, ""], losses: Losses, exchange: Exchange) -> tuple[Float[Array, ""], Losses]:
    """Weight the mean loss of a device's users so that the sum over devices is the mean loss of the batch.

    Args:
        mean, losses: from `meta_loss`, of the users of this device.
        exchange: communication between devices.

    Returns:
        The weighted mean, and losses whose sums are those of the batch (``stopped`` is that of this device's users).
    """
    query, rows = exchange.total((losses.query, losses.rows))
    share = jnp.maximum(losses.rows, 1.0) / jnp.maximum(rows, 1.0)
    return mean * jax.lax.stop_gradient(share), losses._replace(query=query, rows=rows)


def _given(
    model: Model,
    trainable: Trainable,
    tables: Prepared | BatchRows,
    episodes: Episodes,
    key: Array | None = None,
) -> tuple[Shared, Task]:
    """Inputs of all users of a batch, and of each."""
    episodes, trainable = corrected(episodes, trainable.factors), trainable._replace(factors=None)
    plan, products = planned(model, trainable.theta, tables, episodes)
    if isinstance(tables, BatchRows):
        return Shared(trainable, None, key, plan), Task(episodes, products, tables)
    return Shared(trainable, tables, key, plan), Task(episodes, products)


def make_step(
    model: Model,
    optimiser: optax.GradientTransformation,
    *,
    at_once: int = 0,
    exchange: Exchange = ALONE,
    spread: Callable[..., Any] = lambda gradient: gradient,
    factor_rate: optax.Schedule = lambda step: 0.0,
) -> Callable[[TrainState, Prepared | BatchRows, Episodes], tuple[TrainState, Losses]]:
    """Make the outer step, a pure function.

    Args:
        model: the functions.
        optimiser: turns the gradient into an update; the correction of item factors has an update of its own.
        at_once: as for `meta_loss`, of the users of a device.
        exchange: communication between devices, each with a part of the users.
        spread: transforms a function (trainable, tables or rows, episodes, key) -> (gradient, losses) of one device
            into that of all devices.
        factor_rate: step -> learning rate of the correction.

    Returns:
        (state, prepared tables or prepared rows of the batch, episodes) -> (new state, losses).
    """

    def gradient_of(
        trainable: Trainable, tables: Prepared | BatchRows, episodes: Episodes, key: Array
    ) -> tuple[Trainable, Losses]:
        def lose(read: Trainable) -> tuple[Array, Losses]:
            told = episodes if read.factors is None else correct(episodes, read.factors)
            mean, losses = meta_loss(model, read._replace(factors=None), tables, told, key, at_once=at_once)
            return share_of_batch(mean, losses, exchange)

        gradient, losses = jax.grad(lose, has_aux=True)(trainable)
        return exchange.gradient(gradient), losses

    def step(state: TrainState, tables: Prepared | BatchRows, episodes: Episodes) -> tuple[TrainState, Losses]:
        key = jax.random.fold_in(state.key, state.step)
        read, routes = as_read(state.trainable, items_of(episodes))
        gradient, losses = spread(gradient_of)(read, tables, episodes, key)
        losses = losses._replace(usable=jnp.stack(usable(read)))
        return updated(state, gradient, optimiser, routes, factor_rate), losses

    return step


def as_read(
    trainable: Trainable, items: Int[Array | np.ndarray, "users interactions"]
) -> tuple[Trainable, Routes | None]:
    """Reduce the correction of item factors to the rows that a step reads.

    Args:
        trainable: trainable parameters.
        items: of the supports and queries of a batch.

    Returns:
        The parameters with the row of each interaction in place of the whole correction, and where these rows come
        from; the unchanged parameters and None without a correction.
    """
    if trainable.factors is None:
        return trainable, None
    picked = pick(trainable.factors, items)
    return trainable._replace(factors=picked.rows), picked.routes


def updated(
    state: TrainState,
    gradient: Trainable,
    optimiser: optax.GradientTransformation,
    routes: Routes | None = None,
    factor_rate: optax.Schedule = lambda step: 0.0,
) -> TrainState:
    """Update the state with a gradient.

    Args:
        state: the state.
        gradient: gradient by the trainable parameters as they were read.
        optimiser: turns the gradient into an update, except for the correction of item factors.
        routes: from `as_read`.
        factor_rate: step -> learning rate of the correction.

    Returns:
        The new state.
    """
    dense, by_row = state.trainable._replace(factors=None), gradient.factors
    with jax.named_scope("outer_update"):
        updates, optimiser_state = optimiser.update(gradient._replace(factors=None), state.optimiser, dense)
        moved = cast("Trainable", optax.apply_updates(dense, updates))
        table, squares = state.trainable.factors, state.squares
        if routes is not None:
            table, squares = descend(table, squares, routes, by_row, factor_rate(state.step))
    return TrainState(moved._replace(factors=table), optimiser_state, state.step + 1, state.key, squares)
