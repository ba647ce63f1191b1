"""Gram space is the dense path, exactly: values and every gradient, over a range of shapes, masks, rules and heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, tiny, user_of
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import partition, path_names
from metarec_jax.learner import mlp
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.user import adapt_user, apply_user, context_of, plan_user

RULES = (
    {"learn_rate": "no"},
    {"learn_rate": "layer"},
    {"learn_rate": "layer-step"},
    {"kind": "momentum", "learn_rate": "layer-step"},
    {"kind": "momentum", "learn_rate": "no"},
)
PATTERNS = (("hidden/.*", "output/.*"), ("hidden/.*",), ("hidden/item/kernel",), ("hidden/user/.*", "prior/.*"))


def slopes(**case):
    """(loss and gradients of the factored form, those with every matrix in full and as the learner has it)."""

    def slope(form, updater):
        at = tiny(**case, form=form)
        model = at.model._replace(updater=at.model.updater._replace(**updater))
        function = jax.jit(jax.value_and_grad(lambda *moving: meta_loss(model, *moving, at.episodes)[0], (0, 1)))
        return function(at.trainable, at.tables)

    return slope("factored", {}), slope("dense", {"elementwise": True})


@pytest.mark.usefixtures("x64")
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    shape=st.fixed_dictionaries(
        {
            "users": st.integers(1, 4),
            "support": st.integers(1, 6),
            "query": st.integers(1, 5),
            "embedding": st.integers(1, 8),
            "hidden": st.integers(1, 8),
            "context": st.integers(0, 2),
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
    """Of theta, phi and embeddings; later users have ever more padded slots."""
    found, wanted = slopes(**shape, **rule, order=order, head=head, adapted=adapted, seed=seed)
    assert_close(found, wanted)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("rule", "order"),
    [
        (RULES[2], "first"),
        (RULES[2], "reptile"),
        (RULES[3], "second"),
        pytest.param(RULES[2], "second", marks=pytest.mark.slow),
        pytest.param(RULES[3], "first", marks=pytest.mark.slow),
        pytest.param(RULES[3], "reptile", marks=pytest.mark.slow),
    ],
)
def test_factored_is_dense_with_each_order(rule, order):
    """What the draws above need not have hit together."""
    found, wanted = slopes(**rule, order=order, head="rating", prior=False, users=2, steps=3, embedding=5)
    assert_close(found, wanted)


@pytest.mark.parametrize("head", [pytest.param("rating", marks=pytest.mark.slow), "ordinal"])
def test_factored_is_dense_in_single_precision(head):
    """Of batches with hundreds of pre-activations. Where one is nearer to zero than rounding, the two forms may take
    different sides of the ReLU and have gradients that differ by a whole row's: small steps and few units keep that
    rare, and with these draws it does not happen. The users' terms of the user weight's gradient cancel to an eighth
    of their size, and how they round depends on the processor: hence the terms."""
    case = {"head": head, "dtype": np.float32, "users": 8, "support": 12, "query": 6, "embedding": 48, "hidden": 8}
    found, wanted = slopes(**case, steps=3, rate=0.1)
    assert_close(found, wanted, terms=_sizes_of_users(**case, steps=3, rate=0.1))


def _sizes_of_users(**case):
    """What the magnitudes of the users' own shares of loss and gradients add up to, like what `slopes` gives."""
    at = tiny(**case)
    masks, query = at.episodes.query.mask, at.episodes.query
    slope = jax.jit(jax.value_and_grad(lambda *at_these: meta_loss(at.model, *at_these)[1].query / masks.sum(), (0, 1)))
    alone = [np.where(np.arange(len(masks))[:, None] == user, masks, 0) for user in range(len(masks))]
    shares = [slope(at.trainable, at.tables, at.episodes._replace(query=query._replace(mask=mask))) for mask in alone]
    return jax.tree.map(lambda *leaves: sum(map(abs, leaves)), *shares)


@pytest.mark.parametrize("rule", [{"kind": "adam"}, {"kind": "learned"}], ids=["adam", "learned"])
def test_factors_are_refused_to_rules_that_need_matrices(rule):
    case = tiny(**rule, dtype=np.float32)
    model = case.model._replace(form="factored")
    with pytest.raises(
        MetarecError, match=r"form 'factored' was asked for, but the updater changes each element.*auto"
    ):
        meta_loss(model, case.trainable, case.tables, case.episodes)


@pytest.mark.parametrize(
    ("support", "embedding", "form", "factored"),
    [
        (4, 8, "auto", {"item", "user"}),  # 4 * (4 + 8) numbers in place of 8 * 8, 1 * (1 + 8) for the user's one row
        (5, 8, "auto", {"user"}),  # 5 * (5 + 8)
        (5, 8, "factored", {"item", "user"}),
        (5, 1, "auto", set()),
        (5, 1, "factored", {"item", "user"}),
        (4, 8, "dense", set()),
    ],
)
def test_the_form_with_fewer_numbers_is_chosen(support, embedding, form, factored):
    """Kernel by kernel; the output layer's inputs change from step to step, so that it has no factors to keep."""
    hidden = 8
    case = tiny(users=1, support=support, embedding=embedding, hidden=hidden, form=form, dtype=np.float32)
    episode = user_of(case.episodes, 0)
    context = context_of(case.tables, episode.user, episode.support)
    plan = plan_user(case.model, case.trainable.theta, context)
    names = path_names(partition(case.trainable.theta, case.model.adapted)[0])
    forms = dict(zip(names, plan.forms))
    rows = {"item": "support", "user": "user"}
    assert {name for name in rows if forms[f"hidden/{name}/kernel"] == rows[name]} == factored
    assert forms["hidden/bias"] == forms["output/bias"] == "dense"
    assert forms["output/kernel"] == "transposed"
    kept = jax.tree.map(jnp.shape, adapt_user(case.model, case.trainable, context).end.moved)
    assert kept["hidden"]["item"]["kernel"] == ((support, hidden) if "item" in factored else (embedding, hidden))
    assert kept["hidden"]["user"]["kernel"] == ((hidden,) if "user" in factored else (embedding, hidden))
    assert kept["output"]["kernel"] == case.trainable.theta["output"]["kernel"].shape[::-1], "few columns: on its side"


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

    def matrices(form):
        shapes = _shapes(jax.make_jaxpr(scores(form))().jaxpr)
        return [shape for shape in shapes if sorted(shape) == sorted((users, width, hidden))]

    assert matrices("dense")
    assert not matrices("auto")
    assert_close(jax.jit(scores("auto"))(), jax.jit(scores("dense"))())


def _shapes(jaxpr):
    """Of all that is computed, in loops and called functions too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _shapes(inner)


@pytest.mark.parametrize("form", ["factored", pytest.param("dense", marks=pytest.mark.slow)])
def test_half_precision_products_leave_sums_parameters_and_gradients_in_single_precision(form):
    """bfloat16 has 8 bits: the loss agrees to 1 %, each gradient of a layer to 5 %, and every type stays as it was."""
    case = tiny(dtype=np.float32, users=8, support=12, query=8, embedding=32, hidden=16, form=form)

    def slope(compute):
        def apply(params, context, rows):
            return mlp.apply(params, case.model.head, context, rows, compute=compute)

        model = case.model._replace(apply=apply)
        tables = jax.tree.map(lambda leaf: leaf.astype(compute), case.tables)
        return jax.jit(jax.value_and_grad(lambda t: meta_loss(model, t, tables, case.episodes)[0]))(case.trainable)

    (half, of_half), (single, of_single) = slope(jnp.bfloat16), slope(jnp.float32)
    assert half.dtype == jnp.float32
    assert half != single
    assert abs(half - single) < 0.01 * single
    for name in ("hidden", "output"):
        for a, b in zip(jax.tree.leaves(of_half.theta[name]), jax.tree.leaves(of_single.theta[name])):
            assert a.dtype == jnp.float32
            assert jnp.linalg.norm(a - b) < 0.05 * jnp.linalg.norm(b)
