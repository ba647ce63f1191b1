"""The closed form: against the textbook posterior by numpy, in primal and dual form, and its variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, quick_jit, tiny, user_of

from metarec_jax.errors import MetarecError
from metarec_jax.meta.partition import partition
from metarec_jax.meta.user import (
    Trainable,
    adapt_user,
    context_of,
    factor_user,
    features_of,
    masked_mean,
    variance_user,
)
from metarec_jax.types import Rows

pytestmark = pytest.mark.usefixtures("x64")
OUTPUT = ("output/.*",)


def ridge(**case):
    return tiny(**{"kind": "ridge", "adapted": OUTPUT, "head": "rating", "users": 2} | case)


def features(case, rows):
    """Hidden features of a user's rows with a 1 appended, and what the outputs are without the output layer."""
    theta = case.trainable.theta
    silent = theta | {"output": jax.tree.map(jnp.zeros_like, theta["output"])}
    hidden = theta["hidden"]
    embedding = np.asarray(case.tables.items)[np.asarray(rows.item)]
    user = np.asarray(case.tables.users[0] @ hidden["user"]["kernel"])
    h = np.maximum(embedding @ hidden["item"]["kernel"] + user + hidden["bias"], 0)
    h = h / np.sqrt(h.shape[-1])
    return np.concatenate([h, np.ones((len(h), 1))], axis=1), silent


def posterior(case, user=0):
    """(mean [width + 1, 1], covariance) of the output layer under squared error, by the textbook."""
    episode = user_of(case.episodes, user)
    context = context_of(case.tables, episode.user, episode.support)
    h, silent = features(case, episode.support)
    base = case.model.apply(silent, context, context.support)
    real = np.asarray(episode.support.mask) > 0
    phi = jax.tree.map(np.exp, case.trainable.phi)
    width = h.shape[1] - 1
    precision = np.diag(np.append(np.full(width, phi["log_precision"]["kernel"]), phi["log_precision"]["bias"]))
    output = case.trainable.theta["output"]
    prior = np.concatenate([output["kernel"], output["bias"][None]])
    target = np.asarray(episode.support.rating)[:, None] - np.asarray(base)
    h, target = h[real], target[real]
    inverse = h.T @ h / phi["log_noise"] + precision
    return np.linalg.solve(inverse, h.T @ target / phi["log_noise"] + precision @ prior), np.linalg.inv(inverse)


def adapted(case, user=0):
    episode = user_of(case.episodes, user)
    context = context_of(case.tables, episode.user, episode.support)
    kept = quick_jit(lambda: adapt_user(case.model, case.trainable, context).end["output"])()
    return np.concatenate([kept["kernel"], kept["bias"][None]])


@pytest.mark.parametrize(("support", "hidden"), [(3, 6), (9, 2), (4, 3)], ids=["dual", "primal", "as large"])
@pytest.mark.parametrize("steps", [1, 3])
def test_under_squared_error_one_step_is_the_posterior_mean(support, hidden, steps):
    case = ridge(support=support, hidden=hidden, steps=steps)
    for user in (0, 1):  # the second has padded slots
        case_of_user = case._replace(tables=case.tables._replace(users=case.tables.users[user:]))
        mean, _ = posterior(case_of_user, user)
        assert_close(adapted(case, user), mean, tolerance=1e-10)


@pytest.mark.parametrize("head", ["classes", "ordinal", "click"])
def test_under_other_losses_every_step_lowers_the_objective_down_to_its_minimum(head):
    case = ridge(head=head, users=1, support=6)
    episode = user_of(case.episodes, 0)
    context = context_of(case.tables, episode.user, episode.support)
    start, _ = partition(case.trainable.theta, OUTPUT)
    noise = jnp.exp(case.trainable.phi["log_noise"])
    precision = jax.tree.map(jnp.exp, case.trainable.phi["log_precision"])

    def objective(layer):
        outputs = case.model.apply(case.trainable.theta | {"output": layer}, context, context.support)
        loss = masked_mean(case.model.head.loss(outputs, context.rating), context.mask) * jnp.sum(context.mask)
        away = jax.tree.map(lambda w, w0, p: p * jnp.sum((w - w0) ** 2), layer, start["output"], precision)
        return loss / noise + sum(jax.tree.leaves(away)) / 2

    @quick_jit
    def walk():
        path = adapt_user(case.model._replace(steps=400), case.trainable, context)
        slope = jax.grad(objective)(path.end["output"])
        return jax.lax.map(objective, path.points["output"]), slope

    values, slope = walk()
    values = np.append(objective(start["output"]), values)
    assert (np.diff(values[:20]) < 0).all()
    assert values[0] - values[-1] > 1e-2
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)) < 1e-7


def test_the_predictive_variance_is_the_textbooks():
    case = ridge(support=5, query=4, hidden=3)
    episode = user_of(case.episodes, 0)
    context = context_of(case.tables, episode.user, episode.support)
    _, covariance = posterior(case)

    def variance(rows):
        return variance_user(case.model, case.trainable, context, rows)

    query = features_of(case.tables, episode.query, "query")
    h, _ = features(case, episode.query)
    wanted = np.exp(case.trainable.phi["log_noise"]) + np.sum(h @ covariance * h, axis=1)
    assert_close(variance(query), wanted, tolerance=1e-10)
    nothing = context._replace(mask=jnp.zeros_like(context.mask))
    assert (variance_user(case.model, case.trainable, nothing, query) > variance(query)).all(), "data teaches"


def test_a_user_with_an_empty_support_keeps_the_prior_mean():
    case = ridge(support=4)
    episode = user_of(case.episodes, 0)
    empty = Rows(*episode.support)._replace(mask=jnp.zeros(4))
    context = context_of(case.tables, episode.user, empty)
    kept = adapt_user(case.model, case.trainable, context).end["output"]
    assert_close(kept, case.trainable.theta["output"])


@pytest.mark.parametrize("patterns", [("hidden/.*", "output/.*"), ("output/kernel",), ("hidden/bias", "output/kernel")])
def test_anything_but_one_linear_layer_is_refused(patterns):
    case = ridge()
    adapted, _ = partition(case.trainable.theta, patterns)
    with pytest.raises(MetarecError, match=r"'ridge' solves for one linear layer.*updater\.adapted matches .*output"):
        case.model.updater.init(adapted)


def test_other_rules_know_of_no_variance():
    case = tiny(users=1)
    episode = user_of(case.episodes, 0)
    context = context_of(case.tables, episode.user, episode.support)
    with pytest.raises(MetarecError, match=r"no predictive variance: updater\.kind 'ridge' does"):
        variance_user(case.model, Trainable(*case.trainable), context, context.support)


def test_its_layer_is_no_matter_of_form():
    """The output layer's inputs change with theta only, yet they are no fixed rows: it is kept in full either way."""
    for form in ("auto", "factored"):
        case = ridge(form=form)
        episode = user_of(case.episodes, 0)
        context = context_of(case.tables, episode.user, episode.support)
        factoring, _ = factor_user(case.model, case.trainable.theta, context)
        assert factoring.spies == [None, None]
