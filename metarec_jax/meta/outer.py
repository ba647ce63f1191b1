"""The outer loop: meta loss of a batch of episodes, and the step that goes down it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import usable
from metarec_jax.core.types import Episodes, Prepared
from metarec_jax.meta.batch import planned, sum_over_users
from metarec_jax.meta.user import Model, Outcome, Shared, Task, Trainable, lose_user, predict_user


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
    """Of a batch.

    Attributes:
        query: sum of the query loss.
        rows: query rows that it is summed over.
        stopped: int32 [users], as in `metarec_jax.meta.user.Outcome`.
        usable: of an outer step, bool [leaves], which of its parameters hold numbers that one can compute with (see
            `metarec_jax.core.params`): where one does not, it is what made the losses what they are.
    """

    query: Array
    rows: Array
    stopped: Array
    usable: Array | None = None


def predict(
    model: Model, trainable: Trainable, tables: Prepared, episodes: Episodes
) -> Float[Array, "users query outputs"]:
    """Outputs for the queries of a batch of users, each after adapting to its own support."""
    plan, products = planned(model, trainable.theta, tables, episodes)
    shared, tasks = Shared(trainable, tables, plan=plan), Task(episodes, products)
    return over_users(functools.partial(predict_user, model, shared), tasks)


def meta_loss(
    model: Model,
    trainable: Trainable,
    tables: Prepared,
    episodes: Episodes,
    key: Array | None = None,
    step_weights: Array | None = None,
    *,
    at_once: int = 0,
) -> tuple[Float[Array, ""], Losses]:
    """Mean query loss of a batch after adaptation, and the sums that it is the ratio of.

    Args:
        model: the functions.
        trainable: theta and phi.
        tables: embeddings, prepared (``model.prepare``).
        episodes: a batch.
        key: key of this outer step; None does without randomness.
        step_weights: float32 [steps], what the query loss after each inner step counts; None counts the last only.
        at_once: users computed at the same time; it must divide their number. 0 takes all.
    """
    plan, products = planned(model, trainable.theta, tables, episodes)
    shared, tasks = Shared(trainable, tables, key, step_weights, plan), Task(episodes, products)

    def lose(shared: Shared, task: Task) -> tuple[Array, Outcome]:
        outcome = lose_user(model, shared, task)
        return outcome.query, outcome

    total, outcomes = sum_over_users(lose, shared, tasks, at_once=at_once)
    losses = Losses(total, jnp.sum(outcomes.rows), outcomes.stopped)
    return total / jnp.maximum(losses.rows, 1.0), losses


def annealed(steps: int, over: int) -> Callable[[Array], Array]:
    """What the query loss after each of `steps` inner steps counts, by the outer step.

    All alike at outer step 0, only the last from outer step `over` on, linear in between (Antoniou, Edwards & Storkey
    2019, arXiv 1810.09502, section 4, "Multi-Step Loss Optimization").
    """

    def weights(step: Array) -> Float[Array, " steps"]:
        early = jnp.maximum(1 - step / over, 0.0) / steps
        return jnp.full(steps, early).at[-1].set(1 - (steps - 1) * early)

    return weights


def make_step(
    model: Model,
    optimiser: optax.GradientTransformation,
    *,
    at_once: int = 0,
    step_weights: Callable[[Array], Array] | None = None,
) -> Callable[[TrainState, Prepared, Episodes], tuple[TrainState, Losses]]:
    """The outer step, a pure function: (state, tables, episodes) -> (state, losses before the step).

    Args:
        model: the functions.
        optimiser: what becomes of the gradient.
        at_once: users computed at the same time (see `meta_loss`).
        step_weights: outer step -> weights of the inner steps (see `annealed`); None counts the last only.
    """

    def step(state: TrainState, tables: Prepared, episodes: Episodes) -> tuple[TrainState, Losses]:
        key = jax.random.fold_in(state.key, state.step)
        weights = None if step_weights is None else step_weights(state.step)
        slope = jax.grad(meta_loss, argnums=1, has_aux=True)
        gradient, losses = slope(model, state.trainable, tables, episodes, key, weights, at_once=at_once)
        losses = losses._replace(usable=jnp.stack(usable(state.trainable)))
        return updated(state, gradient, optimiser), losses

    return step


def updated(state: TrainState, gradient: Trainable, optimiser: optax.GradientTransformation) -> TrainState:
    """The state after a step of `optimiser` with that gradient."""
    with jax.named_scope("outer_update"):
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.trainable)
        trainable = cast("Trainable", optax.apply_updates(state.trainable, updates))
    return TrainState(trainable, optimiser_state, state.step + 1, state.key)
