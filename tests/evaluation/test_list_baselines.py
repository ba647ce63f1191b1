"""Baselines of lists against direct formulas on small dense matrices, and how they are tuned."""

import dataclasses

import numpy as np
import pytest
from helpers import assert_close, assert_each_close, assert_says, interactions
from scipy import sparse

from metarec_jax.core.errors import MetarecError
from metarec_jax.data.tasks import make_tasks
from metarec_jax.evaluation import list_baselines as rules
from metarec_jax.evaluation import lists as lists_module
from metarec_jax.evaluation.budget import FULL, ListBudget
from metarec_jax.evaluation.lists import Lists, judge, training_clicks
from metarec_jax.evaluation.lists import lists_of as make_lists
from metarec_jax.evaluation.tune_lists import VALIDATED, fit_list_baselines, tune, value_on
from metarec_jax.factors.implicit import Penalties, fit_clicks, fold_in

USERS, ITEMS = 30, 18
SMALL = ListBudget(
    neighbours=((2, 0.0), (30, 5.0)), ridges=(1.0, 20.0), weights=((0.3, 0.01),), ranks=(4, 6), away=(0.0, 1.0)
)
FLOAT32 = "products of float32 in another order"


def clicks(seed=0, users=USERS):
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(users, 3)) @ rng.normal(size=(3, ITEMS)) + rng.normal(size=ITEMS)
    return (taste > 0.5).astype(np.float32)


def lists_of(dense, seed=1, items=None):
    """A third of each user's clicks are targets; users without a target or without a shown click are left out."""
    rng = np.random.default_rng(seed)
    target = dense * (rng.random(dense.shape) < 0.34)
    kept = (target.sum(1) > 0) & ((dense - target).sum(1) > 0)
    shown, target = (sparse.csr_matrix(part[kept].astype(np.float32)) for part in (dense - target, target))
    return Lists(np.flatnonzero(kept).astype(np.int32), shown, shown, target, np.arange(dense.shape[1]))


def scores_of(baseline, lists):
    found = np.zeros(lists.shown.shape)
    for members, scores in baseline.scores(lists):
        found[members] = scores
    return found


def test_ease_is_the_regression_of_each_item_on_all_others():
    """The column of an item is the ridge regression of its clicks on those of the other items."""
    dense = clicks()
    lists = lists_of(clicks(5))
    (found,) = rules.ease(sparse.csr_matrix(dense), [3.0])
    weight = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        others = np.delete(np.arange(ITEMS), item)
        x = dense[:, others].astype(np.float64)
        weight[others, item] = np.linalg.solve(x.T @ x + 3 * np.eye(ITEMS - 1), x.T @ dense[:, item])
    want = lists.shown.toarray() @ weight
    assert_each_close(scores_of(found, lists), want, tolerance=1e-4, because=FLOAT32, floor=1e-5)


@pytest.mark.parametrize("shrinkage", [0.0, 2.5])
@pytest.mark.parametrize("near", [3, 100])
def test_item_knn_sums_the_cosines_of_the_nearest_neighbours(near, shrinkage, monkeypatch):
    monkeypatch.setattr(rules, "_FLOATS_AT_ONCE", 5 * ITEMS)  # blocks of five items
    dense = clicks()
    lists = lists_of(clicks(5))
    (found,) = rules.item_knn(sparse.csr_matrix(dense), [(near, shrinkage)])
    shared = dense.T.astype(np.float64) @ dense
    count = np.diag(shared)
    similarity = shared / np.maximum(np.sqrt(np.outer(count, count)) + shrinkage, 1e-12)
    np.fill_diagonal(similarity, 0)
    want = np.zeros(lists.shown.shape)
    for item in range(ITEMS):
        nearest = np.argsort(-similarity[item], kind="stable")[:near]
        want[:, item] = lists.shown.toarray()[:, nearest] @ similarity[item, nearest]
    assert_each_close(scores_of(found, lists), want, tolerance=1e-5, because=FLOAT32, floor=1e-6)


def test_ials_folds_in_all_users_as_one_by_one():
    dense = clicks()
    lists = lists_of(clicks(5))
    (found,) = rules.ials(sparse.csr_matrix(dense), [(4, 0.2, 0.02)])
    user, item = dense.nonzero()
    ones, penalties = np.ones(len(user), np.float32), Penalties(0.2, 0.02)
    fitted = fit_clicks(
        user, item, ones, users=USERS, items=ITEMS, rank=4, penalties=penalties, sweeps=rules.SWEEPS
    ).items
    gram = fitted.T @ fitted
    want = np.stack([fitted @ fold_in(row.indices, np.ones(row.nnz), fitted, gram, penalties) for row in lists.shown])
    assert_close(scores_of(found, lists), want, tolerance=1e-4, because="float32 against float64 solves")


def test_text_similarity_moves_the_query_away_from_the_catalogue():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(ITEMS, 5)).astype(np.float32)
    lists = lists_of(clicks(5))
    (found,) = rules.text_similarity(text, [0.7])
    unit = text / np.linalg.norm(text, axis=1, keepdims=True)
    for scores, row in zip(scores_of(found, lists), lists.shown):
        query = unit[row.indices].mean(axis=0) - 0.7 * unit.mean(axis=0)
        assert_each_close(scores, unit @ query, tolerance=1e-4, because=FLOAT32, floor=1e-6)
    (same,) = rules.text_similarity(np.ones((ITEMS, 5), np.float32), [0.5])
    assert not scores_of(same, lists).any()  # texts without differences rank nothing


def test_popularity_and_random_order():
    dense = clicks()
    lists = lists_of(clicks(5))
    assert np.array_equal(scores_of(rules.popularity(sparse.csr_matrix(dense)), lists)[0], dense.sum(axis=0))
    assert not scores_of(rules.at_random(ITEMS), lists).any()


def test_the_best_of_each_baseline_on_validation_users_is_taken():
    train = sparse.csr_matrix(clicks())
    validation = lists_of(clicks(7))
    count = np.asarray(train.sum(axis=0)).ravel()
    value = value_on(validation, count, USERS)
    text = np.random.default_rng(0).normal(size=(ITEMS, 5)).astype(np.float32)
    found, notes = fit_list_baselines(train, text, value, SMALL)
    assert "best of 2 settings" in notes[0]
    names = [rule.name for rule in found]
    assert names == [
        "random",
        "popularity",
        "text similarity, plain",
        "text similarity",
        "item-kNN",
        "EASE",
        "iALS",
    ]
    tried = {
        "item-kNN": rules.item_knn(train, SMALL.neighbours),
        "EASE": rules.ease(train, SMALL.ridges),
        "iALS": rules.ials(train, [(rank, *SMALL.weights[0]) for rank in SMALL.ranks]),
    }
    for name, candidates in tried.items():
        values = {tuple(c.settings.values()): value(c.scores) for c in candidates}
        chosen = dict(found[names.index(name)].settings)
        best = chosen.pop(VALIDATED)
        assert best == max(values.values())
        assert values[tuple(chosen.values())] == best
    absent, notes = fit_list_baselines(train, text, value, SMALL, most_ease_items=ITEMS - 1)
    assert "EASE" not in [rule.name for rule in absent]
    assert "EASE is absent" in notes[1]
    first = tune(rules.ease(train, (5.0, 5.0)), value)
    assert first.settings["ridge"] == 5.0


def test_every_baseline_of_the_full_budget_has_as_many_trials():
    assert len(set(FULL.lists.trials)) == 1


def test_chunks_of_users_give_the_lists_of_the_whole(monkeypatch):
    train = sparse.csr_matrix(clicks())
    lists = lists_of(clicks(5, users=50))
    count = np.asarray(train.sum(axis=0)).ravel()
    names = ("recall_list@5", "mrr_list", "novelty_list@3", "popularity_list@3", "coverage_list@3")
    for baseline in (*rules.ease(train, [3.0]), *rules.ials(train, [(4, 0.2, 0.02)]), rules.popularity(train)):
        whole = judge(lists, baseline.scores, names, count, USERS, method="whole")
        with monkeypatch.context() as patch:
            patch.setattr(lists_module, "FLOATS_AT_ONCE", 7 * ITEMS)
            assert max(len(chunk) for chunk in lists.chunks()) == 7
            parts = judge(lists, baseline.scores, names, count, USERS, method="parts")
        for name, values in whole.values.items():
            assert_each_close(
                parts.values[name], values, tolerance=1e-6, because="sums in float64 in another order", floor=1e-9
            )
        assert_each_close(parts.overall["coverage_list@3"], whole.overall["coverage_list@3"])


def test_a_user_who_was_shown_everything_but_the_targets_finds_them():
    shown = np.ones((1, ITEMS), np.float32)
    shown[0, [3, 9]] = 0
    some = sparse.csr_matrix(shown)
    lists = Lists(np.zeros(1, np.int32), some, some, sparse.csr_matrix(1 - shown), np.arange(ITEMS))
    found = judge(
        lists, rules.at_random(ITEMS).scores, ("recall_list@50", "ndcg_list@100"), np.ones(ITEMS), 5, method="random"
    )
    assert [values.tolist() for values in found.values.values()] == [[1.0], [1.0]]


def test_targets_do_not_reach_the_scores():
    train = sparse.csr_matrix(clicks())
    lists = lists_of(clicks(5))
    other = dataclasses.replace(lists, targets=sparse.csr_matrix(lists.targets.shape, dtype=np.float32))
    for baseline in (*rules.item_knn(train, [(4, 0.0)]), *rules.ials(train, [(4, 0.2, 0.02)])):
        assert np.array_equal(scores_of(baseline, lists), scores_of(baseline, other))


def test_a_pair_of_two_rows_that_is_shown_and_a_target_is_refused():
    data = interactions([0, 0, 0], [1, 2, 1], [1, 1, 1], kind="click")
    tasks = make_tasks([0], [np.array([0, 1])], [np.array([2])])
    with pytest.raises(MetarecError) as refused:
        make_lists(data, tasks, np.ones(3, bool))
    assert_says(str(refused.value), "user 'u0'", "item 'Item 1'", "one row")


def test_shown_ratings_that_are_not_liked_are_no_clicks_and_no_candidates():
    data = interactions([0, 0, 0, 0], [0, 1, 2, 3], [5, 2, 4, 4])
    tasks = make_tasks([0], [np.array([0, 1])], [np.array([2])])
    lists = make_lists(data, tasks, np.array([True, True, True, False]))
    assert [part.toarray().tolist() for part in (lists.clicked, lists.shown, lists.targets)] == [
        [[1, 0, 0]],
        [[1, 1, 0]],
        [[0, 0, 1]],
    ]
    assert training_clicks(data, np.array([0, 1, 3]), np.array([True, True, True, False])).toarray().tolist() == [
        [1, 0, 0]
    ]
