"""Gram space is the dense path, exactly: values and every gradient, over a range of shapes, masks, rules and heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, quick_jit, tiny, user_of
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax.errors import MetarecError
from metarec_jax.learner import mlp
from metarec_jax.learner.fixed import Fixed
from metarec_jax.meta.batch import over_users
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.user import adapt_user, apply_user, context_of, factor_user

RULES = (
    {"learn_rate": "no"},
    {"learn_rate": "layer"},
    {"learn_rate": "layer-step"},
    {"kind": "momentum", "learn_rate": "layer-step"},
    {"kind": "momentum", "learn_rate": "no"},
)
PATTERNS = (("hidden/.*", "output/.*"), ("hidden/.*",), ("hidden/item/kernel",), ("hidden/user/.*", "prior/.*"))


def both(**case):
    """((loss, gradients) of the factored form, those of the dense one)."""
    factored, dense = (tiny(**case, form=form) for form in ("factored", "dense"))

    def slope(case):
        def loss(at):
            return meta_loss(case.model, *at, case.episodes)[0]

        return quick_jit(jax.value_and_grad(loss))((case.trainable, case.tables))

    return slope(factored), slope(dense)


@pytest.mark.usefixtures("x64")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=st.fixed_dictionaries(
        {
            "users": st.integers(1, 4),
            "support": st.integers(1, 6),
            "query": st.integers(1, 5),
            "embedding": st.integers(1, 8),
            "hidden": st.integers(1, 8),
            "steps": st.integers(0, 4),
        }
    ),
    rule=st.sampled_from(RULES),
    order=st.sampled_from(["second", "first", "reptile"]),
    head=st.sampled_from(["rating", "classes", "ordinal", "click"]),
    adapted=st.sampled_from(PATTERNS),
    seed=st.integers(0, 3),
)
def test_factored_is_dense_in_double_precision(shape, rule, order, head, adapted, seed):
    """To 1e-11, of theta, phi and embeddings; later users have ever more padded slots."""
    found, wanted = both(**shape, **rule, order=order, head=head, adapted=adapted, seed=seed)
    assert_close(found, wanted, tolerance=1e-11)


@pytest.mark.parametrize("head", ["rating", "ordinal", "click"])
def test_factored_is_dense_in_single_precision(head):
    """To 1e-5. Where a pre-activation is nearer to zero than rounding, the two may take different sides of the ReLU: a
    hidden layer of 8 makes that unlikely, and these draws have none."""
    found, wanted = both(
        head=head, dtype=np.float32, users=8, support=12, query=6, embedding=48, hidden=8, steps=3, rate=0.1
    )
    assert_close(found, wanted, tolerance=1e-5)


@pytest.mark.parametrize("updater", [{"kind": "adam"}, {"kind": "meta-sgd"}, {"kind": "learned"}])
def test_factors_are_refused_to_rules_that_need_matrices(updater):
    case = tiny(**updater)
    model = case.model._replace(form="factored")
    with pytest.raises(MetarecError, match="form 'factored' was asked for, but the updater changes each element"):
        meta_loss(model, case.trainable, case.tables, case.episodes)


@pytest.mark.parametrize(
    ("support", "embedding", "form", "factored"),
    [
        (4, 40, "auto", True),  # 4 * (4 + 8) floats in place of 40 * 8
        (16, 40, "auto", False),  # 16 * (16 + 8)
        (16, 40, "factored", True),
        (4, 40, "dense", False),
    ],
)
def test_the_form_with_fewer_numbers_is_chosen(support, embedding, form, factored):
    case = tiny(users=1, support=support, embedding=embedding, hidden=8, form=form)
    episode = user_of(case.episodes, 0)
    context = context_of(case.tables, episode.user, episode.support)
    factoring, _ = factor_user(case.model, case.trainable.theta, context)
    kept = factoring.start()
    assert kept["hidden"]["item"]["kernel"].shape == ((support, 8) if factored else (embedding, 8))
    assert kept["output"]["kernel"].shape == (8, 5), "its inputs change from step to step"
    # The user's half met one row: a vector in place of a matrix.
    assert kept["hidden"]["user"]["kernel"].shape == ((embedding, 8) if form == "dense" else (8,))


def test_a_whole_catalogue_is_scored_without_a_matrix_for_any_user():
    """Nothing of shape [users, in, out] is computed for 500 items, and the scores are those of the dense form."""
    users, width, hidden = 3, 40, 8
    case = tiny(users=users, support=4, embedding=width, hidden=hidden, dtype=np.float32)
    items = jax.random.normal(jax.random.key(0), (500, width))
    rows = mlp.Features(Fixed(items, None, "catalogue"), jnp.ones((500, 2)))

    def scores(form):
        model = case.model._replace(form=form)

        def one(episode):
            context = context_of(case.tables, episode.user, episode.support)
            kept = adapt_user(model, case.trainable, context).end
            return apply_user(model, case.trainable, context, kept, rows)

        return lambda: over_users(one, case.episodes)

    def shapes(form):
        return set(_shapes(jax.make_jaxpr(scores(form))().jaxpr))

    assert (users, width, hidden) in shapes("dense")
    assert (users, width, hidden) not in shapes("factored")
    assert_close(quick_jit(scores("factored"))(), quick_jit(scores("dense"))(), tolerance=1e-5)


def _shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _shapes(inner)


@pytest.mark.parametrize("form", ["factored", "dense"])
def test_half_precision_products_leave_sums_parameters_and_gradients_in_single_precision(form):
    """bfloat16 has 8 bits: the loss agrees to 1 %, each large gradient to 5 %, and every type stays what it was."""
    case = tiny(dtype=np.float32, users=8, support=12, query=8, embedding=32, hidden=16, form=form)

    def slope(compute):
        def apply(params, context, rows):
            return mlp.apply(params, case.model.head, context, rows, compute=compute)

        model = case.model._replace(apply=apply)
        tables = jax.tree.map(lambda leaf: leaf.astype(compute), case.tables)
        return jax.value_and_grad(lambda t: meta_loss(model, t, tables, case.episodes)[0])(case.trainable)

    (half, of_half), (single, of_single) = slope(jnp.bfloat16), slope(jnp.float32)
    assert half.dtype == jnp.float32
    assert half != single
    assert abs(half - single) < 0.01 * single
    for name in ("hidden", "output"):
        for a, b in zip(jax.tree.leaves(of_half.theta[name]), jax.tree.leaves(of_single.theta[name])):
            assert a.dtype == jnp.float32
            assert jnp.linalg.norm(a - b) < 0.05 * jnp.linalg.norm(b)
