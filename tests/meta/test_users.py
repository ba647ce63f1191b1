"""Users of a batch have nothing to do with each other, and padding has nothing to do with anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_equal, tiny

from metarec_jax.core.over_users import over_users
from metarec_jax.core.types import Prepared, Rows
from metarec_jax.meta.model import Shared, Task
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.user import lose_user

pytestmark = pytest.mark.usefixtures("x64")
CASES = (("rating", "dense"), ("ordinal", "factored"))
HUGE = 1e30


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    head, form = request.param
    return tiny(head=head, hidden=16, form=form)  # so wide that no row meets dead units only


def own_slots(rows, users, items):
    """bool [users, items]: which rows of the item table are a real slot of the user."""
    own = np.zeros((users, items), bool)
    for user in range(users):
        own[user, np.asarray(rows.item)[user][np.asarray(rows.mask)[user] > 0]] = True
    return own


def test_a_users_loss_depends_on_that_users_real_rows_and_on_nothing_else(case):
    """All gradients of every user's loss: exactly zero for other users' data and padded slots, and for nothing else."""
    users, items = len(case.episodes.user), len(case.tables.items)

    def losses(tables, support, query):
        """Query losses [users], as a function of embeddings, ratings and statistics."""
        episodes = case.episodes._replace(
            support=case.episodes.support._replace(rating=support[0], statistic=support[1]),
            query=case.episodes.query._replace(rating=query[0], statistic=query[1]),
        )
        shared = Shared(case.trainable, tables)
        return over_users(lambda e: lose_user(case.model, shared, Task(e)), episodes).query

    support, query = ((rows.rating, rows.statistic) for rows in (case.episodes.support, case.episodes.query))
    jacobian = jax.jit(jax.jacrev(losses, argnums=(0, 1, 2)))(case.tables, support, query)
    of_tables, of_support, of_query = jax.tree.map(np.asarray, jacobian)

    def depends(leaf, axes):
        """Whether each user's loss depends on each slot, bool."""
        return (leaf != 0).any(axis=tuple(range(axes, leaf.ndim)))

    own = own_slots(case.episodes.support, users, items) | own_slots(case.episodes.query, users, items)
    assert_equal(depends(of_tables.items, 2), own)
    assert_equal(depends(of_tables.users, 2), np.eye(users, dtype=bool))
    for rows, (of_rating, of_statistic) in ((case.episodes.support, of_support), (case.episodes.query, of_query)):
        real = np.eye(users, dtype=bool)[:, :, None] & (np.asarray(rows.mask) > 0)
        assert_equal(depends(of_statistic, 3), real)
        if case.model.head.outputs == 1:
            assert_equal(depends(of_rating, 3), real)
        else:  # a query rating names a class, which has no gradient
            assert_equal(depends(of_rating, 3), real & (rows is case.episodes.support))


def value_and_gradient(case):
    """(tables, episodes) -> loss and gradients; compiles for each shape once."""

    @jax.jit
    def function(tables, episodes):
        (loss, _), gradient = jax.value_and_grad(meta_loss, argnums=(1, 2), has_aux=True)(
            case.model, case.trainable, tables, episodes
        )
        return loss, gradient

    return function


def padded(rows, more):
    """`rows` with `more` slots that hold what the pipeline puts there."""

    def longer(leaf):
        return jnp.asarray(np.pad(leaf, [(0, 0), (0, more)] + [(0, 0)] * (leaf.ndim - 2)))

    return Rows(*map(longer, rows))


def spoiled(rows, item):
    """`rows` with nonsense in the padded slots."""
    real = np.asarray(rows.mask) > 0
    return Rows(
        item=jnp.where(real, rows.item, item),
        rating=jnp.where(real, rows.rating, -HUGE),
        mask=rows.mask,
        statistic=jnp.where(real[..., None], rows.statistic, HUGE),
    )


def test_what_a_batch_is_filled_up_with_and_how_it_is_ordered_changes_nothing(case):
    """Neither the loss nor any gradient: the order of users, nonsense in padded slots, longer buckets, empty users."""
    function = value_and_gradient(case)
    episodes = case.episodes
    # A row that no episode names, so that padded slots can point to it.
    tables = Prepared(jnp.vstack([case.tables.items, jnp.full((1, 3), HUGE)]), case.tables.users)
    last = len(tables.items) - 1
    wanted = function(tables, episodes)

    permuted = jax.tree.map(lambda leaf: leaf[np.array([2, 0, 1])], episodes)
    assert_close(function(tables, permuted), wanted)
    nonsense = episodes._replace(support=spoiled(episodes.support, last), query=spoiled(episodes.query, last))
    assert_close(function(tables, nonsense), wanted)

    longer = episodes._replace(support=padded(episodes.support, 3), query=padded(episodes.query, 2))
    assert_close(function(tables, longer), wanted)
    nonsense = longer._replace(support=spoiled(longer.support, last), query=spoiled(longer.query, last))
    assert_close(function(tables, nonsense), wanted)

    two = function(tables, jax.tree.map(lambda leaf: leaf[:2], episodes))
    assert_close(function(tables, episodes._replace(weight=jnp.array([1.0, 1.0, 0.0]))), two)
    # What the pipeline fills a batch up with: zeros, masks too.
    empty = jax.tree.map(lambda leaf: leaf.at[2].set(0), episodes)
    assert_close(function(tables, empty), two)
    loss, gradient = function(tables, jax.tree.map(jnp.zeros_like, episodes))
    assert loss == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_what_is_random_belongs_to_the_user_and_the_step():
    """Dropout is the same wherever in whatever batch a user stands, and other for another user or step."""
    case = tiny(head="rating", users=2, hidden=32, dropout=0.5)

    @jax.jit
    def losses(tables, episodes, key):
        shared = Shared(case.trainable, tables, key)
        return over_users(lambda e: lose_user(case.model, shared, Task(e)), episodes).query

    key = jax.random.key(3)
    found = losses(case.tables, case.episodes, key)
    swapped = jax.tree.map(lambda leaf: leaf[np.array([1, 0])], case.episodes)
    twins = jax.tree.map(lambda leaf: leaf[np.array([0, 0])], case.episodes)
    assert_close(losses(case.tables, swapped, key), found[np.array([1, 0])])
    assert_close(losses(case.tables, twins, key), found[np.array([0, 0])])
    assert (losses(case.tables, case.episodes, jax.random.fold_in(key, 1)) != found).all()
    # Two users with the same rows and the same text.
    tables = case.tables._replace(users=case.tables.users[np.array([0, 0])])
    one, other = losses(tables, twins._replace(user=case.episodes.user), key)
    assert_close(one, found[0])
    assert one != other
