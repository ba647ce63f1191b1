"""What every learner keeps, in one list of checks that runs over the table of all of them."""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, assert_equal, head_of, learner_config, tiny, written_out

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.core.kinds import LEARNERS, UPDATERS
from metarec_jax.core.registry import choices_of
from metarec_jax.core.types import Prepared, Rows
from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.learner.contract import make_learner
from metarec_jax.learner.inputs import Context, Features
from metarec_jax.learner.prior import Believed, prior_outputs
from metarec_jax.meta.learner_checks import LEARNER_PROPERTIES, check_learner
from metarec_jax.meta.outer import TrainState, make_step, meta_loss, predict

pytestmark = pytest.mark.long

HUGE = 1e30
RANK = 2
READERS = [kind for kind in LEARNERS.names() if kind != "mlp"]
FAST = {("recurrent", "gradient"), ("transformer", "ridge")}
"""Pairs of such a learner and an updater whose tests are not slow ones: updaters have tests of their own."""
each_learner = pytest.mark.parametrize("kind", LEARNERS.names())
with_and_without_beliefs = pytest.mark.parametrize("believing", [False, True], ids=["counting", "believing"])
with_beliefs = pytest.mark.parametrize(
    "believing", [pytest.param(False, marks=pytest.mark.slow), True], ids=["counting", "believing"]
)
each_reader = pytest.mark.parametrize("kind", READERS)


def test_the_table_holds_every_learner_that_a_config_can_name():
    assert LEARNERS.names() == choices_of(typing.get_type_hints(LearnerConfig, include_extras=True)["kind"])


# One user, scored


class User(typing.NamedTuple):
    """A learner, parameters none of which is zero, and a user with 6 support slots (2 padded) and 4 rows to score."""

    learner: typing.Any
    fresh: typing.Any
    params: typing.Any
    context: Context
    rows: Features


@functools.cache
def user_of(kind, head="rating", dtype="float32", believing=False, **fields):
    rng, beliefs = np.random.default_rng(0), np.random.default_rng(1)
    config = learner_config(kind, **fields)
    learner = make_learner(config, head_of(head))
    embeddings = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    fresh = learner.init(
        jax.random.key(0),
        item_embeddings=embeddings[0],
        user_embeddings=embeddings[1],
        mean_rating=3.5,
        believed=believed_of(beliefs) if believing else None,
    )

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    def rows(n):
        count = rng.integers(0, 7, n)
        embedding, columns = normal(n, 5), [rng.uniform(1, 5, n) * count, count]
        if believing:  # a mean, the rest of the variance, and factors
            columns += [beliefs.uniform(1, 5, n), beliefs.uniform(0.3, 1, n), *beliefs.normal(size=(RANK, n))]
        return Features(embedding, jnp.asarray(np.stack(columns, 1), jnp.float32))

    rating, mask = jnp.asarray(rng.integers(1, 6, 6), jnp.float32), jnp.array([1.0, 1, 1, 1, 0, 0])
    moved = jax.tree.map(lambda w: w + 0.3 * normal(*w.shape).astype(w.dtype), fresh)
    return User(learner, fresh, moved, Context(normal(3), rows(6), rating, mask), rows(4))


def believed_of(rng):
    """What there is to start from where there are beliefs; profiles tell nothing until they are learned."""
    tastes = no_tastes(RANK, 3)
    choice = tastes["choice"] | {"kernel": np.float32(rng.normal(size=(RANK, RANK)))}
    return Believed(0.8, tastes | {"choice": choice})


def score(user, params=None, context=None, rows=None):
    """Outputs of `rows`; of the support where `rows` is "support"."""

    def outputs(params, context, rows):
        return user.learner.apply(params, context, context.support if rows is None else rows)

    chosen = user.rows if rows is None else None if isinstance(rows, str) else rows
    return outputs(params or user.params, context or user.context, chosen)


def reordered(context, order):
    support = jax.tree.map(lambda leaf: leaf[order], context.support)
    return context._replace(support=support, rating=context.rating[order], mask=context.mask[order])


@with_and_without_beliefs
@each_learner
@pytest.mark.parametrize("head", ["ordinal", "click"])
def test_it_starts_at_its_prior(kind, head, believing):
    user = user_of(kind, head, believing=believing)
    assert ("log_noise" in user.fresh["prior"]) == believing
    for rows, features in ((None, user.rows), ("support", user.context.support)):
        prior = prior_outputs(user.fresh["prior"], head_of(head), user.context, features, statistics=True)
        assert_close(score(user, user.fresh, rows=rows), prior)


@with_beliefs
@each_learner
def test_what_is_in_padded_slots_changes_nothing_and_an_empty_support_says_nothing(kind, believing):
    user = user_of(kind, believing=believing)
    context = user.context

    def spoiled(context):
        real = context.mask > 0
        support = Features(*(jnp.where(real[:, None], leaf, HUGE) for leaf in context.support))
        return context._replace(support=support, rating=jnp.where(real, context.rating, -HUGE))

    assert_equal(score(user, context=spoiled(context)), score(user))
    assert_close(score(user, context=spoiled(context), rows="support")[:4], score(user, rows="support")[:4])
    shorter = reordered(context, np.arange(4))
    assert_close(score(user, context=shorter), score(user))
    scattered = reordered(context, np.array([0, 4, 1, 2, 5, 3]))
    assert_close(score(user, context=scattered), score(user))
    nobody = context._replace(mask=jnp.zeros(6))
    found = score(user, context=nobody)
    assert np.isfinite(found).all()
    assert_equal(score(user, context=spoiled(nobody)), found)
    if kind != "mlp":  # an MLP that has not adapted knows of the support what its prior path does, and no more
        assert (np.asarray(score(user)) - found).std() > 1e-3


@with_and_without_beliefs
@each_learner
def test_only_a_recurrent_learner_minds_the_order_of_the_support(kind, believing):
    user = user_of(kind, believing=believing)
    found = score(user, context=reordered(user.context, np.array([2, 0, 3, 1, 4, 5])))
    if kind == "recurrent":
        assert np.abs(found - score(user)).max() > 1e-2
    else:
        assert_close(found, score(user))


@each_reader
def test_a_support_row_does_not_look_up_its_own_rating(kind):
    """Nor does a recurrent learner know later ones; what the bias knows is the prior's business."""
    user = user_of(kind, "rating", prior=False)

    def outputs(rating, context):
        context = context._replace(rating=rating)
        return user.learner.apply(user.params, context, context.support)[:, 0]

    def depends(context):
        return np.asarray(jax.jit(jax.jacrev(outputs))(context.rating, context))[:4, :4] != 0

    alone = user.context._replace(mask=user.context.mask.at[1:].set(0))
    assert not depends(alone)[0, 0]
    if kind == "recurrent":  # which has seen older rows: those are further on
        assert_equal(depends(user.context), np.triu(np.ones((4, 4), bool), k=1))
    else:
        assert depends(user.context)[~np.eye(4, dtype=bool)].all()
        assert score(user).shape == (4, 1)


@with_beliefs
@each_learner
def test_products_in_bfloat16_are_close_to_those_in_single_precision_and_the_rest_is_not_rounded(kind, believing):
    single = user_of(kind, believing=believing)
    half = user_of(kind, dtype="bfloat16", believing=believing, compute="bfloat16")
    found = score(half)
    assert found.dtype == jnp.float32
    wanted = np.asarray(score(single))
    assert 0 < np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half.params))
    assert (score(half, half.fresh) == score(single, single.fresh)).all(), "the prior path is not rounded"


@with_beliefs
@each_learner
def test_dropout_is_of_training_and_of_the_user(kind, believing):
    user = user_of(kind, "rating", believing=believing, dropout=0.5)
    plain = user_of(kind, "rating", believing=believing, dropout=0.0)
    assert_equal(score(user), score(plain))
    keys = jax.random.split(jax.random.key(1), 8)
    draws = [np.asarray(score(user, context=user.context._replace(key=key))) for key in keys]
    assert len({draw.tobytes() for draw in draws}) > 4  # of 8; four rows and a user can be kept in 32 ways
    assert_equal(score(user, context=user.context._replace(key=keys[0])), draws[0])


# Many users, through the inner loop


FORMS = {
    "factored": {"form": "factored"},
    "everything adapts": {
        "adapted": ("hidden/.*", "output/.*", "support/.*", "prior/log.*"),
        "form": "factored",
        "steps": 1,
    },
}


def case_of(learner, /, **more):
    case = tiny(**{"learner": learner, "head": "rating", "users": 2, "support": 3, "query": 2, "embedding": 2} | more)
    return case._replace(tables=Prepared(jnp.vstack([case.tables.items, jnp.full((1, 2), HUGE)]), case.tables.users))


def slope(case, loss):
    return jax.jit(lambda: jax.value_and_grad(loss)((case.trainable, case.tables)))()


def padded(case):
    """The batch with more slots, and nonsense in each that is no real one."""

    def longer(rows):
        mask, rating = (jnp.pad(leaf, [(0, 0), (0, 2)]) for leaf in (rows.mask, rows.rating))
        item, statistic = jnp.pad(rows.item, [(0, 0), (0, 2)]), jnp.pad(rows.statistic, [(0, 0), (0, 2), (0, 0)])
        return Rows(
            item=jnp.where(mask > 0, item, len(case.tables.items) - 1),
            rating=jnp.where(mask > 0, rating, -HUGE),
            mask=mask,
            statistic=jnp.where(mask[..., None] > 0, statistic, HUGE),
        )

    episodes = case.episodes
    return episodes._replace(support=longer(episodes.support), query=longer(episodes.query))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        pytest.param("transformer", "factored", marks=pytest.mark.slow),
        ("recurrent", "everything adapts"),
        pytest.param("transformer", "everything adapts", marks=pytest.mark.slow),
        pytest.param("recurrent", "factored", marks=pytest.mark.slow),
    ],
)
def test_the_loss_and_its_gradients_are_those_of_the_inner_loop_written_out(kind, form):
    """User by user and step by step, on arrays without padding, with full matrices, the support read in every step."""
    case = case_of(kind, **FORMS[form])
    episodes = padded(case)
    found = slope(case, lambda at: meta_loss(case.model, *at, episodes)[0])
    assert_close(found, slope(case, lambda at: written_out(case, *at)))
    _, (trainable, tables) = found
    of_support = jax.tree.leaves(trainable.theta["support"])
    assert all((leaf != 0).any() for leaf in of_support), "everything that reads is trained"
    assert (tables.items[-1] == 0).all(), "padding has no gradient"


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        pytest.param(kind, head, marks=[pytest.mark.slow] * (kind != "mlp"))
        for kind, head in zip(LEARNERS.names(), ["rating", "ordinal", "click"], strict=True)
    ],
)
def test_it_keeps_what_the_public_checks_ask_of_a_learner(kind, head):
    """Purity, independence of rows, users and padding, and a true meta-gradient, also of what reads the support."""
    adapted = ("hidden/.*", "output/.*") + (() if kind == "mlp" else ("support/layer_0/.*",))
    config = learner_config(kind, hidden=4, layers=1, width=4)
    assert check_learner(config, head=head, adapted=adapted) == LEARNER_PROPERTIES


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        pytest.param(kind, rule, marks=[pytest.mark.slow] * ((kind, rule) not in FAST))
        for kind in READERS
        for rule in [*UPDATERS.names(), "first", "reptile"]
    ],
)
def test_every_updater_adapts_it_and_the_outer_loop_trains_what_reads_the_support(kind, rule):
    options = {"order": rule} if rule in ("first", "reptile") else {"kind": rule}
    if rule == "ridge":
        options["adapted"] = ("output/.*",)
    case = case_of(kind, users=1, dtype=np.float32, **options)
    found = jax.jit(jax.value_and_grad(lambda at: meta_loss(case.model, at, *case[2:]), has_aux=True))(case.trainable)
    (loss, losses), gradient = found
    assert losses.stopped == case.model.steps + 1, "all went well"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, gradient)))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient.theta["support"]))


@pytest.mark.slow
@each_learner
def test_training_lowers_the_loss_in_micro_batches_too(kind):
    case = tiny(learner=kind, users=4, support=8, query=4, hidden=16, dtype=np.float32, learn_rate="no")
    optimiser = optax.adam(1e-2)
    state = TrainState(case.trainable, optimiser.init(case.trainable), jnp.int32(0), jax.random.key(0))
    step = jax.jit(make_step(case.model, optimiser, at_once=2))
    losses = []
    for _ in range(20):
        state, lost = step(state, case.tables, case.episodes)
        losses.append(float(lost.query / lost.rows))
    assert losses[-1] < 0.7 * losses[0]
    assert np.isfinite(jax.jit(lambda: predict(case.model, state.trainable, case.tables, case.episodes))()).all()
