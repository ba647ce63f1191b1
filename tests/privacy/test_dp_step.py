"""The private outer step: what one user can change, and what noise does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, assert_equal, tiny, user_of

from metarec_jax.learner.inputs import learned
from metarec_jax.meta.model import Shared, Task
from metarec_jax.meta.outer import TrainState, make_step
from metarec_jax.meta.user import lose_user
from metarec_jax.privacy.dp_step import Fed, Mechanism, frozen_sum, make_private_step, noisy

pytestmark = pytest.mark.usefixtures("x64")
QUERY = 3


def mechanism(clip: float, noise: float = 0.0) -> Mechanism:
    return Mechanism(clip=clip, noise=noise, users=4.0, query=QUERY)


@functools.cache
def case():
    return tiny(users=4, query=QUERY, support=3)


@functools.cache
def program(at_once: int):
    def take(clip, trainable, tables, episodes):
        summed = frozen_sum(case().model, mechanism(clip), at_once=at_once)
        return summed(trainable, tables, episodes, None)[0]

    return jax.jit(take)


def total(clip: float, episodes=None, at_once: int = 0):
    made = case()
    return program(at_once)(clip, made.trainable, made.tables, made.episodes if episodes is None else episodes)


def private_step(model, optimiser, mechanism):
    return make_private_step(frozen_sum(model, mechanism), optimiser, mechanism)


def of_each_user():
    made = case()

    def loss(trainable, episode):
        return lose_user(made.model, Shared(trainable, made.tables), Task(episode)).query / QUERY

    slope = jax.jit(jax.grad(loss))
    gradients = [slope(made.trainable, user_of(made.episodes, user)) for user in range(4)]
    return [gradient._replace(theta=learned(gradient.theta)[0]) for gradient in gradients]


def test_every_user_is_clipped_and_added():
    gradients = of_each_user()
    norms = [float(optax.tree.norm(gradient)) for gradient in gradients]
    clip = float(np.median(norms))
    want = jax.tree.map(jnp.zeros_like, gradients[0])
    for gradient, norm in zip(gradients, norms):
        share = min(clip / norm, 1.0)
        want = jax.tree.map(lambda a, b, share=share: a + share * b, want, gradient)
    assert min(norms) < clip < max(norms)
    assert_close(total(clip), want)
    assert_close(total(clip, at_once=2), want)
    assert_close(total(clip, at_once=1), want)


def test_one_user_moves_the_sum_by_no_more_than_the_bound():
    everyone, episodes = total(0.01), case().episodes
    for user in range(4):
        without = episodes._replace(weight=episodes.weight.at[user].set(0.0))
        moved = optax.tree.norm(jax.tree.map(jnp.subtract, everyone, total(0.01, without)))
        assert 0.009 < moved <= 0.01 * (1 + 1e-5)


def test_a_user_who_is_not_there_adds_nothing():
    nobody = case().episodes._replace(weight=jnp.zeros(4))
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(total(1.0, nobody)))


def test_a_user_whose_gradient_is_not_finite_adds_nothing():
    episodes = case().episodes
    rating = episodes.query.rating.at[1, 0].set(jnp.nan)
    head = tiny(users=4, query=QUERY, support=3, head="rating")
    take = jax.jit(lambda episodes: frozen_sum(head.model, mechanism(1.0))(*head[1:3], episodes, None)[0])
    spoiled = take(episodes._replace(query=episodes.query._replace(rating=rating)))
    without = take(episodes._replace(weight=episodes.weight.at[1].set(0.0)))
    assert_close(spoiled, without)


def test_noise_is_normal_of_the_scale_and_its_own_for_every_number():
    tree = {"a": jnp.zeros((60, 60)), "b": jnp.ones(3600)}
    got = noisy(tree, 2.5, jax.random.key(0))
    drawn = np.stack([np.asarray(got["a"]).ravel(), np.asarray(got["b"]) - 1])
    np.testing.assert_allclose(drawn.std(axis=1), 2.5, rtol=0.04)
    np.testing.assert_allclose(drawn.mean(axis=1), 0.0, atol=0.15)
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.06
    assert_equal(noisy(tree, 2.5, jax.random.key(0)), got)


def test_without_clipping_and_noise_it_is_the_ordinary_step():
    made = tiny(users=4, query=QUERY, support=3)
    full = jax.tree.map(lambda leaf: leaf, made.episodes)
    full = full._replace(query=full.query._replace(mask=jnp.ones_like(full.query.mask)))
    full = full._replace(query=full.query._replace(rating=jnp.maximum(full.query.rating, 1.0)))
    optimiser = optax.sgd(0.1)
    state = TrainState(made.trainable, optimiser.init(made.trainable), jnp.zeros((), jnp.int32), jax.random.key(0))
    private = private_step(made.model, optimiser, mechanism(1e9))
    got, losses = jax.jit(private)(state, Fed(made.tables, jax.random.key(1)), full)
    want, ordinary = jax.jit(make_step(made.model, optimiser))(state, made.tables, full)
    assert_close(got.trainable, want.trainable)
    assert_close(losses.query, ordinary.query)
    noised, _ = jax.jit(private_step(made.model, optimiser, mechanism(1.0, noise=1.0)))(
        state, Fed(made.tables, jax.random.key(1)), full
    )
    moving, _ = learned(jax.tree.map(jnp.subtract, noised.trainable.theta, got.trainable.theta))
    assert all((np.asarray(leaf) != 0).all() for leaf in jax.tree.leaves(moving))
    assert_equal(noised.trainable.theta["input"], made.trainable.theta["input"])  # which is not trained


@pytest.mark.slow
def test_gradients_of_single_users_exist_for_a_micro_batch_at_a_time():
    made = tiny(users=16, query=QUERY, support=3, embedding=64, hidden=64)

    def temporaries(at_once: int) -> int:
        take = jax.jit(frozen_sum(made.model, mechanism(1.0), at_once=at_once))
        compiled = take.lower(made.trainable, made.tables, made.episodes, None).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(2) < temporaries(0) / 3
