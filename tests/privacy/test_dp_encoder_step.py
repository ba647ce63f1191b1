"""The private outer step that trains the encoder: users' gradients are those of the naive form, taken one by one."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, assert_equal
from shared_texts import BERT, Case, everything, trained

from metarec_jax.core.params import path_names
from metarec_jax.core.types import Prepared
from metarec_jax.learner.inputs import learned
from metarec_jax.meta.encoder_step import joint_gradient
from metarec_jax.meta.model import Shared, Task, Trainable
from metarec_jax.meta.outer import TrainState
from metarec_jax.meta.user import lose_user
from metarec_jax.privacy.dp_encoder_step import joint_sum
from metarec_jax.privacy.dp_step import Fed, Mechanism, make_private_step

QUERY = 3


def case(per_call=24, **changes):
    """A few users, of whom the first fills support and query, who share some of 12 items: rows of two lengths, and more
    of them than fit in a turn."""
    return Case(per_call=per_call, most=8, **changes)


def bounds(clip, noise=0.0):
    return Mechanism(clip, noise, users=4.0, query=QUERY)


def summed(case, clip):
    return joint_sum(case.model, case.reading, everything, bounds(clip))


@functools.cache
def program():
    """A case of four users, and what a step takes from its parameters, that trains the second layer."""
    made, optimiser = case(users=4), optax.sgd(1.0)
    state = TrainState(made.trainable, optimiser.init(made.trainable), jnp.zeros((), jnp.int32), jax.random.key(0))

    @jax.jit
    def take(clip, noise, read, episodes):
        mechanism = bounds(clip, noise)
        step = make_private_step(joint_sum(made.model, made.reading, trained, mechanism), optimiser, mechanism)
        after, losses = step(state, Fed(read, jax.random.key(1)), episodes)
        return jax.tree.map(jnp.subtract, made.trainable, after.trainable), losses

    return made, take


def moving(gradient, trained):
    return Trainable(learned(gradient.theta)[0], gradient.phi, trained(gradient.encoder)[0])


def one_by_one(made):
    """The gradient of each user's mean query loss, with the text of every pair encoded."""
    sides, apart = made.pairs(made.episodes)

    def loss(at, episode):
        tables = Prepared(*(made.reading.encode(at.encoder, tokens) for tokens in sides))
        return lose_user(made.model, Shared(at, tables), Task(episode)).query / QUERY

    slope = jax.jit(jax.grad(loss))
    users = [jax.tree.map(lambda leaf, user=user: jnp.asarray(leaf[user]), apart) for user in range(4)]
    return [slope(made.trainable, user) for user in users]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_every_user_is_clipped_over_all_that_is_trained_and_added():
    made, take = program()
    gradients = [moving(gradient, trained) for gradient in one_by_one(made)]
    norms = [float(optax.tree.norm(gradient)) for gradient in gradients]
    clip = float(np.median(norms))
    assert min(norms) < clip < max(norms)
    shares = [min(clip / norm, 1.0) / 4 for norm in norms]
    want = jax.tree.map(lambda *leaves: sum(share * leaf for share, leaf in zip(shares, leaves)), *gradients)
    read, episodes = made.apart()
    got, _ = take(clip, 0.0, read, episodes)
    assert_close(moving(got, trained), want, tolerance=1e-10, because="every gradient is divided by its norm")
    # Who has weight 0 adds nothing, and neither does who has no finite loss.
    without, _ = take(clip, 0.0, read, episodes._replace(weight=episodes.weight.at[0].set(0.0)))
    rest = jax.tree.map(lambda a, b: a - shares[0] * b, want, gradients[0])
    assert_close(moving(without, trained), rest, tolerance=1e-10, because="every gradient is divided by its norm")
    rating = episodes.query.rating.at[0, 0].set(jnp.nan)
    spoiled, _ = take(clip, 0.0, read, episodes._replace(query=episodes.query._replace(rating=rating)))
    assert_equal(spoiled, without)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_without_clipping_and_noise_it_is_the_joint_step_where_all_queries_are_full():
    """The mean over users of each user's mean is the mean over all rows, then. Noise comes to all that is trained."""
    made, take = program()
    made = copy.copy(made)
    query = made.episodes.query
    full = query._replace(mask=np.ones_like(query.mask), rating=np.maximum(query.rating, 1.0))
    made.episodes = made.episodes._replace(query=jax.tree.map(np.asarray, full))
    quiet, losses = take(1e9, 0.0, *made.apart())
    chosen, episodes = made.localised()
    reading = made.reading._replace(slots=made.texts.slots(16))  # of all four users
    joint = jax.jit(functools.partial(joint_gradient, made.model, reading, trained))
    gradient, ordinary, _ = joint(made.trainable, chosen, episodes)
    assert_close(quiet, gradient, tolerance=1e-10, because="every gradient is divided by its norm")
    assert_close((losses.query, losses.rows), (ordinary.query, ordinary.rows))

    noise = jax.tree.map(jnp.subtract, take(1e9, 1e-9, *made.apart())[0], quiet)
    for name, leaf in zip(path_names(noise), jax.tree.leaves(noise)):
        still = name.startswith(("theta/input/", "encoder/embeddings/", "encoder/layer_0/"))
        assert (np.asarray(leaf) == 0).all() if still else (np.asarray(leaf) != 0).all(), name


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_what_one_user_draws_is_nobody_elses_affair():
    """Dropout of the learner is by the user and not by the place in the batch, of the secret."""
    made = case(150, bert=dataclasses.replace(BERT, num_layers=1), dropout=0.3, hidden=16)
    read, episodes = made.apart()
    take = jax.jit(summed(made, 1e9))
    key = jax.random.key(1)

    def queries(order, key=key):
        own = (
            read._replace(texts=jax.tree.map(lambda leaf: leaf[order], read.texts), rows=read.rows[order]),
            jax.tree.map(lambda leaf: leaf[order], episodes),
        )
        return np.asarray(take(made.trainable, *own, key)[1].query)

    straight = queries(np.array([0, 1, 2]))
    assert_close(queries(np.array([2, 0, 1])), straight[[2, 0, 1]])
    assert (np.abs(queries(np.array([0, 1, 2]), jax.random.key(2)) - straight) > 1e-9).all()
    # The gradient is that of what was encoded: by finite differences, along all that is trained.
    gradient, _ = take(made.trainable, read, episodes, key)
    way = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), gradient.encoder)

    def moved(by):
        at = made.trainable._replace(encoder=jax.tree.map(lambda leaf, w: leaf + by * w, made.trainable.encoder, way))
        return float(take(at, read, episodes, key)[1].query.sum()) / QUERY

    slope = sum(jnp.vdot(g, w) for g, w in zip(jax.tree.leaves(gradient.encoder), jax.tree.leaves(way)))
    assert float(slope) == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_users():
    """Four times as many users: less than one copy of the encoder's gradients more, and nothing near one each."""

    def temporaries(users):
        made = case(
            10_000, dtype=np.float32, users=users, bert=dataclasses.replace(BERT, vocab_size=5000, num_layers=1)
        )
        read, episodes = made.apart()
        compiled = jax.jit(summed(made, 1.0)).lower(made.trainable, read, episodes, None).compile()
        copy = sum(leaf.nbytes for leaf in jax.tree.leaves(made.trainable.encoder))
        return compiled.memory_analysis().temp_size_in_bytes, copy

    (few, copy), (many, _) = temporaries(8), temporaries(32)
    assert few > copy, "there is a gradient of the encoder"
    assert many - few < copy / 2, (few, many, copy)
