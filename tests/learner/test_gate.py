"""The weight of the network, by the number of ratings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_equal, head_of, learner_config
from training import small_config, small_experiment

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import LEARNERS
from metarec_jax.core.types import Params
from metarec_jax.learner.contract import make_learner
from metarec_jax.learner.inputs import Context, Features
from metarec_jax.learner.prior import prior_outputs
from metarec_jax.meta.model import Model
from metarec_jax.train.model import init_trainable

DOUBT = 6.0


def made(kind, gate):
    """A learner with parameters none of which is zero, a user with 4 ratings in 6 slots, and 3 rows to score."""
    rng = np.random.default_rng(0)
    config = learner_config(kind, layers=1, gate=gate)
    learner = make_learner(config, head_of("ordinal"))
    embeddings = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    params = learner.init(
        jax.random.key(0), item_embeddings=embeddings[0], user_embeddings=embeddings[1], mean_rating=3.5
    )
    own = {name: part for name, part in params.items() if name != "gate"}
    moved = jax.tree.map(lambda w: w + jnp.asarray(0.3 * rng.normal(size=w.shape), w.dtype), own)

    def rows(n):
        count = rng.integers(1, 7, n)
        statistic = np.stack([rng.uniform(1, 5, n) * count, count], 1)
        return Features(jnp.asarray(rng.normal(size=(n, 5)), jnp.float32), jnp.asarray(statistic, jnp.float32))

    rating, mask = jnp.asarray(rng.integers(1, 6, 6), jnp.float32), jnp.array([1.0, 1, 1, 1, 0, 0])
    context = Context(jnp.asarray(rng.normal(size=3), jnp.float32), rows(6), rating, mask)
    return learner, moved | {name: params[name] for name in params if name == "gate"}, context, rows(3)


@pytest.mark.parametrize("kind", LEARNERS.names())
def test_the_network_counts_for_a_share_that_grows_with_the_ratings(kind):
    """With n ratings n / (n + doubt) of what the same network adds to the prior without a gate."""
    gated, params, context, rows = made(kind, DOUBT)
    plain, same, *_ = made(kind, 0.0)
    assert "gate" in params
    assert "gate" not in same
    for real in (4, 1):
        some = context._replace(mask=jnp.asarray(np.arange(6) < real, jnp.float32))
        prior = prior_outputs(params["prior"], head_of("ordinal"), some, rows, statistics=True)
        adds = plain.apply(same, some, rows) - prior
        assert np.abs(adds).max() > 1e-2
        assert_close(gated.apply(params, some, rows) - prior, real / (real + DOUBT) * adds)


@pytest.mark.parametrize("kind", LEARNERS.names())
def test_of_a_stranger_the_prior_path_speaks_alone(kind):
    learner, params, context, rows = made(kind, DOUBT)
    nobody = context._replace(mask=jnp.zeros(6))
    prior = prior_outputs(params["prior"], head_of("ordinal"), nobody, rows, statistics=True)
    assert_equal(learner.apply(params, nobody, rows), prior)


def test_the_doubt_is_learned():
    learner, params, context, rows = made("mlp", DOUBT)
    slope = jax.grad(lambda params: jnp.sum(learner.apply(params, context, rows)[:, 0]))(params)
    assert abs(float(slope["gate"]["log_doubt"])) > 1e-3


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_gate_that_is_no_number_of_ratings_is_refused(value):
    with pytest.raises(MetarecError, match=r"learner\.gate is .*at least 0"):
        LearnerConfig(gate=value)


def test_a_rule_in_closed_form_has_no_gate():
    """Its model is the one without, whatever the learner's options say."""

    def made_with(gate: float, kind: str) -> tuple[Model, Params]:
        config = small_config()
        config = dataclasses.replace(
            config,
            learner=dataclasses.replace(config.learner, gate=gate),
            updater=UpdaterConfig(kind=kind, adapted=("output/.*",)),
        )
        made = small_experiment(config)
        users = np.zeros((2, 0), np.float32)
        return made.model, init_trainable(config, made.model, made.catalogue, users, jax.random.key(0)).theta

    (gated, theta), (plain, same) = made_with(3.0, "ridge"), made_with(0.0, "ridge")
    assert gated is plain
    assert jax.tree.structure(theta) == jax.tree.structure(same)
    assert "gate" in made_with(3.0, "gradient")[1]
