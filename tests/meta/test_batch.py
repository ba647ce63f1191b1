"""A sum over users in micro-batches: the same numbers in less memory, by whatever way it is differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_equal, tiny

from metarec_jax.meta.batch import plan_batch, planned, sum_over_users
from metarec_jax.meta.outer import meta_loss
from metarec_jax.train.sharding import by_user, user_mesh


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "rule",
    [
        {"form": "factored"},
        pytest.param({"kind": "adam"}, marks=pytest.mark.slow),
        pytest.param({"order": "reptile"}, marks=pytest.mark.slow),
    ],
    ids=["gradient", "adam", "reptile"],
)
def test_the_size_of_a_micro_batch_changes_no_number(rule):
    """Of the loss, what is said of each user, and all gradients, embeddings included; with dropout."""
    case = tiny(users=8, head="rating", dropout=0.3, **rule)
    key = jax.random.key(2)

    def slope(at_once):
        def loss(at):
            return meta_loss(case.model, *at, case.episodes, key, at_once=at_once)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))((case.trainable, case.tables))

    whole = slope(0)
    assert_equal(whole[0][1].stopped, np.full(8, case.model.steps + 1, np.int32))
    for at_once in (1, 2, 4):
        assert_close(slope(at_once), whole)


def test_a_micro_batch_tells_which_user_diverged():
    """In the users' own order."""
    case = tiny(users=8, head="rating", dtype=np.float32)
    support = case.episodes.support
    episodes = case.episodes._replace(support=support._replace(rating=support.rating.at[5, 0].set(jnp.nan)))
    loss = jax.jit(lambda e: meta_loss(case.model, case.trainable, case.tables, e, at_once=2)[1].stopped)
    assert_equal(loss(episodes), np.where(np.arange(8) == 5, 0, case.model.steps + 1).astype(np.int32))


# The sum itself


def function(shared, task):
    return shared["a"] * jnp.sum(task["x"] ** 2) + shared["b"][task["i"]], task["x"][0]


def some(users=6):
    rng = np.random.default_rng(0)
    shared = {"a": jnp.asarray(0.5), "b": jnp.asarray(rng.normal(size=3)), "unused": jnp.arange(3)}
    tasks = {"x": jnp.asarray(rng.normal(size=(users, 2))), "i": jnp.asarray(rng.integers(0, 3, users))}
    return shared, tasks


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("compiled", [False, True], ids=["as it stands", "compiled"])
def test_the_sum_and_its_gradients_by_hand(compiled):
    shared, tasks = some()

    def total(a, b, x):
        value, rest = sum_over_users(function, shared | {"a": a, "b": b}, tasks | {"x": x}, at_once=2)
        return 3 * value, rest

    slope = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
    found = (jax.jit(slope) if compiled else slope)(shared["a"], shared["b"], tasks["x"])
    x, chosen = np.asarray(tasks["x"]), np.asarray(tasks["i"])
    value = 3 * (0.5 * np.sum(x**2) + np.asarray(shared["b"])[chosen].sum())
    of_b = 3.0 * np.bincount(chosen, minlength=3)
    assert_close(found, ((value, x[:, 0]), (3 * np.sum(x**2), of_b, 3 * x)))


def test_a_value_that_is_not_used_has_no_gradient():
    shared, tasks = some()
    gradient = jax.grad(lambda a: jnp.sum(sum_over_users(function, shared | {"a": a}, tasks, at_once=3)[1]))(1.0)
    assert gradient == 0


def test_a_size_that_does_not_divide_the_users_is_refused():
    with pytest.raises(ValueError, match="divisible"):
        sum_over_users(function, *some(), at_once=4)


def test_memory_is_that_of_a_micro_batch():
    """Four times the users, hardly more memory: what grows is what a user brings along."""

    def temporaries(users, at_once):
        case = tiny(
            users=users,
            support=8,
            embedding=64,
            hidden=32,
            head="rating",
            prior=False,
            dtype=np.float32,
            form="dense",
        )
        slope = jax.jit(jax.grad(lambda *at: meta_loss(case.model, *at, at_once=at_once)[0]))
        compiled = slope.lower(case.trainable, case.tables, case.episodes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    of_64 = temporaries(64, 8)
    assert of_64 < 1.5 * temporaries(16, 8)
    assert of_64 < 0.3 * temporaries(64, 0)


# Products


def met_by(*case):
    return dict(plan_batch(*case).met)


def products_by(*case):
    return planned(*case)[1]


@pytest.mark.usefixtures("x64")
def test_products_are_taken_of_the_kernels_that_no_user_changes():
    """By the learner's own use of them: shared ones, and adapted ones that are factored; of support, query and user."""
    case = tiny(users=4, support=2, query=2, embedding=9, hidden=7, form="factored")
    met = met_by(case.model, case.trainable.theta, case.tables, case.episodes)
    assert met == {"hidden/item/kernel": {"support", "query"}, "hidden/user/kernel": {"user"}}
    dense = case.model._replace(form="dense")
    assert met_by(dense, case.trainable.theta, case.tables, case.episodes) == {}
    anil = tiny(users=4, adapted=("output/.*",))
    assert set(met_by(anil.model, anil.trainable.theta, anil.tables, anil.episodes)) == set(met)
    products = products_by(case.model, case.trainable.theta, case.tables, case.episodes)
    items, kernel = case.tables.items, case.trainable.theta["hidden"]["item"]["kernel"]
    for name in ("support", "query"):
        rows = getattr(case.episodes, name).item
        assert_close(products[name]["hidden/item/kernel"], items[rows] @ kernel)
    users = case.tables.users[case.episodes.user] @ case.trainable.theta["hidden"]["user"]["kernel"]
    assert_close(products["user"]["hidden/user/kernel"], users)
    short = jax.tree.map(lambda leaf: leaf[:1], case.episodes)  # fewer rows than the table has: rows first
    assert_close(
        products_by(case.model, case.trainable.theta, case.tables, short)["support"],
        jax.tree.map(lambda leaf: leaf[:1], products["support"]),
    )


@pytest.mark.usefixtures("x64")
def test_a_device_multiplies_a_whole_table_only_where_its_own_users_have_as_many_rows():
    """Of eight devices each would multiply all of it, and the gradient of all of it would have to be added up."""
    case = tiny(users=8, support=2, query=2, embedding=9, hidden=7, form="factored")
    whole, rows = (len(case.tables.items), 7), (8, 4, 7)
    mesh = user_mesh()
    placed = jax.device_put(case.episodes, jax.NamedSharding(mesh, by_user(mesh)))

    def products(episodes):
        return products_by(case.model, case.trainable.theta, case.tables, episodes)

    def multiplied(episodes):
        dots = (eqn for eqn in jax.make_jaxpr(products)(episodes).eqns if eqn.primitive is jax.lax.dot_general_p)
        return {eqn.outvars[0].aval.shape for eqn in dots}

    alone = multiplied(case.episodes)
    assert whole in alone
    assert rows not in alone
    with jax.set_mesh(mesh):
        split = multiplied(placed)
        values = jax.jit(products)(placed)
    assert rows in split
    assert whole not in split
    assert_close(values, products(case.episodes))
