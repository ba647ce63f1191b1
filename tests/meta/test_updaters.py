"""What every updater keeps, in one list of checks that runs over the table of all of them.

Each entry is compared with the same thing written out (loops, dense equations), and with itself: padded, in
micro-batches, on eight devices. Its contract is what `check_updater` checks.
"""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Tiny, assert_close, assert_equal, tiny, written_out
from jax.flatten_util import ravel_pytree

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.params import combine, partition
from metarec_jax.core.types import Episodes, Prepared, Rows
from metarec_jax.meta.learner_checks import spoil
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import meta_loss, predict
from metarec_jax.meta.updater_checks import PROPERTIES, check_updater
from metarec_jax.meta.updaters import make_updater
from metarec_jax.meta.user import context_of, inputs_of
from metarec_jax.train.sharding import replicate, shard_users, user_mesh

RULES = {
    "gradient": {"learn_rate": "no", "form": "dense"},
    "gradient-layer": {"learn_rate": "layer", "form": "factored", "head": "click"},
    "gradient-layer-step": {"prior": True},
    "gradient-first-order": {"order": "first", "form": "factored"},
    "reptile": {"order": "reptile", "form": "factored"},
    "anil": {"adapted": ("output/.*",), "head": "classes"},
    "boil": {"adapted": ("hidden/.*",), "form": "factored"},
    "cavia": {"adapted": ("context/.*",), "context": 2},
    "momentum": {"kind": "momentum", "form": "factored"},
    "meta-sgd": {"kind": "meta-sgd"},
    "adam": {"kind": "adam"},
    "rmsprop": {"kind": "rmsprop", "seed": 5},
    "adagrad": {"kind": "adagrad"},
    "learned": {"kind": "learned"},
    # The minimum of a network with ReLUs may lie on a kink, where no gradient is zero and steps go to and fro. Drawn to
    # theta as strongly as this, and with this seed, no user's does.
    "imaml": {"kind": "imaml", "steps": 200, "rate": 0.12, "precision": 4.0, "seed": 6},
    "amortised": {"kind": "amortised", "form": "factored"},
    "ridge-rating": {"kind": "ridge", "adapted": ("output/.*",)},
    "ridge-ordinal": {"kind": "ridge", "adapted": ("output/.*",), "head": "ordinal"},
}
ALIKE = {"gradient-layer", "boil", "rmsprop", "adagrad"}
"""Rules that are computed as another of the list is: slow tests."""
USERS = 16
HUGE = 1e30


def case_of(name, **more):
    return tiny(
        **({"head": "rating", "prior": False, "users": USERS, "embedding": 2, "hidden": 3} | RULES[name] | more)
    )


def with_huge_row(tables):
    """`tables` with one more row of items, which no real slot names, and whose numbers would show."""
    return Prepared(jnp.vstack([tables.items, jnp.full_like(tables.items[:1], HUGE)]), tables.users)


def padded(rows, more, item):
    """`rows` with `more` slots, and nonsense in each that is no real one."""

    def longer(leaf):
        return jnp.pad(leaf, [(0, 0), (0, more)] + [(0, 0)] * (leaf.ndim - 2))

    return spoil(Rows(*map(longer, rows)), item)


def slope(model, at_once=0):
    """(trainable, tables, episodes) -> ((loss, losses), gradients of everything)."""

    def loss(at, episodes):
        return meta_loss(model, *at, episodes, at_once=at_once)

    return lambda trainable, tables, episodes: jax.value_and_grad(loss, has_aux=True)((trainable, tables), episodes)


class Compiled(typing.NamedTuple):
    """One rule in float64, and the program that several tests call: a program is what takes time.

    Attributes:
        case: the users as they are drawn, and a row of items that none of them names.
        padded: the same users, with more slots and nonsense in all that are not real.
        slope: (padded episodes) -> loss, losses and gradients.
    """

    case: Tiny
    padded: Episodes
    slope: typing.Callable


@functools.cache
def compiled(name):
    case = case_of(name)
    case = case._replace(tables=with_huge_row(case.tables))
    last = len(case.tables.items) - 1
    episodes = case.episodes._replace(
        support=padded(case.episodes.support, 2, last), query=padded(case.episodes.query, 1, last)
    )
    function = jax.jit(slope(case.model))
    return Compiled(case, episodes, lambda episodes: function(case.trainable, case.tables, episodes))


def only(users, episodes):
    """`episodes` in which no other user than these counts."""
    return episodes._replace(weight=jnp.zeros(USERS).at[jnp.array(users)].set(1.0))


def each_rule(slow):
    """Run a test for each rule of the list; those of `slow` only in `make test-all`."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in RULES]
    )


# The table


def test_the_table_holds_every_updater_that_a_config_can_name():
    assert {rule.get("kind", "gradient") for rule in RULES.values()} == set(UPDATERS.names())


@pytest.mark.parametrize("kind", UPDATERS.names())
def test_the_config_knows_which_updaters_need_matrices_in_full(kind):
    assert make_updater(UpdaterConfig(kind=kind)).elementwise == UPDATERS.get(kind).elementwise


# The truth of values and gradients


def loss_at(case, user, rows, theta, tables):
    """Mean loss of a user's real support or query rows at these parameters, without any inner loop."""
    episodes = jax.tree.map(lambda leaf: np.asarray(leaf)[user : user + 1], case.episodes)
    plain = case._replace(model=case.model._replace(steps=0), episodes=episodes._replace(query=getattr(episodes, rows)))
    return written_out(plain, Trainable(theta, case.trainable.phi), tables)


def users_that_count(case):
    return np.flatnonzero(case.episodes.weight).tolist()


def mean_over_rows(case, by_user):
    """The mean of a tree of each user, weighed by query rows, as sums of losses are."""
    rows = np.asarray(case.episodes.query.mask).sum(axis=1)[users_that_count(case)]
    return jax.tree.map(lambda *leaves: sum(n * leaf for n, leaf in zip(rows, leaves)) / rows.sum(), *by_user)


def written_out_slope(case):
    return jax.value_and_grad(lambda at: written_out(case, *at))((case.trainable, case.tables))


def reptile_slope(case):
    """Adapted parameters: minus the mean way of the users. All else: the query loss where the ways end."""
    (theta, phi, *_), tables = case.trainable, case.tables
    adapted, shared = partition(theta, case.model.adapted)
    by_user = []
    for user in users_that_count(case):
        now, state = adapted, ()
        for step in range(case.model.steps):
            gradient = jax.grad(lambda now, u=user: loss_at(case, u, "support", combine(now, shared), tables))(now)
            now, state = case.model.updater.step(phi, state, now, gradient, jnp.asarray(step))

        def query(shared, tables, now=now, user=user):
            return loss_at(case, user, "query", combine(now, shared), tables)

        value, (of_shared, of_tables) = jax.value_and_grad(query, argnums=(0, 1))(shared, tables)
        back = jax.tree.map(jnp.subtract, adapted, now)
        by_user.append((value, (Trainable(combine(back, of_shared), jax.tree.map(jnp.zeros_like, phi)), of_tables)))
    return mean_over_rows(case, by_user)


def implicit_slope(case):
    """By the implicit function theorem, with the Hessian of the regularised support loss as a matrix."""
    (theta, phi, *_), tables = case.trainable, case.tables
    adapted, shared = partition(theta, case.model.adapted)
    start, unflatten = ravel_pytree(adapted)
    others = (phi, start, shared, tables)
    by_user = []
    for user in users_that_count(case):

        def loss(w, shared, tables, rows, user=user):
            return loss_at(case, user, rows, combine(unflatten(w), shared), tables)

        def regularised(w, phi, start, shared, tables, loss=loss):
            pull = jnp.exp(phi["log_precision"]) / 2 * jnp.sum((w - start) ** 2)
            return loss(w, shared, tables, "support") + pull

        slope = jax.grad(regularised)
        w = jax.lax.fori_loop(0, 400, lambda _, w, slope=slope: w - 0.1 * slope(w, *others), start)
        value, (of_w, *direct) = jax.value_and_grad(loss, argnums=(0, 1, 2))(w, shared, tables, "query")
        solved = jnp.linalg.solve(jax.hessian(regularised)(w, *others), of_w)
        _, through = jax.vjp(lambda *others, w=w, slope=slope: slope(w, *others), *others)
        of_phi, of_start, *indirect = through(-solved)
        of_shared, of_tables = jax.tree.map(jnp.add, direct, indirect)
        by_user.append((value, (Trainable(combine(unflatten(of_start), of_shared), of_phi), of_tables)))
    return mean_over_rows(case, by_user)


REFERENCES = {"imaml": implicit_slope, "reptile": reptile_slope}


@pytest.mark.usefixtures("x64")
@each_rule(slow=ALIKE)
def test_the_loss_and_its_gradients_are_those_of_the_rule_written_out(name):
    """Of theta, phi and embeddings: without a scan, a vmap, factors, masks, and slots that hold nonsense."""
    case, episodes, function = compiled(name)
    two = case._replace(episodes=only([0, 1], case.episodes))
    wanted = jax.jit(lambda: REFERENCES.get(name, written_out_slope)(two))()
    (value, _), gradient = function(only([0, 1], episodes))
    assert_close((value, gradient), wanted)


# Users, padding, micro-batches, devices


@pytest.mark.usefixtures("x64")
@each_rule(slow=RULES.keys() - {"gradient-layer-step", "reptile", "cavia", "momentum", "ridge-ordinal", "amortised"})
def test_users_are_independent_and_what_is_no_users_own_changes_nothing(name):
    """Users that fill up the batch, users that are left out of it, and one whose support is empty."""
    case, episodes, function = compiled(name)

    def of_users(users, episodes):
        """Sums over these users' rows: loss and gradients."""
        (_, losses), gradient = function(only(users, episodes))
        return losses.query, jax.tree.map(lambda leaf: leaf * losses.rows, gradient)

    def added(one, other):
        return jax.tree.map(jnp.add, one, other)

    both = of_users([0, 1], episodes)
    assert_close(added(of_users([0], episodes), of_users([1], episodes)), both)
    assert_close(of_users([0, 1], jax.tree.map(lambda leaf: leaf.at[2:].set(0), episodes)), both)

    unseen = spoil(episodes.support._replace(mask=episodes.support.mask.at[1].set(0)), item=len(case.tables.items) - 1)
    bare = episodes._replace(support=unseen)
    assert_equal(of_users([0], bare), of_users([0], episodes))
    _, (_, tables) = alone = of_users([1], bare)
    assert_close(of_users([0, 1], bare), added(of_users([0], bare), alone))
    query = case.episodes.query
    assert set(np.flatnonzero(tables.items.any(axis=1))) == set(query.item[1][query.mask[1] > 0].tolist())
    (_, losses), _ = function(bare)
    assert (losses.stopped == case.model.steps + 1).all(), "all went well"


@pytest.mark.usefixtures("x64")
@each_rule(slow=RULES.keys() - {"gradient-layer-step", "ridge-ordinal"})
def test_micro_batches_on_eight_devices_give_what_the_whole_batch_gives_on_one(name):
    """The loss, every gradient, and what is said about each user (see also `test_batch`)."""
    case, episodes, function = compiled(name)
    found = on(8, jax.jit(slope(case.model, at_once=8)), case.trainable, case.tables, episodes)
    assert_close(found, jax.device_get(function(episodes)))


def on(devices, function, trainable, tables, episodes):
    mesh = user_mesh(devices)
    with jax.set_mesh(mesh):
        trainable, tables = replicate(mesh, (trainable, tables))
        return jax.device_get(function(trainable, tables, shard_users(mesh, episodes)))


@pytest.mark.parametrize("name", ["gradient-layer-step", pytest.param("imaml", marks=pytest.mark.slow), "ridge-rating"])
def test_one_device_and_eight_give_the_same_numbers_in_single_precision(name):
    """The loss, its gradients, and predictions: of a rule of each sort that is computed in its own way."""
    case = case_of(name, dtype=np.float32)

    @jax.jit
    def function(*at):
        return slope(case.model)(*at), predict(case.model, *at)

    at = (case.trainable, case.tables, case.episodes)
    assert_close(on(8, function, *at), on(1, function, *at))


# The contract


CONTRACTS = {
    "gradient": {"learn_rate": "no"},
    "gradient-layer": {"learn_rate": "layer"},
    "gradient-layer-step": {"learn_rate": "layer-step"},
    **{kind: {"kind": kind} for kind in UPDATERS.names() if kind != "gradient"},
    "imaml": {"kind": "imaml", "precision": 4.0},
    "ridge": {"kind": "ridge", "adapted": ("output/.*",)},
}


@pytest.mark.parametrize("rule", CONTRACTS.values(), ids=CONTRACTS)
def test_a_rule_keeps_its_contract(rule):
    """In float64, with the checks that are public: purity, types, independence, and a meta-gradient that is true."""
    options = {"steps": 3, "rate": 0.1} | rule
    updater = make_updater(UPDATERS.get(options.get("kind", "gradient"))(**options))
    found = check_updater(updater, adapted=options.get("adapted", (".*",)))
    assert found == PROPERTIES[: -1 if updater.elementwise else None]


@pytest.mark.parametrize("rule", CONTRACTS.values(), ids=CONTRACTS)
def test_a_rule_keeps_single_precision(rule):
    updater = make_updater(UPDATERS.get(rule.get("kind", "gradient"))(**{"steps": 3} | rule))
    case = case_of("ridge-rating" if "adapted" in rule else "gradient", dtype=np.float32, users=1)
    adapted, _ = partition(case.trainable.theta, case.model.adapted)
    phi = updater.init(adapted)
    assert all(leaf.dtype == np.float32 and not leaf.weak_type for leaf in jax.tree.leaves(phi))
    context = context_of(case.tables, *(jax.tree.map(lambda leaf: leaf[0], case.episodes)[:2]))

    def step():
        state = updater.start(phi, adapted, lambda: inputs_of(case.model, case.trainable.theta, context))
        return (adapted, state), updater.step(phi, state, adapted, adapted, jnp.zeros((), jnp.int32))

    given, returned = jax.eval_shape(step)
    assert jax.tree.map(jnp.dtype, given) == jax.tree.map(jnp.dtype, returned)
