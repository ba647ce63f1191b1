"""The outer gradient is the true one: against finite differences, closed forms and explicit Hessians, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, finite_differences, head_of, tiny, user_of, written_out
from jax.flatten_util import ravel_pytree

from metarec_jax.core.params import combine, partition
from metarec_jax.core.types import Prepared
from metarec_jax.learner import mlp
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.updaters import Rates
from metarec_jax.meta.updaters.gradient import gradient_descent
from metarec_jax.meta.user import masked_mean

pytestmark = pytest.mark.usefixtures("x64")


def loss_of(case):
    """(trainable, tables) -> the meta loss of a tiny case."""
    return lambda at: meta_loss(case.model, *at, case.episodes)[0]


@pytest.mark.parametrize(
    "case",
    [
        {"head": "ordinal", "learn_rate": "layer-step", "form": "factored"},
        {"head": "rating", "learn_rate": "layer", "steps": 3, "form": "dense"},
        {"head": "click", "learn_rate": "no", "form": "factored", "prior": False},
        {"head": "classes", "adapted": ("hidden/user/.*", "prior/.*", "output/.*"), "form": "factored"},
    ],
    ids=["ordinal", "rating", "click", "classes, other parts"],
)
def test_the_meta_gradient_equals_finite_differences(case):
    """Of everything that is trained or may come to be: theta, phi, and the embeddings."""
    case = tiny(**case)
    theta = dict(case.trainable.theta)
    constant = {"input": theta.pop("input")}  # statistics of the data, which are not trained

    def function(at):
        trainable, tables = at
        return loss_of(case)((Trainable(trainable.theta | constant, trainable.phi), tables))

    at = (Trainable(theta, case.trainable.phi), case.tables)
    gradient = jax.jit(jax.grad(function))(at)
    assert_close(gradient, finite_differences(function, at), tolerance=1e-8, because="finite differences")
    moved = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[0].phi)]
    assert all(size > 0 for size in moved), "every learned rate matters"


@pytest.mark.parametrize(
    "case",
    [
        {"head": "classes", "order": "second", "form": "dense"},
        {"head": "ordinal", "order": "first", "form": "factored"},
        pytest.param({"head": "rating", "order": "second", "form": "factored"}, marks=pytest.mark.slow),
        pytest.param({"head": "click", "order": "first", "form": "dense"}, marks=pytest.mark.slow),
    ],
    ids=lambda case: "-".join(case.values()),
)
def test_the_compiled_batch_equals_the_loops_written_out(case):
    """A scan of steps, a vmap of users, masks, Gram space: the loss and every gradient are those without them."""
    case = tiny(**case, users=2)

    at = (case.trainable, case.tables)
    found, wanted = (
        jax.jit(jax.value_and_grad(function))(at)
        for function in (loss_of(case), lambda trainable_and_tables: written_out(case, *trainable_and_tables))
    )
    for part in (*found[1][0].theta["input"].values(), *wanted[1][0].theta["input"].values()):
        assert all((leaf == 0).all() for leaf in part.values()), "statistics of the data are not trained"
    assert_close(found, wanted)


def linear_model(order, steps, form):
    """Linear regression under half the squared error, with no features but the embedding."""
    return Model(
        apply=lambda params, context, rows: rows.embedding @ params["kernel"],
        head=head_of("rating"),  # from 1 to 5: its unit is 1
        updater=gradient_descent(Rates(0.3, "layer-step", steps)),
        adapted=("kernel",),
        steps=steps,
        order=order,
        form=form,
    )


def closed_form(w, rates, users, order):
    """Gradient of the mean query loss with respect to w and the logarithms of the rates, by hand.

    A step is  w <- w - a g  with  g = X^T (X w - y) / n,  so that a cotangent of its result, pulled back
    through it, is  (I - a X^T X / n)^T cotangent  for w,  and  -a g . cotangent  for log a.
    """
    of_w, of_rates, rows = np.zeros_like(w), np.zeros_like(rates), 0
    for x, y, query_x, query_y in users:
        now, gradients = w, []
        for rate in rates:
            gradients.append(x.T @ (x @ now - y) / len(y))
            now = now - rate * gradients[-1]
        cotangent = query_x.T @ (query_x @ now - query_y)
        for k in reversed(range(len(rates))):
            of_rates[k] -= rates[k] * gradients[k] @ cotangent
            if order == "second":
                cotangent = (np.eye(len(w)) - rates[k] * x.T @ x / len(y)).T @ cotangent
        of_w += cotangent
        rows += len(query_y)
    return of_w / rows, of_rates / rows


@pytest.mark.parametrize(
    ("steps", "order", "form"),
    [
        (1, "second", "dense"),
        (4, "second", "factored"),
        (4, "second", "dense"),
        (4, "first", "factored"),
    ],
)
def test_the_meta_gradient_of_linear_regression_equals_its_closed_form(steps, order, form):
    _, _, tables, episodes = tiny(head="rating", users=4, support=6, embedding=5)
    rng = np.random.default_rng(1)
    w, log_rates = rng.normal(size=5), np.log(rng.uniform(0.1, 0.5, steps))
    trainable = Trainable({"kernel": jnp.asarray(w[:, None])}, {"log_rate": {"kernel": jnp.asarray(log_rates)}})
    model = linear_model(order, steps, form)
    found = jax.jit(jax.grad(lambda t: meta_loss(model, t, tables, episodes)[0]))(trainable)

    def real(rows, user):
        mask = rows.mask[user] > 0
        return np.asarray(tables.items)[rows.item[user][mask]], rows.rating[user][mask]

    users = [(*real(episodes.support, u), *real(episodes.query, u)) for u in range(4)]
    of_w, of_rates = closed_form(w, np.exp(log_rates), users, order)
    assert_close(found, Trainable({"kernel": of_w[:, None]}, {"log_rate": {"kernel": of_rates}}))


@pytest.mark.parametrize("form", ["dense", "factored"])
def test_first_order_differs_from_second_by_exactly_the_hessian_term(form):
    """After one step of rate a:  g2 - g1 = -a H[:, adapted] g1[adapted],  H the Hessian of the support loss.

    The columns of parameters that do not adapt have no part in it; their rows have.
    """
    rate = 0.3
    case = tiny(head="classes", users=2, steps=1, learn_rate="no", rate=rate, form=form)
    model, tables, episode = case.model, case.tables, user_of(case.episodes, 1)
    theta = dict(case.trainable.theta)
    constant = {"input": theta.pop("input")}
    vector, unflatten = ravel_pytree(theta)
    adapted, shared = partition(theta, model.adapted)
    ones, zeros = jax.tree.map(jnp.ones_like, adapted), jax.tree.map(jnp.zeros_like, shared)
    is_adapted, _ = ravel_pytree(combine(ones, zeros))

    def plain(rows):
        return mlp.Features(tables.items[rows.item], rows.statistic)

    def loss(rows, vector):
        support = episode.support
        context = mlp.Context(tables.users[episode.user], plain(support), support.rating, support.mask)
        outputs = model.apply(unflatten(vector) | constant, context, plain(rows))
        return masked_mean(model.head.loss(outputs, rows.rating), rows.mask)

    def gradient(order):
        def loss(vector):
            trained = Trainable(unflatten(vector) | constant, case.trainable.phi)
            one = jax.tree.map(lambda leaf: leaf[None], episode)
            return meta_loss(model._replace(order=order), trained, tables, one)[0]

        return jax.grad(loss)(vector)

    @jax.jit
    def everything():
        first, second = gradient("first"), gradient("second")
        moved = vector - rate * is_adapted * jax.grad(lambda v: loss(episode.support, v))(vector)
        first_by_hand = jax.grad(lambda v: loss(episode.query, v))(moved)
        term = -rate * jax.hessian(lambda v: loss(episode.support, v))(vector) @ (is_adapted * first)
        return first, second, first_by_hand, term

    first, second, first_by_hand, term = everything()
    assert_close(first, first_by_hand)
    assert_close(second - first, term)
    for part in (is_adapted, 1 - is_adapted):
        assert jnp.abs(part * term).max() > 1e-4 * jnp.abs(part * first).max(), "the term is far from rounding"


def test_table_rows_that_no_episode_names_get_no_gradient():
    case = tiny(head="rating")
    more = Prepared(*(jnp.vstack([table, jnp.ones((2, 3))]) for table in case.tables))
    gradient = jax.jit(jax.grad(loss_of(case)))((case.trainable, more))[1]
    for table in gradient:
        assert (table[-2:] == 0).all()
        assert (jnp.abs(table).max(axis=1) > 0).sum() > 2
