"""The outer step under differential privacy: users' gradients are clipped one by one, and noise is added to their sum.

DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1) with a user as the unit (McMahan et al. 2018, arXiv
1710.06963): whatever one user's ratings are, and whether the user is there at all, moves the sum by no more than the
bound. Gradients of single users exist for a micro-batch of users at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarec_jax.meta.finite import usable
from metarec_jax.meta.outer import Losses, TrainState, updated
from metarec_jax.meta.user import Model, Outcome, Shared, Task, Trainable, lose_user
from metarec_jax.types import Episodes, Params, Prepared


class Fed(NamedTuple):
    """What a private step reads beside state and episodes: prepared tables, and the secret key of all draws."""

    tables: Prepared
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


def clipped_sum(
    model: Model,
    mechanism: Mechanism,
    shared: Shared,
    episodes: Episodes,
    *,
    at_once: int = 0,
) -> tuple[Trainable, Outcome]:
    """The sum over users of the clipped gradient of each user's mean query loss, and the outcome of each user.

    Args:
        model: the functions.
        mechanism: how gradients are clipped.
        shared: what all users see.
        episodes: a batch; a user of weight 0 adds nothing.
        at_once: users whose gradients exist at the same time; it must divide their number. 0 takes all.
    """

    def of_user(episode: Episodes) -> tuple[Trainable, Outcome]:
        def loss(trainable: Trainable) -> tuple[Array, Outcome]:
            outcome = lose_user(model, shared._replace(trainable=trainable), Task(episode))
            return outcome.query / mechanism.query, outcome

        return jax.grad(loss, has_aux=True)(shared.trainable)

    def of_part(episodes: Episodes) -> tuple[Trainable, Outcome]:
        gradients, outcomes = jax.vmap(of_user)(episodes)
        # A gradient that is not finite would have no bound: such a user adds nothing.
        finite = functools.reduce(
            jnp.logical_and,
            [jnp.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in jax.tree.leaves(gradients)],
        )
        gradients = jax.tree.map(
            lambda leaf: jnp.where(finite.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0.0), gradients
        )
        total, _ = optax.per_example_global_norm_clip(gradients, mechanism.clip)
        return cast("Trainable", total), outcomes

    users = len(episodes.weight)
    if at_once in (0, users):
        return of_part(episodes)
    parts = jax.tree.map(lambda leaf: leaf.reshape(users // at_once, at_once, *leaf.shape[1:]), episodes)

    def add(total: Trainable, part: Episodes) -> tuple[Trainable, Outcome]:
        more, outcomes = of_part(part)
        return jax.tree.map(jnp.add, total, more), outcomes

    total, outcomes = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shared.trainable), parts)
    return total, jax.tree.map(lambda leaf: leaf.reshape(users, *leaf.shape[2:]), outcomes)


def noisy(total: Params, scale: float, key: PRNGKeyArray) -> Params:
    """`total` with independent normal noise of that standard deviation on every number."""
    leaves, structure = jax.tree.flatten(total)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        [leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype) for leaf, k in zip(leaves, keys)]
    )


def make_private_step(
    model: Model,
    optimiser: optax.GradientTransformation,
    mechanism: Mechanism,
    *,
    at_once: int = 0,
    step_weights: Callable[[Array], Float[Array, " steps"]] | None = None,
) -> Callable[[TrainState, Fed, Episodes], tuple[TrainState, Losses]]:
    """The outer step, as `metarec_jax.meta.outer.make_step` makes it. What follows the noise sees no user.

    The losses that it returns have no noise: they are for whoever trains, and not covered.
    """

    def step(state: TrainState, fed: Fed, episodes: Episodes) -> tuple[TrainState, Losses]:
        # What users in training draw (dropout) comes from the secret, too.
        of_users, of_noise = jax.random.split(jax.random.fold_in(fed.key, state.step))
        weights = None if step_weights is None else step_weights(state.step)
        shared = Shared(state.trainable, fed.tables, of_users, weights)
        total, outcomes = clipped_sum(model, mechanism, shared, episodes, at_once=at_once)
        with jax.named_scope("noise"):
            total = noisy(total, mechanism.noise * mechanism.clip, of_noise)
        gradient = jax.tree.map(lambda leaf: leaf / mechanism.users, total)
        losses = Losses(jnp.sum(outcomes.query), jnp.sum(outcomes.rows), outcomes.stopped)
        losses = losses._replace(usable=jnp.stack(usable(state.trainable)))
        return updated(state, cast("Trainable", gradient), optimiser), losses

    return step
