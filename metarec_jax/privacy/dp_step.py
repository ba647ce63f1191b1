"""The outer step under differential privacy: each user's gradient is clipped, and noise is added to the sum.

This is DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1) with users as the unit (McMahan et al. 2018, arXiv
1710.06963): adding or removing a user, with any ratings, changes the sum by no more than the bound. Gradients of single
users are in memory for one micro-batch of users at a time.
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
from metarec_jax.meta.model import Model, Outcome, Shared, Task, Trainable
from metarec_jax.meta.outer import Losses, TrainState, updated
from metarec_jax.meta.user import lose_user


class Fed(NamedTuple):
    """Inputs of a private step besides state and episodes.

    Attributes:
        read: inputs of users' losses, such as prepared tables.
        key: secret key of all draws.
    """

    read: Any
    key: PRNGKeyArray


class Mechanism(NamedTuple):
    """Clipping and noise of gradients.

    Attributes:
        clip: greatest norm of one user's gradient, over all trained parameters.
        noise: standard deviation of the noise, in units of `clip`.
        users: expected number of users in a batch, which does not depend on any single user.
        query: number of query rows of a user.
    """

    clip: float
    noise: float
    users: float
    query: int


Summed = Callable[[Trainable, Any, Episodes, PRNGKeyArray], tuple[Trainable, Outcome]]
"""(trainable, inputs of users' losses, episodes, key) -> (sum over users of the clipped gradient of each user's mean
query loss, with None for parameters that are not trained; outcome of each user)."""


def clipped_sum(
    gradient: Callable[[Any], tuple[Params, Outcome]],
    clip: float | Float[Array, ""],
    like: Params,
    users: Any,
    *,
    at_once: int = 0,
) -> tuple[Params, Outcome]:
    """Sum the clipped gradients of users.

    Args:
        gradient: inputs of one user -> (gradient of that user's loss by all trained parameters, outcome).
        clip: greatest norm of one user's gradient.
        like: a tree with the structure and shapes of the gradient.
        users: inputs of each user, with a leading axis of users.
        at_once: number of users whose gradients are computed in parallel; it must divide their number. 0, or more than
            there are, takes all.

    Returns:
        The sum, and the outcome of each user.
    """

    def of_part(users: Any) -> tuple[Params, Outcome]:
        alone = len(jax.tree.leaves(users)[0]) == 1
        gradients, outcomes = over_users(gradient, users, at_once=1 if alone else 0)
        # A gradient that is not finite cannot be clipped, so such a user contributes nothing.
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
    """The loss of a user whose gradient is clipped: the mean over query rows.

    Args:
        mechanism: ``query`` is read.
        outcome: outcome of the user.

    Returns:
        [].
    """
    return outcome.query / mechanism.query


def frozen_sum(model: Model, mechanism: Mechanism, *, at_once: int = 0) -> Summed:
    """Make the sum of clipped gradients for a frozen encoder; the inputs of users' losses are the prepared tables.

    Args:
        model: the functions.
        mechanism: clipping of gradients.
        at_once: as for `clipped_sum`.

    Returns:
        The function.
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
    """Add independent normal noise to every number of a tree.

    Args:
        total: the tree.
        scale: standard deviation of the noise.
        key: typed PRNG key.

    Returns:
        The tree with noise.
    """
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
    """Make the private outer step, with the interface of `metarec_jax.meta.outer.make_step`.

    After the noise is added, the step reads no data of users. The losses that it returns have no noise: they are for
    the person who trains, and the guarantee does not cover them.

    Args:
        summed: sum of the users' gradients, clipped by the same mechanism (see `frozen_sum`).
        optimiser: turns the noisy gradient into an update.
        mechanism: clipping and noise.

    Returns:
        (state, inputs, episodes) -> (new state, losses).
    """

    def step(state: TrainState, fed: Fed, episodes: Episodes) -> tuple[TrainState, Losses]:
        # The users' dropout depends on the secret key, too.
        of_users, of_noise = jax.random.split(jax.random.fold_in(fed.key, state.step))
        total, outcomes = summed(state.trainable, fed.read, episodes, of_users)
        with jax.named_scope("noise"):
            total = noisy(total, mechanism.noise * mechanism.clip, of_noise)
        gradient = jax.tree.map(lambda leaf: leaf / mechanism.users, total)
        losses = Losses(jnp.sum(outcomes.query), jnp.sum(outcomes.rows), outcomes.stopped)
        losses = losses._replace(usable=jnp.stack(usable(state.trainable)))
        # Parameters that are not trained get no noise, which the optimizer would turn into updates.
        gradient = combine(gradient, jax.tree.map(jnp.zeros_like, state.trainable))
        return updated(state, cast("Trainable", gradient), optimiser), losses

    return step
