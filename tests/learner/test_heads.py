"""What outputs mean: losses against scikit-learn, points against brute force, priors by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_each_close, head_of
from sklearn.metrics import log_loss

from metarec_jax.core.errors import MetarecError
from metarec_jax.learner.contract import make_head
from metarec_jax.learner.heads import rating_head

STARS = (1.0, 2.0, 3.0, 4.0, 5.0)
HALVES = tuple(np.arange(1, 11) / 2)


def normal(*shape, seed=0, scale=2.0):
    return jnp.asarray(np.random.default_rng(seed).normal(scale=scale, size=shape), jnp.float32)


def probabilities(outputs):
    outputs = np.asarray(outputs, np.float64)
    odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def head_with(levels, kind="classes"):
    return make_head(kind, levels=levels, low=levels[0], high=levels[-1])


@pytest.mark.parametrize("levels", [STARS, HALVES])
def test_the_loss_of_classes_is_the_log_loss_of_the_level(levels):
    outputs = normal(40, len(levels))
    label = np.random.default_rng(1).integers(0, len(levels), 40)
    found = head_with(levels).loss(outputs, jnp.asarray(np.array(levels, np.float32)[label]))
    p = probabilities(outputs)
    for i in range(40):
        wanted = log_loss([label[i]], p[i : i + 1], labels=range(len(levels)))
        assert_each_close(found[i], wanted, tolerance=1e-5, floor=1e-6, because="differences of larger numbers")


@pytest.mark.parametrize("levels", [STARS, HALVES])
def test_the_ordinal_loss_is_the_mean_log_loss_of_all_thresholds(levels):
    outputs = normal(40, len(levels))
    label = np.random.default_rng(1).integers(0, len(levels), 40)
    found = head_with(levels, "ordinal").loss(outputs, jnp.asarray(np.array(levels, np.float32)[label]))
    p = probabilities(outputs)
    for i in range(40):
        below = np.cumsum(p[i])[:-1]
        wanted = np.mean([log_loss([label[i] <= c], [at_most], labels=[0, 1]) for c, at_most in enumerate(below)])
        assert_each_close(found[i], wanted, tolerance=1e-5, floor=1e-6, because="differences of larger numbers")


def test_the_ordinal_loss_minds_how_far_off_a_level_is():
    """Both distributions are wrong about a rating of 1; cross-entropy cannot tell them apart."""
    near, far = jnp.array([[0.0, 4, 0, 0, 0]]), jnp.array([[0.0, 0, 0, 0, 4]])
    one = jnp.array([1.0])
    assert head_of("classes").loss(near, one) == head_of("classes").loss(far, one)
    assert head_of("ordinal").loss(near, one) < 0.5 * head_of("ordinal").loss(far, one)


@pytest.mark.parametrize("levels", [STARS, HALVES])
def test_the_mean_of_classes_is_the_expectation_and_the_point_has_the_least_absolute_error(levels):
    head = head_with(levels)
    outputs = jnp.concatenate([normal(200, len(levels)), normal(20, len(levels), scale=100.0)])
    p, level = probabilities(outputs), np.array(levels)
    assert_each_close(head.mean(outputs), p @ level, tolerance=1e-6, because="a few roundings")
    error = p @ np.abs(level[:, None] - level)  # of predicting each level
    chosen = [list(level).index(x) for x in np.asarray(head.point(outputs))]
    assert (error[np.arange(220), chosen] <= error.min(axis=1) + 1e-6).all()
    assert set(chosen) == set(range(len(levels)))


@pytest.mark.parametrize("kind", ["classes", "ordinal"])
@pytest.mark.parametrize("outputs", [[-1e30, 0, 0, 0, 0], [0, 0, 0, 0, 1e30], [-200, -200, -200, -200, 0], [0] * 5])
def test_classes_survive_certainty(kind, outputs):
    head = head_of(kind)
    outputs = jnp.asarray([outputs], jnp.float32)
    for rating in STARS:
        loss, gradient = jax.value_and_grad(lambda o, r=rating: head.loss(o, jnp.array([r])).sum())(outputs)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()
    assert head.point(outputs)[0] in STARS
    assert 1 <= head.mean(outputs)[0] <= 5


def test_the_prior_of_classes_is_a_normal_density_around_item_mean_plus_bias():
    head = head_with(HALVES)
    params = head.init() | {"log_width": jnp.asarray(np.log(0.5), jnp.float32)}
    item_mean = jnp.array([1.2, 2.9, 3.3, 4.4])
    bias = jnp.array(0.3)
    outputs = head.prior(params, item_mean, bias)
    level, unit = np.array(HALVES), 4.5 / 4
    density = np.exp(-(((level - (np.asarray(item_mean)[:, None] + 0.3)) / unit) ** 2) / (2 * 0.5**2))
    assert_each_close(
        probabilities(outputs),
        density / density.sum(axis=1, keepdims=True),
        tolerance=1e-5,
        because="of outputs in float32",
    )
    np.testing.assert_array_equal(head.point(outputs), [1.5, 3.0, 3.5, 4.5])
    offset = jnp.arange(10.0)
    assert_each_close(
        head.prior(params | {"offset": offset}, item_mean, bias),
        outputs + offset[None],
        tolerance=1e-6,
        because="a few roundings",
    )


@pytest.mark.parametrize(
    ("low", "high", "unit"), [(1.0, 5.0, 1.0), (0.5, 5.0, 1.125), (0.0, 100.0, 25.0), (3.0, 3.0, 1.0)]
)
def test_a_rating_is_regressed_in_units_of_a_quarter_of_the_scale(low, high, unit):
    head = rating_head(low, high)
    rating = jnp.asarray(np.linspace(low, high, 7), jnp.float32)
    outputs = normal(7, 1)
    assert_each_close(head.loss(outputs, rating), (np.asarray(outputs)[:, 0] - np.asarray(rating) / unit) ** 2 / 2)
    wanted = np.clip(np.asarray(outputs)[:, 0] * unit, low, high)
    assert_each_close(head.mean(outputs), wanted, tolerance=1e-6, because="a few roundings")
    assert_each_close(head.point(outputs), wanted, tolerance=1e-6, because="a few roundings")
    assert_each_close(
        head.mean(head.prior({}, rating, jnp.array(0.0))), rating, tolerance=1e-6, because="a few roundings"
    )


def test_the_rating_prior_is_item_mean_plus_bias_within_the_scale():
    head = head_of("rating")
    prior = head.prior(head.init(), jnp.array([1.5, 3.0, 4.75]), jnp.array(0.5))
    assert_each_close(head.mean(prior), [2.0, 3.5, 5.0], tolerance=1e-6, because="a few roundings")


def test_the_loss_of_clicks_is_the_log_loss():
    head = head_of("click")
    outputs = normal(60, 1)
    click = np.random.default_rng(1).integers(0, 2, 60)
    p = 1 / (1 + np.exp(-np.asarray(outputs, np.float64)[:, 0]))
    found = head.loss(outputs, jnp.asarray(click, jnp.float32))
    assert_each_close(np.mean(found), log_loss(click, p), tolerance=1e-6, because="a few roundings")
    assert_each_close(head.mean(outputs), p)
    np.testing.assert_array_equal(head.point(outputs), p >= 0.5)
    extreme = head.loss(jnp.array([[200.0], [-200.0], [200.0]]), jnp.array([1.0, 0.0, 0.0]))
    assert_each_close(extreme, [0, 0, 200], floor=1e-6, because="softplus of 200 is 200 to a rounding")


def test_the_click_prior_is_the_items_log_odds_moved_by_the_users_bias():
    head = head_of("click")
    rate = np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32)
    without = head.prior({}, jnp.asarray(rate), jnp.array(0.0))
    assert_each_close(head.mean(without), np.clip(rate, 1e-3, 1 - 1e-3))
    with_bias = head.prior({}, jnp.asarray(rate), jnp.array(0.05))
    assert_each_close(with_bias - without, np.full((5, 1), 0.2))
    # Where the logistic function is steepest, a small bias moves the probability by as much.
    assert_each_close(head.mean(with_bias)[2], 0.55, floor=1e-3, because="of first order in the bias")


@pytest.mark.parametrize("kind", ["rating", "classes", "ordinal", "click"])
def test_the_user_bias_averages_what_lies_above_the_item_mean(kind):
    head = head_of(kind)
    np.testing.assert_array_equal(head.residual(jnp.array([0.25, 0.5]), jnp.array([1.0, 0.0])), [0.75, -0.5])
    assert head.outputs == {"rating": 1, "classes": 5, "ordinal": 5, "click": 1}[kind]


@pytest.mark.parametrize("kind", ["classes", "ordinal"])
@pytest.mark.parametrize("levels", [(), (4.0,)])
def test_classes_without_levels_are_refused_with_the_head_to_take(kind, levels):
    with pytest.raises(MetarecError, match=rf"learner\.head '{kind}' needs .*--learner\.head rating"):
        make_head(kind, levels=levels, low=1.0, high=5.0)
