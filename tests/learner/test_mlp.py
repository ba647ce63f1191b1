"""The learner by hand, its prior path, and that it starts as the baseline that it has to beat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_each_close, head_of

from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.core.types import Tables
from metarec_jax.data import load
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.splits import item_statistics, split_users
from metarec_jax.evaluation.baselines import Scale, item_mean_user_bias
from metarec_jax.learner import mlp
from metarec_jax.learner.contract import make_head


def made(head="classes", *, hidden=8, item=5, user=3, seed=0):
    """A learner whose parameters are all random, and one user with 6 support rows (2 of them padded) and 4 others."""
    rng = np.random.default_rng(seed)
    head = head_of(head)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = mlp.init(
        jax.random.key(seed),
        head,
        hidden=hidden,
        item_embeddings=rng.normal(size=(9, item)).astype(np.float32),
        user_embeddings=rng.normal(size=(9, user)).astype(np.float32),
        mean_rating=3.5,
    )

    def rows(n):
        count = rng.integers(0, 7, n)
        return mlp.Features(
            normal(n, item), jnp.asarray(np.stack([rng.uniform(1, 5, n) * count, count], 1), jnp.float32)
        )

    context = mlp.Context(
        normal(user), rows(6), jnp.asarray(rng.integers(1, 6, 6), jnp.float32), jnp.array([1.0, 1, 1, 1, 0, 0])
    )
    return head, params, context, rows(4), jax.tree.map(lambda w: w + 0.3 * normal(*w.shape), params)


def prior_by_hand(params, context, rows):
    """item mean [n] and user bias []."""
    a, b, mean = np.exp(params["log_item_weight"]), np.exp(params["log_user_weight"]), np.asarray(params["mean"])

    def item_mean(statistic):
        return (np.asarray(statistic)[:, 0] + a * mean) / (np.asarray(statistic)[:, 1] + a)

    mask = np.asarray(context.mask) > 0
    residual = (np.asarray(context.rating) - item_mean(context.support.statistic))[mask]
    return item_mean(rows.statistic), residual.sum() / (len(residual) + b)


@pytest.mark.parametrize("kind", ["rating", "classes", "click"])
def test_outputs_are_those_of_the_method_written_out(kind):
    """Concatenated embeddings -> hidden -> ReLU -> outputs, on top of the prior."""
    head, _, context, rows, params = made(kind)
    found = mlp.apply(params, head, context, rows)

    p = jax.tree.map(np.asarray, params)
    both = np.concatenate([np.broadcast_to(context.embedding, (4, 3)), rows.embedding], axis=1)
    kernel = np.concatenate([p["hidden"]["user"]["kernel"], p["hidden"]["item"]["kernel"]])
    hidden = np.maximum(both @ kernel + p["hidden"]["bias"], 0) / np.sqrt(8)
    item_mean, bias = prior_by_hand(p["prior"], context, rows)
    prior = np.asarray(head.prior(p["prior"]["head"], jnp.asarray(item_mean), jnp.asarray(bias, jnp.float32)))
    wanted = hidden @ p["output"]["kernel"] + p["output"]["bias"] + prior
    assert_close(found, wanted.astype(np.float32))


@pytest.mark.parametrize("kind", ["rating", "classes", "click"])
def test_a_new_learner_says_its_prior_and_nothing_of_embeddings(kind):
    head, params, context, rows, _ = made(kind)
    item_mean, bias = prior_by_hand(params["prior"], context, rows)
    found = mlp.apply(params, head, context, rows)
    assert_close(found, head.prior(params["prior"]["head"], jnp.asarray(item_mean), jnp.asarray(bias)))
    elsewhere = rows._replace(embedding=rows.embedding + 1)
    other = context._replace(embedding=context.embedding - 1)
    np.testing.assert_array_equal(mlp.apply(params, head, other, elsewhere), found)
    assert float(params["prior"]["mean"]) == 3.5
    assert_each_close(
        np.exp([params["prior"][f"log_{n}_weight"] for n in ("item", "user")]),
        5,
        tolerance=1e-6,
        because="a few roundings",
    )


def test_without_the_prior_path_every_item_starts_at_the_mean_rating():
    head, params, context, rows, _ = made("rating")
    found = mlp.apply(params, head, context, rows, prior=False)
    np.testing.assert_array_equal(found, np.full((4, 1), 3.5, np.float32))


def test_without_any_support_the_user_has_no_bias():
    head, params, context, rows, _ = made("rating")
    nobody = context._replace(mask=jnp.zeros(6))
    assert_close(mlp.apply(params, head, nobody, rows)[:, 0], prior_by_hand(params["prior"], context, rows)[0])


def test_a_user_side_without_features_is_left_out():
    head, _, context, rows, params = made("rating", user=0)
    found = mlp.apply(params, head, context, rows)
    hidden = dict(params["hidden"], user={"kernel": jnp.zeros((2, 8))})
    assert_close(found, mlp.apply(params | {"hidden": hidden}, head, context._replace(embedding=jnp.ones(2)), rows))


def test_inputs_are_standardised_to_mean_0_and_mean_squared_norm_1():
    """Those of items and those of users, each by their own statistics, which get no gradient."""
    rng = np.random.default_rng(0)
    items = rng.normal(loc=5.0, scale=[0.1, 1, 3], size=(200, 3)).astype(np.float32)
    users = rng.normal(loc=-2.0, scale=[2, 0.3], size=(90, 2)).astype(np.float32)
    params = {"input": {"item": mlp.standardisation(items), "user": mlp.standardisation(users)}}
    for standard in mlp.prepare(params, Tables(items, users)):
        assert_each_close(np.mean(standard, axis=0), 0, floor=1e-5, because="a mean of roundings")
        assert_each_close(np.square(standard).sum(axis=1).mean(), 1)
    slope = jax.grad(lambda p, t: sum(jnp.sum(part**3) for part in mlp.prepare(p, t)), argnums=(0, 1))
    of_params, of_tables = slope(params, Tables(jnp.asarray(items), jnp.asarray(users)))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(of_params))
    assert all((leaf != 0).all() for leaf in of_tables), "the embeddings do"


@pytest.mark.parametrize(
    "embeddings",
    [np.full((7, 3), 0.1), np.ones((1, 3)), np.array([[1e8], [1e8 + 8]]), np.zeros((4, 0))],
)
def test_embeddings_that_do_not_differ_contribute_exactly_0(embeddings):
    """Neither those that set the standardisation, nor any that come later."""
    items = embeddings.astype(np.float32)
    params = {"input": {"item": mlp.standardisation(items), "user": mlp.standardisation(items)}}
    prepared = mlp.prepare(params, Tables(items, np.random.default_rng(0).normal(size=items.shape).astype(np.float32)))
    assert not any(part.any() for part in prepared)
    assert np.isfinite(np.asarray(prepared.users)).all()


def test_dropout_takes_hidden_features_away_and_makes_up_for_them():
    """The same ones for all rows of the user; none without a key, or at a rate of 0."""
    head, _, context, rows, params = made("rating", hidden=400)
    # One output for each hidden feature alone, and nothing else.
    params = params | {"output": {"kernel": jnp.eye(400), "bias": jnp.zeros(400)}}
    silent = head._replace(prior=lambda params, item_mean, bias: jnp.zeros((4, 400)))
    training = context._replace(key=jax.random.key(1))
    whole = np.asarray(mlp.apply(params, silent, context, rows, dropout=0.25))
    np.testing.assert_array_equal(mlp.apply(params, silent, training, rows, dropout=0.0), whole)
    thinned = np.asarray(mlp.apply(params, silent, training, rows, dropout=0.25))
    kept = (thinned != 0).any(axis=0)
    assert_each_close(thinned, np.where(kept, whole / 0.75, 0), tolerance=1e-6, because="a few roundings")
    alive = (whole != 0).any(axis=0)
    assert_each_close(kept[alive].mean(), 0.75, floor=0.08, because="3.5 standard deviations of 350 draws")
    other = mlp.apply(params, silent, context._replace(key=jax.random.key(2)), rows, dropout=0.25)
    assert ((np.asarray(other) != 0).any(axis=0) != kept).any()


def test_some_users_in_training_do_without_their_text():
    """Wholly or not at all; such a user is the average one. Nobody does without it outside of training."""
    head, _, context, rows, params = made("rating")
    average = context._replace(embedding=jnp.zeros(3))
    with_text, without = (np.asarray(mlp.apply(params, head, user, rows)) for user in (context, average))
    assert (with_text != without).any()
    np.testing.assert_array_equal(mlp.apply(params, head, context, rows, user_dropout=0.4), with_text)
    keys = jax.random.split(jax.random.key(0), 300)
    users = jax.vmap(lambda key: mlp.apply(params, head, context._replace(key=key), rows, user_dropout=0.4))
    found = np.asarray(users(keys))
    has_text = np.abs(found - with_text).max(axis=(1, 2)) < 1e-5
    assert (has_text ^ (np.abs(found - without).max(axis=(1, 2)) < 1e-5)).all()
    assert_each_close(has_text.mean(), 0.6, floor=0.1, because="3.5 standard deviations")


def test_on_real_ratings_a_new_learner_is_item_mean_plus_user_bias():
    """The very numbers of the baseline, on MovieLens-100K, for users that the item statistics know nothing of."""
    data = load(DataConfig(download=False), seed=0)
    config = EpisodeConfig()
    splits = split_users(data, config, seed=0)
    statistics = item_statistics(data, splits.train)
    mean = float(statistics.total.sum() / statistics.count.sum())
    source = EpisodeSource(
        histories=histories(data, splits.test),
        config=config,
        statistics=statistics,
        training=False,
        users_per_batch=64,
        seed=0,
    )
    episodes = source.batch_of_all(0)
    head = make_head("rating", levels=data.scale.levels, low=data.scale.low, high=data.scale.high)
    nothing = np.zeros((1, 2), np.float32)
    params = mlp.init(
        jax.random.key(0), head, hidden=4, item_embeddings=nothing, user_embeddings=nothing, mean_rating=mean
    )

    @jax.vmap
    def predict(support, query):
        def features(rows):
            return mlp.Features(jnp.ones((len(rows.item), 2)), rows.statistic)

        context = mlp.Context(jnp.ones(2), features(support), support.rating, support.mask)
        return head.mean(mlp.apply(params, head, context, features(query)))

    found = predict(*jax.tree.map(jnp.asarray, (episodes.support, episodes.query)))
    baseline = item_mean_user_bias(Scale(mean, 4.0, data.scale.low, data.scale.high), item_shrink=5.0, user_shrink=5.0)
    wanted = baseline.predict(episodes).mean
    assert found.shape == (len(splits.test), 10)
    assert np.ptp(wanted) > 1
    assert_close(np.asarray(found), wanted.astype(np.float32), tolerance=1e-6, because="a few roundings")
