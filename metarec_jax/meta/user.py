"""The inner loop, predictions and the query loss of one user; `metarec_jax.meta.batch` maps them over users."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import partition, path_names
from metarec_jax.core.types import BatchRows, Episodes, Params, Prepared, Rows
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.learner.inputs import Context, Features
from metarec_jax.meta import inner
from metarec_jax.meta.adaptation import (
    adapt_task,
    adapted_theta,
    first_not_finite,
    inputs_of_task,
    left_of,
    plan_task,
    with_reptile,
)
from metarec_jax.meta.gram import Adapted, Plan
from metarec_jax.meta.model import Model, Outcome, Products, Shared, Task, Trainable
from metarec_jax.meta.updaters import Inputs


def masked_mean(values: Float[Array, " n"], mask: Float[Array, " n"]) -> Float[Array, ""]:
    """Weighted mean.

    Args:
        values: the values; those with weight 0 are not read.
        mask: weights from 0 to 1.

    Returns:
        The sum of weighted values over the sum of weights (at least 1).
    """
    return jnp.sum(jnp.where(mask > 0, mask * values, 0.0)) / jnp.maximum(jnp.sum(mask), 1.0)


def features_of(
    tables: Prepared, rows: Rows, name: str, theta: Params = None, products: Products | None = None
) -> Features:
    """Make the learner's inputs about some rows.

    Args:
        tables: prepared tables.
        rows: rows of one user; without ids (None), those of the whole item table.
        name: identifier of the rows (see `metarec_jax.learner.gathered_rows.Fixed`).
        theta, products: parameters, and precomputed products of these rows with kernels of theta.

    Returns:
        The inputs.
    """
    known = _known(theta, products, name)
    return Features(embedding=Fixed(tables.items, rows.item, name, known), statistic=rows.statistic)


def context_of(
    tables: Prepared,
    user: Array | None,
    support: Rows,
    key: Array | None = None,
    theta: Params = None,
    products: Products | None = None,
) -> Context:
    """Make the learner's inputs about one user.

    Args:
        tables: prepared tables.
        user: int32 [], row of the user table; None where the table is that row.
        support: the support.
        key: key of this user in training, for dropout; None outside training.
        theta, products: as for `features_of`.

    Returns:
        The inputs.
    """
    return Context(
        embedding=Fixed(tables.users, user, "user", _known(theta, products, "user")),
        support=features_of(tables, support, "support", theta, products),
        rating=support.rating,
        mask=support.mask,
        key=key,
    )


def _known(theta: Params, products: Products | None, name: str) -> list[tuple[Array, Array]]:
    if not products or name not in products:
        return []
    kernels = dict(zip(path_names(theta), jax.tree.leaves(theta)))
    return [(kernels[path], product) for path, product in products[name].items()]


def summarised(model: Model, theta: Params, context: Context) -> Context:
    """Compute the learner's summary of the support once for all inner steps and the query.

    The context is unchanged where the learner does not read the support, or where the summary depends on adapted
    parameters.

    Args:
        model: the functions.
        theta: parameters of the learner.
        context: the user.

    Returns:
        The context with summaries.
    """
    _, shared = partition(theta, model.adapted)
    if context.taste is None and model.taste is not None:
        context = context._replace(taste=model.taste(shared, context))
    if context.summary is None and model.summarise is not None:
        context = context._replace(summary=model.summarise(shared, context))
    return context


def plan_user(model: Model, theta: Params, context: Context, query: Features | None = None) -> Plan:
    """Choose the form of adapted parameters, by an abstract evaluation of the learner with instrumented matrices.

    Args:
        model: the functions.
        theta: parameters of the learner.
        context: one user; all users of a batch have the same shapes, and thus the same plan.
        query: rows to predict, if their products are to be included.

    Returns:
        The plan.

    Raises:
        MetarecError: the model's form is "factored", and its updater needs full matrices.
    """

    def apply(theta: Params, name: str) -> Array:
        rows = context.support if query is None or name == "support" else query
        return model.apply(theta, context, rows)

    return plan_task(model, theta, apply, query=query is not None)


def _rows(context: Context) -> dict[str, Fixed]:
    """The fixed rows of one user, by name."""
    return {"support": cast("Fixed", context.support.embedding), "user": cast("Fixed", context.embedding)}


def _support_loss(model: Model, context: Context, theta: Params) -> Array:
    outputs = model.apply(theta, context, context.support)
    return masked_mean(model.head.loss(outputs, context.rating), context.mask)


def inputs_of(model: Model, theta: Params, context: Context) -> Inputs:
    """Collect the updater's inputs about the support of one user, before the inner loop.

    Args:
        model: the functions.
        theta: parameters of the learner.
        context: the user.

    Returns:
        The inputs.
    """
    return inputs_of_task(model, theta, lambda theta: _support_loss(model, context, theta), context.mask)


def adapt_user(model: Model, trainable: Trainable, context: Context, plan: Plan | None = None) -> inner.Path:
    """Run the inner loop of one user.

    Args:
        model: the functions.
        trainable: theta and phi.
        context: the user, with the support.
        plan: from `plan_user`; None determines it.

    Returns:
        The path; its `end` is an `Adapted`, from which `apply_user` predicts.
    """
    plan = plan_user(model, trainable.theta, context) if plan is None else plan
    context = summarised(model, trainable.theta, context)
    return adapt_task(
        model,
        trainable.theta,
        trainable.phi,
        lambda theta: _support_loss(model, context, theta),
        plan,
        _rows(context),
        lambda: inputs_of(model, trainable.theta, context),
    )


def apply_user(
    model: Model, trainable: Trainable, context: Context, adapted: Adapted, rows: Features
) -> Float[Array, "n outputs"]:
    """Predict rows with the adapted parameters of a user.

    Args:
        model: the functions.
        trainable: theta and phi.
        context: the user, with the support of the adaptation.
        adapted: from `adapt_user`.
        rows: rows to predict.

    Returns:
        Outputs.
    """
    context = summarised(model, trainable.theta, context)
    theta = adapted_theta(model, trainable.theta, adapted, _rows(context))
    return model.apply(theta, context, rows)


def variance_user(model: Model, trainable: Trainable, context: Context, rows: Features) -> Float[Array, " n"]:
    """Compute the predictive variance of a user's outputs for some rows.

    Args:
        model: the functions.
        trainable: theta and phi.
        context: the user, with the support.
        rows: rows to predict.

    Returns:
        Variances, in squared units of the outputs.

    Raises:
        MetarecError: the model's updater has no predictive variance.
    """
    if model.updater.variance is None:
        raise MetarecError("this updater gives no predictive variance: updater.kind 'ridge' does")
    context = summarised(model, trainable.theta, context)
    inputs = inputs_of(model, trainable.theta, context)
    left = left_of(model, trainable.theta, lambda theta: model.apply(theta, context, rows))
    return model.updater.variance(trainable.phi, inputs, left)


def predict_user(model: Model, shared: Shared, task: Task) -> Float[Array, "query outputs"]:
    """Predict the query of one user, after adapting to the support.

    Args:
        model: the functions.
        shared: inputs that all users share.
        task: the user.

    Returns:
        Outputs.
    """
    context, query = _seen(model, shared, task)
    path = adapt_user(model, shared.trainable, context, shared.plan)
    return apply_user(model, shared.trainable, context, path.end, query)


def lose_user(model: Model, shared: Shared, task: Task) -> Outcome:
    """Compute the query loss of one user after adapting to the support.

    With order "reptile", its gradient by adapted parameters is that of `metarec_jax.meta.adaptation.with_reptile`; the
    gradient by other parameters is that of the query loss at the adapted parameters.

    Args:
        model: the functions.
        shared: inputs that all users share.
        task: the user.

    Returns:
        The outcome.
    """
    context, query = _seen(model, shared, task)
    path = adapt_user(model, shared.trainable, context, shared.plan)
    mask = task.episode.query.mask * task.episode.weight

    outputs = apply_user(model, shared.trainable, context, path.end, query)
    if model.query_loss is not None:
        lost = jnp.sum(model.query_loss(outputs, task.episode.query.rating, mask))
    else:
        lost = jnp.sum(jnp.where(mask > 0, model.head.loss(outputs, task.episode.query.rating), 0.0))
    lost = with_reptile(model, shared.trainable.theta, path.end, _rows(context), lost, jnp.sum(mask))
    stopped = first_not_finite(path.losses, lost, task.episode.weight == 0)
    return Outcome(query=lost, rows=jnp.sum(mask), stopped=stopped)


def _seen(model: Model, shared: Shared, task: Task) -> tuple[Context, Features]:
    """The learner's inputs about the user and about the query, with summaries."""
    episode, theta = task.episode, shared.trainable.theta
    number = episode.user if episode.number is None else episode.number
    key = None if shared.key is None else jax.random.fold_in(shared.key, number)
    context, query = told(shared.tables, task.rows, episode, key, theta, task.products)
    assert query is not None
    return summarised(model, theta, context), query


def told(
    tables: Prepared | None,
    rows: BatchRows | None,
    episode: Episodes,
    key: Array | None = None,
    theta: Params = None,
    products: Products | None = None,
) -> tuple[Context, Features | None]:
    """Make the learner's inputs about one user and the query.

    Args:
        tables: prepared tables; None where there are `rows`.
        rows: prepared rows of this user; None gathers them by the ids of the episode.
        episode: the user's episode.
        key, theta, products: as for `context_of`.

    Returns:
        The inputs about the user, and about the query; None in place of these for an episode without one.
    """
    user, support, query = episode.user, episode.support, episode.query
    of_support = of_query = cast("Prepared", tables)
    if rows is not None:
        user, support = None, support._replace(item=None)
        query = None if query is None else query._replace(item=None)
        of_support, of_query = (Prepared(part, rows.user) for part in (rows.support, rows.query))
    context = context_of(of_support, user, support, key, theta, products)
    return context, None if query is None else features_of(of_query, query, "query", theta, products)
