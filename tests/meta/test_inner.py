"""The inner loop and the rule it follows, on losses whose steps one can take in one's head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, tiny, user_of

from metarec_jax.config import UpdaterConfig
from metarec_jax.meta import inner
from metarec_jax.meta.outer import adapt_user, context_of, predict
from metarec_jax.meta.updaters import gradient_descent, make_updater

pytestmark = pytest.mark.usefixtures("x64")


def square(w):
    return jnp.sum(w**2) / 2


def both(w):
    return w["a"] + w["b"]


def test_inner_steps_go_down():
    """The formula of the step is often printed with a plus sign."""
    updater = gradient_descent(rate=0.5, learn="no", steps=3)
    start = jnp.array([8.0, -4.0])
    adapted, losses = inner.adapt(jax.value_and_grad(square), updater, {}, start, steps=3)
    np.testing.assert_array_equal(adapted, [1.0, -0.5])
    np.testing.assert_array_equal(losses, [40.0, 10.0, 2.5])


def test_rates_of_each_layer_and_step_are_used_where_they_belong():
    start = {"a": jnp.array(1.0), "b": jnp.array(1.0)}

    def adapted(learn, **log_rates):
        updater = gradient_descent(rate=0.5, learn=learn, steps=2)
        assert_close(updater.init(start), {"log_rate": {name: np.full_like(log_rates[name], np.log(0.5)) for name in "ab"}})
        phi = {"log_rate": {name: jnp.asarray(value) for name, value in log_rates.items()}}
        return inner.adapt(jax.value_and_grad(both), updater, phi, start, steps=2)[0]

    found = adapted("layer-step", a=np.log([0.5, 0.25]), b=np.log([1.0, 2.0]))
    assert_close(found, {"a": np.array(0.25), "b": np.array(-2.0)})
    found = adapted("layer", a=np.log([0.5]), b=np.log([1.0]))
    assert_close(found, {"a": np.array(0.0), "b": np.array(-1.0)})
    updater = gradient_descent(rate=0.5, learn="no", steps=2)
    assert updater.init(start) == {}
    found = inner.adapt(jax.value_and_grad(both), updater, {}, start, steps=2)[0]
    assert_close(found, {"a": np.array(0.0), "b": np.array(0.0)})


@pytest.mark.parametrize("learn", ["no", "layer", "layer-step"])
def test_the_updater_is_the_one_that_the_config_describes(learn):
    start = {"w": jnp.array([4.0])}
    updater = make_updater(UpdaterConfig(steps=3, rate=0.25, learn_rate=learn))
    rates = jax.tree.leaves(updater.init(start))
    assert [r.shape for r in rates] == {"no": [], "layer": [(1,)], "layer-step": [(3,)]}[learn]
    loss = jax.value_and_grad(lambda w: square(w["w"]))
    adapted, _ = inner.adapt(loss, updater, updater.init(start), start, steps=3)
    assert_close(adapted, {"w": np.array([4 * 0.75**3])})


@pytest.mark.parametrize("learn", ["no", "layer", "layer-step"])
def test_no_steps_are_the_prior(learn):
    """Predictions are those of theta itself, whatever the support says, and no rate has a gradient."""
    case = tiny(head="rating", prior=False, steps=0, learn_rate=learn)
    found = predict(case.model, case.trainable, case.tables, case.episodes)
    other = case.episodes._replace(support=case.episodes.support._replace(rating=case.episodes.support.rating + 1))
    np.testing.assert_array_equal(found, predict(case.model, case.trainable, case.tables, other))
    context = context_of(case.tables, *(user_of(case.episodes, 0)[:2]))
    _, losses = adapt_user(case.model, case.trainable, context)
    assert losses.shape == (0,)
    stepped = tiny(head="rating", prior=False, steps=1, learn_rate=learn)
    assert np.abs(predict(stepped.model, stepped.trainable, case.tables, case.episodes) - found).max() > 0.1


def test_the_support_loss_falls_and_is_reported_before_each_step():
    case = tiny(head="rating", steps=4, rate=0.1, learn_rate="no")
    episode = user_of(case.episodes, 0)
    _, losses = adapt_user(case.model, case.trainable, context_of(case.tables, episode.user, episode.support))
    assert losses.shape == (4,)
    assert (np.diff(losses) < 0).all()
    none = case.model._replace(steps=1)
    _, first = adapt_user(none, case.trainable, context_of(case.tables, episode.user, episode.support))
    assert_close(first, losses[:1])
