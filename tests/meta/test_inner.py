"""The inner loop and the rule it follows, on losses whose steps one can take in one's head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, tiny, user_of

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.meta import inner
from metarec_jax.meta.outer import predict
from metarec_jax.meta.updaters import Rates, make_updater
from metarec_jax.meta.updaters.gradient import gradient_descent
from metarec_jax.meta.user import adapt_user, context_of, features_of

pytestmark = pytest.mark.usefixtures("x64")


def square(w):
    return jnp.sum(w**2) / 2


def both(w):
    return w["a"] + w["b"]


def test_inner_steps_go_down():
    """The formula of the step is often printed with a plus sign."""
    updater = gradient_descent(Rates(0.5, "no", 3))
    start = jnp.array([8.0, -4.0])
    path = inner.adapt(jax.value_and_grad(square), updater, {}, start, steps=3)
    np.testing.assert_array_equal(path.end, [1.0, -0.5])
    np.testing.assert_array_equal(path.points, [[4.0, -2.0], [2.0, -1.0], [1.0, -0.5]])
    np.testing.assert_array_equal(path.losses, [40.0, 10.0, 2.5])


def test_rates_of_each_layer_and_step_are_used_where_they_belong():
    start = {"a": jnp.array(1.0), "b": jnp.array(1.0)}

    def adapted(learn, **log_rates):
        updater = gradient_descent(Rates(0.5, learn, 2))
        assert_close(
            updater.init(start), {"log_rate": {name: np.full_like(log_rates[name], np.log(0.5)) for name in "ab"}}
        )
        phi = {"log_rate": {name: jnp.asarray(value) for name, value in log_rates.items()}}
        return inner.adapt(jax.value_and_grad(both), updater, phi, start, steps=2).end

    found = adapted("layer-step", a=np.log([0.5, 0.25]), b=np.log([1.0, 2.0]))
    assert_close(found, {"a": np.array(0.25), "b": np.array(-2.0)})
    found = adapted("layer", a=np.log([0.5]), b=np.log([1.0]))
    assert_close(found, {"a": np.array(0.0), "b": np.array(-1.0)})
    updater = gradient_descent(Rates(0.5, "no", 2))
    assert updater.init(start) == {}
    found = inner.adapt(jax.value_and_grad(both), updater, {}, start, steps=2).end
    assert_close(found, {"a": np.array(0.0), "b": np.array(0.0)})


@pytest.mark.parametrize("learn", ["no", "layer", "layer-step"])
def test_the_updater_is_the_one_that_the_config_describes(learn):
    start = {"w": jnp.array([4.0])}
    updater = make_updater(UpdaterConfig(steps=3, rate=0.25, learn_rate=learn))
    rates = jax.tree.leaves(updater.init(start))
    assert [r.shape for r in rates] == {"no": [], "layer": [(1,)], "layer-step": [(3,)]}[learn]
    loss = jax.value_and_grad(lambda w: square(w["w"]))
    adapted = inner.adapt(loss, updater, updater.init(start), start, steps=3).end
    assert_close(adapted, {"w": np.array([4 * 0.75**3])})


@pytest.mark.parametrize("learn", ["no", "layer-step"])
def test_no_steps_are_the_prior(learn):
    """Predictions are those of theta itself, whatever the support says."""

    def predictions(case, episodes):
        return jax.jit(lambda e: predict(case.model, case.trainable, case.tables, e))(episodes)

    case = tiny(head="rating", prior=False, steps=0, learn_rate=learn)
    support = case.episodes.support
    other = case.episodes._replace(support=support._replace(rating=support.rating + 1))
    found = predictions(case, case.episodes)
    np.testing.assert_array_equal(found, predictions(case, other))
    rows = features_of(case.tables, jax.tree.map(lambda leaf: leaf[0], case.episodes.query), "query")
    context = context_of(case.tables, case.episodes.user[0], jax.tree.map(lambda leaf: leaf[0], support))
    by_hand = jax.jit(lambda: case.model.apply(case.trainable.theta, context, rows))()
    assert_close(found[0], by_hand)
    stepped = tiny(head="rating", prior=False, steps=1, learn_rate=learn)
    assert np.abs(predictions(stepped, case.episodes) - found).max() > 0.1


def test_the_support_loss_falls_and_is_reported_before_each_step():
    case = tiny(head="rating", steps=4, rate=0.1, learn_rate="no")
    episode = user_of(case.episodes, 0)

    def losses(steps):
        context = context_of(case.tables, episode.user, episode.support)
        return jax.jit(lambda: adapt_user(case.model._replace(steps=steps), case.trainable, context).losses)()

    four = losses(4)
    assert four.shape == (4,)
    assert (np.diff(four) < 0).all()
    assert_close(losses(1), four[:1])
    assert losses(0).shape == (0,)
