"""The outer step under differential privacy: users' gradients are clipped one by one, and noise is added to their sum.

DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1) with a user as the unit (McMahan et al. 2018, arXiv
1710.06963): whatever one user's ratings are, and whether the user is there at all, moves the sum by no more than the
bound. Gradients of single users exist for a micro-batch of users at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import combine, usable
from metarec_jax.core.types import Episodes, Params, Prepared
from metarec_jax.learner.inputs import learned
from metarec_jax.meta.outer import Losses, TrainState, updated
from metarec_jax.meta.user import Model, Outcome, Shared, Task, Trainable, lose_user


class Fed(NamedTuple):
    """What a private step reads beside state and episodes: what users' losses read (prepared tables, say), and the
    secret key of all draws."""

    read: Any
    key: PRNGKeyArray


class Mechanism(NamedTuple):
    """What is done to gradients.

    Attributes:
        clip: greatest norm of one user's gradient, over all that is trained.
        noise: standard deviation of the noise, in units of `clip`.
        users: how many a batch has on average; a number that no single user changes.
        query: query rows of a user.
    """

    clip: float
    noise: float
    users: float
    query: int


Summed = Callable[[Trainable, Any, Episodes, PRNGKeyArray], tuple[Trainable, Outcome]]
"""(trainable, what users' losses read, episodes, key) -> (the sum over users of the clipped gradient of
each user's mean query loss, with None for what is not trained, and the outcome of each user)."""


def clipped_sum(
    gradient: Callable[[Any], tuple[Params, Outcome]],
    clip: float | Float[Array, ""],
    like: Params,
    users: Any,
    *,
    at_once: int = 0,
) -> tuple[Params, Outcome]:
    """The sum over users of the clipped gradient of each, and the outcome of each user.

    Args:
        gradient: what is one user's own -> (gradient of that user's loss by all that is trained, outcome).
        clip: greatest norm of one user's gradient.
        like: a tree like the gradient.
        users: what is each user's own, with a leading axis of users.
        at_once: users whose gradients exist at the same time; it must divide their number. 0, and more than there
            are, takes all.
    """

    def of_part(users: Any) -> tuple[Params, Outcome]:
        alone = len(jax.tree.leaves(users)[0]) == 1
        gradients, outcomes = over_users(gradient, users, at_once=1 if alone else 0)
        # A gradient that is not finite would have no bound: such a user adds nothing.
        finite = functools.reduce(
            jnp.logical_and,
            [jnp.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in jax.tree.leaves(gradients)],
        )
        gradients = jax.tree.map(
            lambda leaf: jnp.where(finite.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0.0), gradients
        )
        total, _ = optax.per_example_global_norm_clip(gradients, clip)
        return total, outcomes

    count = len(jax.tree.leaves(users)[0])
    if not 0 < at_once < count:
        return of_part(users)
    parts = jax.tree.map(lambda leaf: leaf.reshape(count // at_once, at_once, *leaf.shape[1:]), users)

    def add(total: Params, part: Any) -> tuple[Params, Outcome]:
        more, outcomes = of_part(part)
        return jax.tree.map(jnp.add, total, more), outcomes

    total, outcomes = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, like), parts)
    return total, jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), outcomes)


def mean_loss(mechanism: Mechanism, outcome: Outcome) -> Float[Array, ""]:
    """What a user's gradient is of."""
    return outcome.query / mechanism.query


def frozen_sum(model: Model, mechanism: Mechanism, *, at_once: int = 0) -> Summed:
    """Of a run whose embeddings stay as they are: what users' losses read is the prepared tables.

    Args:
        model: the functions.
        mechanism: how gradients are clipped.
        at_once: as for `clipped_sum`.
    """

    def summed(
        trainable: Trainable, tables: Prepared, episodes: Episodes, key: PRNGKeyArray | None
    ) -> tuple[Trainable, Outcome]:
        moving, still = learned(trainable.theta)
        like = Trainable(moving, trainable.phi)

        def gradient(episode: Episodes) -> tuple[Trainable, Outcome]:
            def loss(own: Trainable) -> tuple[Array, Outcome]:
                whole = own._replace(theta=combine(own.theta, still))
                outcome = lose_user(model, Shared(whole, tables, key), Task(episode))
                return mean_loss(mechanism, outcome), outcome

            return jax.grad(loss, has_aux=True)(like)

        return clipped_sum(gradient, mechanism.clip, like, episodes, at_once=at_once)

    return summed


def noisy(total: Params, scale: float | Float[Array, ""], key: PRNGKeyArray) -> Params:
    """`total` with independent normal noise of that standard deviation on every number."""
    leaves, structure = jax.tree.flatten(total)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        [leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype) for leaf, k in zip(leaves, keys)]
    )


def make_private_step(
    summed: Summed,
    optimiser: optax.GradientTransformation,
    mechanism: Mechanism,
) -> Callable[[TrainState, Fed, Episodes], tuple[TrainState, Losses]]:
    """The outer step, as `metarec_jax.meta.outer.make_step` makes it. What follows the noise sees no user.

    The losses that it returns have no noise: they are for whoever trains, and not covered.

    Args:
        summed: the users' gradients, clipped by the same mechanism (see `frozen_sum`).
        optimiser: what becomes of the gradient.
        mechanism: what noise is added.
    """

    def step(state: TrainState, fed: Fed, episodes: Episodes) -> tuple[TrainState, Losses]:
        # What users in training draw (dropout) comes from the secret, too.
        of_users, of_noise = jax.random.split(jax.random.fold_in(fed.key, state.step))
        total, outcomes = summed(state.trainable, fed.read, episodes, of_users)
        with jax.named_scope("noise"):
            total = noisy(total, mechanism.noise * mechanism.clip, of_noise)
        gradient = jax.tree.map(lambda leaf: leaf / mechanism.users, total)
        losses = Losses(jnp.sum(outcomes.query), jnp.sum(outcomes.rows), outcomes.stopped)
        losses = losses._replace(usable=jnp.stack(usable(state.trainable)))
        # What is not trained gets no noise either, which the optimiser would make steps of.
        gradient = combine(gradient, jax.tree.map(jnp.zeros_like, state.trainable))
        return updated(state, cast("Trainable", gradient), optimiser), losses

    return step
