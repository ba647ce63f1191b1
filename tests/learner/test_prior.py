"""The prior path with beliefs: Gaussian process regression, row for row, by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.learner import prior
from metarec_jax.learner.contract import make_head
from metarec_jax.learner.inputs import Context, Features

SUPPORT, REAL, QUERY, RANK = 7, 5, 4, 3
NOISE = 0.7


@pytest.fixture
def user():
    """(params, context, query rows): a user with 5 ratings, and 2 padded slots of NaN-free rubbish."""
    rng = np.random.default_rng(0)

    def rows(n):
        belief = np.concatenate(
            [rng.uniform(2, 5, (n, 1)), rng.uniform(0.1, 0.6, (n, 1)), rng.normal(size=(n, RANK))], axis=1
        )
        return Features(jnp.zeros((n, 2)), jnp.asarray(np.concatenate([np.zeros((n, 2)), belief], axis=1)))

    head = make_head("ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0), low=1, high=5)
    params = prior.init(head, 3.5, prior.Believed(NOISE, no_tastes(RANK, 2)))
    mask = jnp.asarray([1.0] * REAL + [0.0] * (SUPPORT - REAL))
    context = Context(jnp.asarray([0.5, -2.0]), rows(SUPPORT), jnp.asarray(rng.uniform(1, 5, SUPPORT)), mask)
    return params, context, rows(QUERY)


def by_gaussian_process(support, rating, query):
    """Mean and variance over functions, from kernels between items."""

    def parts(rows):
        known = np.asarray(rows, np.float64)[:, 2:]
        return known[:, 0], known[:, 1], known[:, 2:]

    (mean, rest, factors), (asked, own, wanted) = parts(support), parts(query)
    covariance = factors @ factors.T + np.diag(rest + NOISE)
    gain = (wanted @ factors.T) @ np.linalg.inv(covariance)
    variance = np.sum(wanted**2, axis=1) + own - np.sum(gain * (wanted @ factors.T), axis=1)
    return asked + gain @ (np.asarray(rating) - mean), variance


def test_it_is_gaussian_process_regression(user):
    params, context, query = user
    got = prior.posterior(params, context, query)
    want = by_gaussian_process(context.support.statistic[:REAL], context.rating[:REAL], query.statistic)
    assert_each_close(got, want)


def test_a_support_row_is_predicted_from_the_others(user):
    params, context, _ = user
    mean, variance = prior.posterior(params, context, context.support)
    for row in range(REAL):
        others = [i for i in range(REAL) if i != row]
        support = context.support.statistic
        want = by_gaussian_process(
            support[jnp.array(others)], context.rating[jnp.array(others)], support[row : row + 1]
        )
        assert_each_close((mean[row], variance[row]), np.ravel(want))


def test_without_support_it_is_what_is_believed(user):
    params, context, query = user
    mean, variance = prior.posterior(params, context._replace(mask=jnp.zeros(SUPPORT)), query)
    belief = np.asarray(query.statistic)[:, 2:]
    assert_each_close(mean, belief[:, 0], tolerance=1e-6, because="a few roundings")
    assert_each_close(
        variance, belief[:, 1] + np.sum(belief[:, 2:] ** 2, axis=1), tolerance=1e-6, because="a few roundings"
    )


def expecting(params, rng):
    """`params` that expect something of who chose what, and of a profile."""
    taste = {
        "choice": {
            "kernel": jnp.asarray(rng.normal(size=(RANK, RANK))),
            "middle": jnp.asarray(rng.normal(size=RANK)),
            "log_doubt": jnp.log(3.0),
        },
        "profile": {"kernel": jnp.asarray(rng.normal(size=(2, RANK)))},
    }
    return params | {"taste": taste}


def test_what_choices_and_profile_say_moves_the_mean_of_the_taste_before_any_rating(user):
    """As if the mean of every item were another one, for this user; rows are still predicted from the others."""
    params, context, query = user
    params = expecting(params, np.random.default_rng(1))
    taste, factors = params["taste"], np.asarray(context.support.statistic)[:REAL, 4:]
    chosen = (factors - np.asarray(taste["choice"]["middle"])).sum(axis=0) / (REAL + 3.0)
    expected = chosen @ taste["choice"]["kernel"] + context.embedding @ taste["profile"]["kernel"]

    def moved(rows):
        known = np.array(rows, np.float64)
        known[:, 2] += known[:, 4:] @ np.asarray(expected)
        return known

    support, asked = moved(context.support.statistic), moved(query.statistic)
    got = prior.posterior(params, context, query)
    assert_each_close(got, by_gaussian_process(support[:REAL], context.rating[:REAL], asked))
    mean, variance = prior.posterior(params, context, context.support)
    for row in range(REAL):
        others = [i for i in range(REAL) if i != row]
        want = by_gaussian_process(support[others], context.rating[jnp.array(others)], support[[row]])
        assert_each_close((mean[row], variance[row]), np.ravel(want))


def test_of_a_stranger_the_profile_alone_says_something(user):
    params, context, query = user
    params = expecting(params, np.random.default_rng(1))
    mean, _ = prior.posterior(params, context._replace(mask=jnp.zeros(SUPPORT)), query)
    belief = np.asarray(query.statistic)[:, 2:]
    said = belief[:, 2:] @ np.asarray(context.embedding @ params["taste"]["profile"]["kernel"])
    assert_each_close(mean, belief[:, 0] + said)


def test_padded_slots_change_nothing_and_have_no_gradient(user):
    params, context, query = user
    params = expecting(params, np.random.default_rng(1))

    def total(rating, statistic):
        changed = context._replace(rating=rating, support=context.support._replace(statistic=statistic))
        return jnp.sum(jnp.stack(prior.posterior(params, changed, query)))

    slopes = jax.grad(total, argnums=(0, 1))(context.rating, context.support.statistic)
    for slope in slopes:
        assert not np.asarray(slope)[REAL:].any()
        assert np.asarray(slope)[:REAL].any()


def test_what_was_made_of_the_support_before_is_used(user):
    params, context, query = user
    taste = prior.summarise({"prior": params}, context)
    again = prior.posterior(params, context._replace(taste=taste, rating=context.rating * 0), query)
    np.testing.assert_array_equal(again, prior.posterior(params, context, query))
    for name in ("log_noise", "log_gain", "taste"):
        assert prior.summarise({"prior": params | {name: None}}, context) is None
    assert prior.summarise({}, context) is None


@pytest.mark.parametrize("kind", ["ordinal", "classes"])
def test_levels_have_the_probabilities_of_a_logistic_distribution(kind):
    head = make_head(kind, levels=(1.0, 2.0, 3.0, 4.0, 5.0), low=1, high=5)
    params = head.init_believed(NOISE)
    mean, variance = jnp.asarray([1.2, 3.4, 9.0, -40.0]), jnp.asarray([0.1, 0.5, 0.2, 0.1])
    outputs = head.believed(params, mean, variance)
    probability = np.exp(np.asarray(outputs, np.float64))
    assert_each_close(probability.sum(axis=1), 1, tolerance=1e-5, because="of outputs in float32")
    scale = np.sqrt((NOISE + np.asarray(variance)) * 3 / np.pi**2)
    above = 1 / (1 + np.exp(-(np.asarray(mean)[:, None] - [1.5, 2.5, 3.5, 4.5]) / scale[:, None]))
    assert_each_close(
        probability[:, ::-1].cumsum(axis=1)[:, :-1][:, ::-1],
        above,
        tolerance=1e-4,
        floor=1e-7,
        because="of outputs in float32",
    )
    assert np.isfinite(outputs).all()


def test_other_heads_say_what_is_believed():
    rating = make_head("rating", levels=(), low=0.0, high=8.0)
    assert_each_close(
        rating.mean(rating.believed({}, jnp.asarray([3.0]), jnp.ones(1))),
        [3.0],
        tolerance=1e-6,
        because="a few roundings",
    )
    click = make_head("click", levels=(), low=0.0, high=1.0)
    assert_each_close(
        click.mean(click.believed({}, jnp.asarray([0.3]), jnp.ones(1))),
        [0.3],
        tolerance=1e-6,
        because="a few roundings",
    )
