"""Pure functions of the package never let JAX choose a dtype: every cast is written out.

Types are decided when a function is traced, so that none is compiled. The outer updates are left out: optax's own rules
rely on promotion; so is an encoder in bfloat16, in which flax's layer norm does.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LEARNER_SIZES, head_of, tiny

from metarec_jax import encoder
from metarec_jax.core.kinds import HEADS, LEARNERS, UPDATERS
from metarec_jax.core.types import Tables
from metarec_jax.encoder import attention
from metarec_jax.encoder.architectures import ARCHITECTURES
from metarec_jax.encoder.lora import add_lora
from metarec_jax.encoder.mlm_head import identity_head, logits
from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.learner import prior
from metarec_jax.learner.inputs import Context, Features, of_user_text, prepare
from metarec_jax.learner.ranking import ranking_loss
from metarec_jax.learner.spd_inverse import inverse
from metarec_jax.meta.outer import meta_loss, predict
from metarec_jax.meta.user import context_of, variance_user

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def real(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def floats(function, *arguments) -> None:
    """`function` can be traced, and no number that it returns is of another precision than float32."""
    for leaf in jax.tree.leaves(jax.eval_shape(function, *arguments)):
        assert leaf.dtype in (jnp.float32, jnp.int32, jnp.bool), leaf


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("head", HEADS.names())
@pytest.mark.parametrize("learner", LEARNER_SIZES)
def test_scores(learner, head, prior):
    case = tiny(learner=learner, head=head, dtype=np.float32, prior=prior)
    floats(functools.partial(predict, case.model), *case[1:])


@pytest.mark.parametrize("learner", LEARNERS.names())
def test_the_gradient_of_the_meta_loss(learner):
    """Through scores, the head's loss and the inner loop, with dropout."""
    case = tiny(learner=learner, dtype=np.float32, dropout=0.3)
    slope = jax.grad(functools.partial(meta_loss, case.model), argnums=(0, 1), has_aux=True)
    floats(slope, *case[1:], jax.random.key(0))


@pytest.mark.parametrize("order", ["second", "first", "reptile"])
@pytest.mark.parametrize("form", ["dense", "factored"])
def test_the_inner_loop_in_every_form_and_order(form, order):
    case = tiny(form=form, order=order, dtype=np.float32)
    floats(jax.grad(functools.partial(meta_loss, case.model), argnums=(0, 1), has_aux=True), *case[1:])


OF_OPTAX = ("adam", "rmsprop", "adagrad")
"""Rules whose steps are optax's own."""


@pytest.mark.parametrize("rule", [kind for kind in UPDATERS.names() if kind not in OF_OPTAX])
def test_every_updater(rule):
    case = tiny(kind=rule, dtype=np.float32, adapted=("output/.*",))
    floats(jax.grad(functools.partial(meta_loss, case.model), argnums=(0, 1), has_aux=True), *case[1:])


def test_the_variance_of_ridge_regression():
    case = tiny(kind="ridge", dtype=np.float32, adapted=("output/.*",), head="rating")
    episode = jax.tree.map(lambda leaf: leaf[0], case.episodes)

    def variance(trainable, tables):
        context = context_of(tables, episode.user, episode.support)
        return variance_user(case.model, trainable, context, context.support)

    floats(variance, case.trainable, case.tables)


@pytest.mark.parametrize("kind", HEADS.names())
def test_the_functions_of_a_head(kind):
    head = head_of(kind)
    floats(head.prior, head.init(), real(4), real())
    floats(head.believed, head.init_believed(0.5), real(4), real(4))
    outputs = real(4, head.outputs)
    floats(jax.grad(lambda outputs, rating: jnp.sum(head.loss(outputs, rating))), outputs, real(4))
    floats(head.mean, outputs)
    floats(head.point, outputs)
    for loss in ("bpr", "softmax"):
        floats(ranking_loss(loss, head, 1.0), outputs, real(4), real(4))


def test_the_posterior_of_the_prior_path():
    head, rank = head_of("ordinal"), 3
    params = prior.init(head, 3.5, prior.Believed(0.7, no_tastes(rank, 2)))

    def rows(count):
        return Features(real(count, 2), real(count, 4 + rank))

    def outputs(params, context, asked):
        others = prior.prior_outputs(params, head, context, asked, statistics=True)
        return others, prior.prior_outputs(params, head, context, context.support, statistics=True)

    floats(outputs, params, Context(real(2), rows(5), real(5), real(5)), rows(4))
    floats(jax.grad(lambda matrix: jnp.sum(inverse(matrix))), real(3, 3))


def test_tables_are_prepared_and_texts_dropped():
    case = tiny(dtype=np.float32)
    floats(prepare, case.trainable.theta, Tables(*case.tables))

    def products(context, kernel):
        return of_user_text(context, kernel, 0.3)

    rows = Features(real(4, 3), real(4, 2))
    floats(products, Context(real(3), rows, real(4), real(4), jax.random.key(0)), real(3, 5))


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_encoder_forward(kind, pooling):
    config, params, tokens = small_encoder(kind)
    params = add_lora(params, ["layer_0/query"], rank=2, key=jax.random.key(1))

    def vectors(params, tokens):
        return jnp.sum(encoder.encode(params, config, tokens, pooling=pooling, normalise=True))

    floats(jax.grad(vectors), params, tokens)


@pytest.mark.parametrize("kind", [kind for kind, architecture in ARCHITECTURES.items() if architecture.masked])
def test_scores_of_words(kind):
    config, _, _ = small_encoder(kind)
    head = identity_head(config)
    floats(lambda head, word, states: logits(head, word, config, states), head, real(30, 8), real(2, 5, 8))


@pytest.mark.parametrize("function", [attention.attend, attention.attend_tiled])
def test_attention(function):
    states = real(3, 5, 8)
    floats(
        lambda query, key, value, mask, bias: function(query, key, value, mask, num_heads=2, bias=bias),
        *(states, states, states, real(3, 5), real(2, 5, 5)),
    )


def small_encoder(kind: str):
    """(config, parameters, tokens) of an architecture."""
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 12}
    own = {"num_key_value_heads": 1, "head_dim": 4} if kind in ("qwen3", "gemma3_text") else {}
    own |= {"max_positions": 9, "model_type": kind, "pad_token_id": ARCHITECTURES[kind].fixed.get("pad_token_id", 0)}
    config = encoder.config_class(kind)(**sizes | own | ARCHITECTURES[kind].fixed)
    shape = (3, 5)
    tokens = encoder.Tokens(np.ones(shape, np.int32), np.ones(shape, np.float32), np.zeros(shape, np.int32))
    return config, encoder.init(0, config), tokens
