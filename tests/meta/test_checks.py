"""The checks of a rule or a learner of one's own: each finds the fault that it is for, and names the remedy."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_says

from metarec_jax import meta
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Prepared
from metarec_jax.learner.contract import Learner
from metarec_jax.learner.mlp import MlpConfig
from metarec_jax.meta.learner_checks import LEARNER_PROPERTIES

RATE = meta.Rates(0.1)


def rule(step, init=lambda adapted: {}, start=meta.stateless, **more):
    return meta.Updater(init=init, start=start, step=step, **more)


def descent(change):
    """Gradient descent with the gradient changed by a function (gradient, index)."""

    def step(phi, state, adapted, gradient, index):
        return jax.tree.map(lambda w, g: w - 0.1 * change(g, index), adapted, gradient), state

    return step


def counting():
    calls = []

    def step(phi, state, adapted, gradient, index):
        calls.append(0)
        return jax.tree.map(lambda w, g: w - 0.1 / len(calls) * g, adapted, gradient), state

    return rule(step, elementwise=True)


def forgetful(precision):
    """iMAML whose problem has no pull to its start: its solution does not depend on where the steps begin."""
    made = meta.imaml(rate=0.3, precision=precision)

    def root(phi, start, adapted, gradient):
        return jax.tree.map(lambda w, g: g + precision * w, adapted, gradient)

    def step(phi, state, adapted, gradient, index):
        return jax.tree.map(lambda w, r: w - 0.3 * r, adapted, root(phi, state, adapted, gradient)), state

    return made._replace(init=lambda adapted: {}, step=step, root=root)


def unused(adapted):
    return {"rate": jnp.ones(()), "of_nothing": jnp.ones(3)}


def own_derivative(gradient, index):
    return gradient + jax.lax.stop_gradient(gradient) * gradient


FAULTY_RULES = {
    "Adam without eps_root": (
        meta.optax_rule(optax.scale_by_adam(), RATE),
        ["not finite", "hidden/kernel", "eps_root"],
    ),
    "a whole optimizer": (meta.optax_rule(optax.sgd(0.1), meta.Rates(1.0)), ["support loss rises", "sign"]),
    "iMAML without its start": (forgetful(2.0), ["meta-gradient by", "is zero", "theta/hidden/kernel", "start"]),
    "parameters that no step reads": (
        rule(descent(lambda g, i: g), init=unused),
        ["phi/of_nothing", "phi/rate", "is zero"],
    ),
    "an elementwise rule that does not say so": (
        rule(descent(lambda g, i: jnp.tanh(g))),
        ["low-rank", "full matrices", "elementwise=True"],
    ),
    "a constant derivative": (
        rule(descent(lambda g, i: jax.lax.stop_gradient(g)), elementwise=True),
        ["not the derivative", "theta/hidden/kernel", "stop_gradient"],
    ),
    "half a derivative": (rule(descent(own_derivative), elementwise=True), ["not the derivative", "stop_gradient"]),
    "a count in Python": (counting(), ["two programs", "state"]),
    "single precision": (
        rule(descent(lambda g, i: g), init=lambda adapted: {"rate": jnp.float32(1)}),
        ["phi has rate", "precision"],
    ),
    "another state": (
        rule(lambda phi, state, adapted, gradient, index: (adapted, (*state, index))),
        ["structure", "the state"],
    ),
    "decay without a gradient": (rule(descent(lambda g, i: g + 0.1)), ["gradient of zero", "output/bias"]),
}


@pytest.mark.parametrize(
    ("updater", "names"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (name == "iMAML without its start"), id=name)
        for name, case in FAULTY_RULES.items()
    ],
)
def test_a_faulty_rule_is_found(updater, names):
    with pytest.raises(MetarecError) as refused:
        meta.check_updater(updater)
    assert_says(str(refused.value), "the updater", *names)


class Changed(MlpConfig):
    """A small MLP, of whose functions some are changed."""

    changes: typing.ClassVar = {}

    def build(self, head):
        learner = super().build(head)
        return learner._replace(**{name: change(getattr(learner, name)) for name, change in self.changes.items()})


def made(**changes):
    return type("Faulty", (Changed,), {"changes": changes})(hidden=4)


def reading_padding(apply):
    return lambda params, context, rows: apply(params, context, rows) + 1e-3 * jnp.sum(context.rating)


def reading_others(apply):
    return lambda params, context, rows: apply(params, context, rows) - jnp.mean(apply(params, context, rows))


def drawing(apply):
    rng = np.random.default_rng(0)
    return lambda params, context, rows: apply(params, context, rows) * rng.uniform(0.9, 1.1)


def cutting(apply):
    return lambda params, context, rows: jax.lax.stop_gradient(apply(params, context, rows))


FAULTY_LEARNERS = {
    "a sum over padding": ({"apply": reading_padding}, ["padded slots", "mask"]),
    "rows that see each other": ({"apply": reading_others}, ["other rows beside it"]),
    "random numbers of NumPy": ({"apply": drawing}, ["two programs", "key"]),
    "no gradient": ({"apply": cutting}, ["theta/output/kernel", "is zero"]),
    "a vector": ({"apply": lambda apply: lambda *at: apply(*at)[:, 0]}, ["shape (3,)", "[rows, 1]"]),
}


@pytest.mark.parametrize(("changes", "names"), FAULTY_LEARNERS.values(), ids=FAULTY_LEARNERS)
def test_a_faulty_learner_is_found(changes, names):
    with pytest.raises(MetarecError) as refused:
        meta.check_learner(made(**changes))
    assert_says(str(refused.value), "the learner", *names)


def test_the_functions_of_a_learner_are_checked_too():
    def init(key, *, item_embeddings, **rest):
        return {"output": {"kernel": jnp.zeros((item_embeddings.shape[1], 1)), "bias": jnp.zeros(1)}}

    def apply(params, context, rows):
        return rows.embedding @ params["output"]["kernel"] + params["output"]["bias"][None]

    linear = Learner(init=init, prepare=lambda params, tables: Prepared(*tables), apply=apply)
    assert meta.check_learner(linear) == LEARNER_PROPERTIES
    assert meta.check_learner(made()) == LEARNER_PROPERTIES
