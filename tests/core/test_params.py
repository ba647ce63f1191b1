"""Which parameters adapt is said by patterns; a pattern that says nothing is a mistake."""

import jax
import numpy as np
import pytest
from helpers import assert_close, tiny
from hypothesis import given
from hypothesis import strategies as st

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import combine, partition, path_names
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.user import adapt_user, apply_user, context_of, features_of

TREE = {"hidden": {"item": {"kernel": 1}, "bias": 2}, "output": {"kernel": 3, "bias": 4}, "list": [5, 6]}
PATHS = ["hidden/bias", "hidden/item/kernel", "list/0", "list/1", "output/bias", "output/kernel"]


def chosen(patterns):
    return sorted(jax.tree.leaves(partition(TREE, patterns)[0]))


def test_paths_are_words_with_strokes_between():
    assert path_names(TREE) == PATHS


@pytest.mark.parametrize(
    ("patterns", "leaves"),
    [
        (["hidden/.*", "output/.*"], [1, 2, 3, 4]),
        (["output/.*"], [3, 4]),  # ANIL
        ([".*/kernel"], [1, 3]),
        (["output/kernel", ".*kernel"], [1, 3]),  # patterns may overlap
        (["list/1"], [6]),
        ([".*"], [1, 2, 3, 4, 5, 6]),
        ([], []),
    ],
)
def test_a_pattern_names_whole_paths(patterns, leaves):
    assert chosen(patterns) == leaves
    adapted, shared = partition(TREE, patterns)
    assert sorted(jax.tree.leaves(adapted) + jax.tree.leaves(shared)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("pattern", ["output", "hidden/item", "kernel", "outputs/.*", ""])
def test_a_pattern_that_matches_nothing_is_refused_with_the_paths_there_are(pattern):
    with pytest.raises(MetarecError) as error:
        partition(TREE, ["hidden/.*", pattern])
    assert f"updater.adapted: {pattern!r} matches no parameter" in str(error.value)
    for path in PATHS:
        assert path in str(error.value)


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(MetarecError, match=r"updater\.adapted: 'hidden/\(' is not a regular expression: .*position 7"):
        partition(TREE, ["hidden/("])


@given(st.lists(st.sampled_from(PATHS)))
def test_combine_is_the_inverse_of_partition(patterns):
    assert combine(*partition(TREE, patterns)) == TREE


def test_parts_are_transformed_as_trees():
    """The part that is absent stays absent, so that a gradient of one part has that part's structure."""
    adapted, shared = partition(TREE, ["output/.*"])
    doubled = jax.tree.map(lambda leaf: 2 * leaf, adapted)
    assert combine(doubled, shared) == TREE | {"output": {"kernel": 6, "bias": 8}}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["dense", "factored"])
def test_anil_is_a_pattern(form):
    """With the output layer alone adapted, it alone changes for a user, and everything is trained."""
    case = tiny(head="rating", adapted=("output/.*",), form=form)
    assert set(path_names(case.trainable.phi)) == {"log_rate/output/bias", "log_rate/output/kernel"}
    support, query = (jax.tree.map(lambda leaf: leaf[0], rows) for rows in (case.episodes.support, case.episodes.query))

    @jax.jit
    def everything(trainable):
        context = context_of(case.tables, case.episodes.user[0], support)
        rows = features_of(case.tables, query, "query")
        kept = adapt_user(case.model, trainable, context).end
        got = apply_user(case.model, trainable, context, kept, rows)
        output = {
            "kernel": kept.moved["output"]["kernel"].T,
            "bias": kept.moved["output"]["bias"],
        }  # a narrow kernel is on its side
        by_hand = case.model.apply({**trainable.theta, "output": output}, context, rows)
        before = case.model.apply(trainable.theta, context, rows)
        gradient = jax.grad(lambda t: meta_loss(case.model, t, case.tables, case.episodes)[0])(trainable)
        return kept, got, by_hand, before, gradient.theta

    kept, got, by_hand, before, gradient = everything(case.trainable)
    assert path_names(kept.moved) == ["output/bias", "output/kernel"]
    assert_close(got, by_hand)
    assert np.abs(got - before).max() > 1e-3
    for layer in ("hidden", "output", "prior"):
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient[layer])), layer
