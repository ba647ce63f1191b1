"""The closed form: against the textbook posterior by numpy, in primal and dual form, and its variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, head_of, tiny, user_of

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import partition
from metarec_jax.learner import mlp
from metarec_jax.meta.user import adapt_user, context_of, plan_user, variance_user

pytestmark = pytest.mark.usefixtures("x64")
OUTPUT = ("output/.*",)
SIZES = pytest.mark.parametrize(
    ("support", "hidden"), [(3, 6), (9, 2), (4, 3)], ids=["dual", "primal", "as many rows as weights"]
)


def ridge(**case):
    return tiny(**{"kind": "ridge", "adapted": OUTPUT, "head": "rating", "users": 2} | case)


def episode_and_context(case, user=0):
    episode = user_of(case.episodes, user)
    return episode, context_of(case.tables, episode.user, episode.support)


def variance_of(case, user=0):
    """(mask of the support, rows) -> predictive variance."""
    _, context = episode_and_context(case, user)
    return jax.jit(lambda mask, rows: variance_user(case.model, case.trainable, context._replace(mask=mask), rows))


def seen(case, rows):
    return mlp.Features(case.tables.items[rows.item], rows.statistic)


def layer(params):
    """Kernel and bias as one matrix [width + 1, outputs]."""
    return np.concatenate([params["kernel"], params["bias"][None]])


def hidden_features(case, user, rows):
    """[n, width + 1]: what the output layer multiplies, with a 1 for the bias."""
    first = case.trainable.theta["hidden"]
    of_user = case.tables.users[user] @ first["user"]["kernel"] + first["bias"]
    hidden = np.maximum(np.asarray(case.tables.items)[rows.item] @ first["item"]["kernel"] + of_user[None], 0)
    return np.concatenate([hidden / np.sqrt(hidden.shape[1]), np.ones((len(hidden), 1))], axis=1)


def posterior(case, user=0):
    """(mean, covariance) of the output layer under squared error, by the textbook, from a user's real rows.

    With noise ``s``, prior mean ``W0`` and precision ``P``: covariance ``(H^T H / s + P)^-1``, mean
    ``covariance (H^T y / s + P W0)`` (Bishop 2006, "Pattern recognition and machine learning", 3.50 and 3.51).
    """
    episode, context = episode_and_context(case, user)
    real = np.asarray(episode.support.mask) > 0
    theta = case.trainable.theta
    silent = theta | {"output": jax.tree.map(jnp.zeros_like, theta["output"])}
    without = np.asarray(case.model.apply(silent, context, context.support))  # the prior path of the head
    target = (np.asarray(episode.support.rating)[:, None] - without)[real]
    h = hidden_features(case, user, episode.support)[real]
    phi = jax.tree.map(np.exp, case.trainable.phi)
    noise = phi["log_noise"]
    of_kernel = np.full(h.shape[1] - 1, phi["log_precision"]["kernel"])
    precision = np.diag(np.append(of_kernel, phi["log_precision"]["bias"]))
    inverse = h.T @ h / noise + precision
    return np.linalg.solve(inverse, h.T @ target / noise + precision @ layer(theta["output"])), np.linalg.inv(inverse)


@SIZES
def test_under_squared_error_one_step_is_the_posterior_mean_and_more_change_nothing(support, hidden):
    case = ridge(support=support, hidden=hidden)

    for user in (0, 1):  # the second has a padded slot
        _, context = episode_and_context(case, user)
        path = jax.jit(lambda c=context: adapt_user(case.model._replace(steps=3), case.trainable, c))()
        mean, _ = posterior(case, user)
        for step in range(3):
            assert_close(layer(jax.tree.map(lambda leaf, step=step: leaf[step], path.points.moved["output"])), mean)
        assert np.abs(mean - layer(case.trainable.theta["output"])).max() > 0.1


def test_a_user_with_an_empty_support_keeps_the_prior_mean():
    case = ridge(support=4)
    _, context = episode_and_context(case)
    empty = context._replace(mask=jnp.zeros(4))
    kept = jax.jit(lambda: adapt_user(case.model, case.trainable, empty).end.moved["output"])()
    assert_close(kept, case.trainable.theta["output"])


@pytest.mark.parametrize("head", ["classes", "ordinal", "click"])
def test_under_other_losses_every_step_lowers_the_objective_down_to_its_minimum(head):
    """The objective that the docstring of the rule states: sums over rows, not means."""
    case = ridge(head=head, users=1, support=6)
    _, context = episode_and_context(case)
    start = case.trainable.theta["output"]
    noise = jnp.exp(case.trainable.phi["log_noise"])
    precision = jax.tree.map(jnp.exp, case.trainable.phi["log_precision"])

    def objective(output):
        outputs = case.model.apply(case.trainable.theta | {"output": output}, context, context.support)
        away = jax.tree.map(lambda w, w0, p: p * jnp.sum((w - w0) ** 2), output, start, precision)
        loss = jnp.sum(case.model.head.loss(outputs, context.rating) * context.mask)
        return loss / noise + sum(jax.tree.leaves(away)) / 2

    @jax.jit
    def walk():
        path = adapt_user(case.model._replace(steps=200), case.trainable, context)
        slope = jax.grad(objective)(path.end.moved["output"])
        return jnp.append(objective(start), jax.lax.map(objective, path.points.moved["output"])), slope

    values, slope = walk()
    change = np.diff(values)
    assert (change[:4] < 0).all()
    assert change.max() < 1e-13 * values[0], "at the minimum nothing is left but rounding"
    assert values[0] - values[-1] > 1e-2
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)) < 1e-8


@pytest.mark.parametrize("kind", ["rating", "classes", "ordinal", "click"])
def test_no_loss_is_more_curved_than_its_head_says(kind):
    """What the steps' descent rests on, at outputs that are small, large, and far apart."""
    head = head_of(kind)
    rng = np.random.default_rng(0)
    outputs = jnp.asarray(rng.normal(size=(200, head.outputs)) * 10 ** rng.uniform(-2, 1.5, (200, 1)))
    ratings = jnp.asarray(rng.integers(0, 2, 200) if kind == "click" else rng.integers(1, 6, 200), jnp.float64)

    @jax.jit
    @jax.vmap
    def greatest(output, rating):
        hessian = jax.hessian(lambda o: head.loss(o[None], rating[None])[0])(output)
        return jnp.linalg.eigvalsh(hessian)[-1]

    found = greatest(outputs, ratings)
    assert found.max() < head.curvature + 1e-12
    assert found.max() > head.curvature / 4, "the bound is not idle"


@SIZES
def test_the_predictive_variance_is_the_textbooks(support, hidden):
    case = ridge(support=support, hidden=hidden, query=4)
    noise = np.exp(case.trainable.phi["log_noise"])
    for user in (0, 1):
        episode, _ = episode_and_context(case, user)
        _, covariance = posterior(case, user)
        h = hidden_features(case, user, episode.query)
        found = variance_of(case, user)(episode.support.mask, seen(case, episode.query))
        assert_close(found, noise + np.sum(h @ covariance * h, axis=1))


def test_the_predictive_variance_shrinks_with_support_and_grows_away_from_it():
    case = ridge(support=5, hidden=3, query=4)
    episode, _ = episode_and_context(case)
    variance, query = variance_of(case), seen(case, episode.query)
    by_support = np.stack([variance((jnp.arange(5) < rows).astype(float), query) for rows in range(6)])
    assert (np.diff(by_support, axis=0) < 0).all()
    assert (by_support > np.exp(case.trainable.phi["log_noise"])).all(), "noise is left, however much one knows"

    support = seen(case, episode.support)
    near, far, farther = (
        variance(episode.support.mask, support._replace(embedding=times * support.embedding)) for times in (1, 10, 100)
    )
    assert (near < far).all()
    assert (far < farther).all()


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        (
            ("hidden/.*", "output/.*"),
            "hidden/bias, hidden/context/kernel, hidden/item/kernel, hidden/user/kernel, output/bias, output/kernel",
        ),
        (("output/kernel",), "output/kernel"),
        (("hidden/bias", "output/kernel"), "hidden/bias, output/kernel"),
        (("context/.*",), "context/value"),
    ],
)
def test_anything_but_one_linear_layer_is_refused(patterns, named):
    case = ridge(context=2)
    adapted, _ = partition(case.trainable.theta, patterns)
    with pytest.raises(MetarecError) as error:
        case.model.updater.init(adapted)
    assert "'ridge' solves for one linear layer, its kernel and its bias" in str(error.value)
    assert f"updater.adapted matches {named}: use --updater.adapted 'output/.*'" in str(error.value)


def test_other_rules_know_of_no_variance():
    case = tiny(users=1)
    _, context = episode_and_context(case)
    with pytest.raises(MetarecError, match=r"no predictive variance: updater\.kind 'ridge' does"):
        variance_user(case.model, case.trainable, context, context.support)


def test_its_layer_is_kept_in_full():
    """A solution is no sum of gradients: factors and matrices on their side are not for this rule."""
    case = ridge(form="auto")
    _, context = episode_and_context(case)
    kernel = case.trainable.theta["output"]["kernel"]
    assert plan_user(case.model, case.trainable.theta, context).forms == ("dense", "dense")
    assert adapt_user(case.model, case.trainable, context).end.moved["output"]["kernel"].shape == kernel.shape
    with pytest.raises(MetarecError, match="'factored' was asked for"):
        plan_user(ridge(form="factored").model, case.trainable.theta, context)
