"""Metrics against hand-computed cases, scikit-learn, padding, order and bad input."""

import math
import time

import numpy as np
import pytest
from helpers import assert_close, assert_each_close
from sklearn import metrics as reference

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Rows
from metarec_jax.metrics.auc import global_auc, merge_scores
from metarec_jax.metrics.definitions import DEFAULT_METRICS, METRICS, metric
from metarec_jax.metrics.metrics import Relevance, compute, concatenate, evaluate_users, liked_scores, merge, sums
from metarec_jax.metrics.predictions import Predictions

EXACT = {"floor": 1e-12, "because": "float64 throughout"}
LEVELS = (1.0, 2.0, 3.0, 4.0, 5.0)


def rows(rating, mask=None):
    rating = np.asarray(rating, dtype=float)
    mask = np.ones(rating.shape) if mask is None else np.asarray(mask, dtype=float)
    return Rows(np.zeros(rating.shape, dtype=int), rating, mask, np.zeros((*rating.shape, 2)))


def same(value):
    value = np.asarray(value, dtype=float)
    return Predictions(value, value, value)


def random_case(seed, users=40, query=9):
    """Ratings, three different predictions with many ties, and a mask that leaves some users short and one empty."""
    rng = np.random.default_rng(seed)
    predictions = Predictions(*(np.round(rng.uniform(1, 5, (users, query)) * 2) / 2 for _ in range(3)))
    mask = np.arange(query) < rng.integers(1, query + 1, (users, 1))
    mask[0] = False
    return predictions, rows(rng.integers(1, 6, (users, query)), mask)


def judge(predictions, query, **more):
    return compute(sums(evaluate_users(predictions, query, levels=LEVELS, **more)))


def test_hand_computed_errors_of_two_users_with_unequal_histories():
    query = rows([[5, 1, 3], [4, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    predictions = Predictions(point=[[4, 1, 5], [2, 9, 9]], mean=[[5, 1, 3], [1, 9, 9]], score=np.zeros((2, 3)))
    found = judge(predictions, query)
    assert_each_close(found["mae"], ((1 + 0 + 2) / 3 + 2) / 2)  # a mean over users of means over rows
    assert_each_close(found["rmse"], math.sqrt((0 + 0 + 0 + 9) / 4))  # over all rows
    assert_each_close(found["accuracy"], (1 / 3 + 0) / 2)


def test_accuracy_rounds_to_the_nearest_level_and_splits_a_half_way_point():
    found = evaluate_users(same([[3.4, 3.6, 3.5, 9.0]]), rows([[3, 3, 4, 5]]), metrics=("accuracy",), levels=LEVELS)
    assert_each_close(found["accuracy"].values[0], (1 + 0 + 0.5 + 1) / 4)
    tenths = np.float32([[0.1, 0.3]])  # a float32 rating is not exactly a level
    found = evaluate_users(same(tenths), rows(tenths), metrics=("accuracy",), levels=(0.1, 0.2, 0.3))
    assert found["accuracy"].values[0] == 1


def test_hand_computed_ranking():
    # Order by score: ratings 3, 5, 1, 4. The two highest ratings are 5 and 4.
    found = judge(same([[4, 3, 2, 1]]), rows([[3, 5, 1, 4]]), relevance=Relevance(top=2), metrics=RANKING_AT_3)
    assert_each_close(found["precision@3"], 1 / 3)
    assert_each_close(found["recall@3"], 1 / 2)
    assert found["hit@3"] == 1
    assert_each_close(found["mrr@3"], 1 / 2)
    log = math.log2
    assert_each_close(found["ndcg@3"], (7 + 31 / log(3) + 1 / 2) / (31 + 15 / log(3) + 7 / 2))
    assert_each_close(found["ndcg_linear@3"], (3 + 5 / log(3) + 1 / 2) / (5 + 4 / log(3) + 3 / 2))
    assert_each_close(found["ndcg_binary@3"], (1 / log(3)) / (1 + 1 / log(3)))
    assert_each_close(found["auc"], 3 / 6)  # right: 3 over 1, 5 over 1 and 5 over 4
    assert_each_close(found["auc_liked"], 1 / 4)  # of 5 and 4 over 3 and 1, only 5 over 1


RANKING_AT_3 = (
    "precision@3", "recall@3", "hit@3", "mrr@3", "ndcg@3", "ndcg_linear@3", "ndcg_binary@3", "auc", "auc_liked",
)  # fmt: skip


@pytest.mark.parametrize("k", [1, 3, 5, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_ndcg_equals_scikit_learn_which_averages_ties(k, seed):
    predictions, query = random_case(seed)
    names = (f"ndcg@{k}", f"ndcg_linear@{k}", f"ndcg_binary@{k}")
    found = evaluate_users(predictions, query, metrics=names, relevance=Relevance(top=0, liked=4.0))
    gains = dict(zip(names, (2.0**query.rating - 1, query.rating, (query.rating >= 4) * 1.0)))
    checked = 0
    for name, gain in gains.items():
        for user, mask in enumerate(query.mask > 0):
            if mask.sum() < 2 or not gain[user, mask].any():
                continue
            expected = reference.ndcg_score([gain[user, mask]], [predictions.score[user, mask]], k=k)
            assert_each_close(found[name].values[user], expected, **EXACT, name=(name, user))
            checked += 1
    assert checked > 60


@pytest.mark.parametrize("seed", [0, 1])
def test_auc_equals_scikit_learn(seed):
    predictions, query = random_case(seed)
    found = evaluate_users(predictions, query, metrics=("auc", "auc_liked"))
    checked = 0
    for user, mask in enumerate(query.mask > 0):
        liked = query.rating[user, mask] >= 4
        assert found["auc_liked"].weights[user] == (0 < liked.sum() < len(liked))
        if 0 < liked.sum() < len(liked):
            expected = reference.roc_auc_score(liked, predictions.score[user, mask])
            assert_each_close(found["auc_liked"].values[user], expected, **EXACT)
            checked += 1
    assert checked > 20
    mask = query.mask > 0
    expected = reference.roc_auc_score(query.rating[mask] >= 4, predictions.score[mask])
    assert_each_close(global_auc(liked_scores(predictions, query)), expected, **EXACT)


def test_precision_recall_error_and_accuracy_equal_scikit_learn():
    predictions, query = random_case(3)
    distinct = predictions._replace(score=predictions.score + np.arange(9) * 1e-6)  # without ties it has an equivalent
    names = ("precision@3", "recall@3", "mae", "accuracy", "rmse")
    found = evaluate_users(distinct, query, metrics=names, relevance=Relevance(top=0), levels=LEVELS)
    for user, mask in enumerate(query.mask > 0):
        if mask.sum() < 3:
            continue
        rating, point = query.rating[user, mask], predictions.point[user, mask]
        chosen = np.isin(np.arange(len(rating)), np.argsort(-distinct.score[user, mask])[:3])
        if (rating >= 4).any():
            for name, judge_of in (("precision@3", reference.precision_score), ("recall@3", reference.recall_score)):
                assert_each_close(found[name].values[user], judge_of(rating >= 4, chosen), **EXACT)
        assert_each_close(found["mae"].values[user], reference.mean_absolute_error(rating, point))
        if (point % 1 != 0.5).all():
            expected = reference.accuracy_score(rating.astype(int), point.astype(int))
            assert_each_close(found["accuracy"].values[user], expected)
    mask = query.mask > 0
    expected = reference.root_mean_squared_error(query.rating[mask], predictions.mean[mask])
    assert_each_close(compute(sums(found))["rmse"], expected, tolerance=1e-12, because="float64 throughout")


def test_merged_sums_of_unequal_batches_equal_the_whole():
    predictions, query = random_case(4)
    weight = (np.arange(40) % 5 > 0).astype(float)
    whole = evaluate_users(predictions, query, weight=weight, levels=LEVELS)
    cuts = [slice(0, 3), slice(3, 20), slice(20, 40)]
    parts = [
        evaluate_users(
            Predictions(*(x[c] for x in predictions[:3])), Rows(*(x[c] for x in query)), weight=weight[c], levels=LEVELS
        )
        for c in cuts
    ]
    merged = compute(merge([sums(part) for part in parts]))
    for name, value in compute(sums(whole)).items():
        assert_each_close(merged[name], value, tolerance=1e-13, because="float64 throughout", name=name)
        np.testing.assert_array_equal(concatenate(parts)[name].values, whole[name].values)
    assert set(merged) == set(DEFAULT_METRICS)
    pieces = [liked_scores(Predictions(*(x[c] for x in predictions[:3])), Rows(*(x[c] for x in query))) for c in cuts]
    assert global_auc(merge_scores(pieces)) == global_auc(liked_scores(predictions, query))


def test_users_of_weight_0_and_users_without_query_rows_change_nothing():
    predictions, query = random_case(5)
    weight = (np.arange(40) < 25).astype(float)
    kept = judge(Predictions(*(x[1:25] for x in predictions[:3])), Rows(*(x[1:25] for x in query)))
    assert_close(judge(predictions, query, weight=weight), kept, tolerance=1e-13, because="float64 throughout")


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -1e30, 7.0])
def test_padded_slots_never_matter(rubbish):
    predictions, query = random_case(6)
    padded = np.asarray(query.mask) == 0
    spoiled = Predictions(*(np.where(padded, rubbish, x) for x in predictions[:3]))
    dirty = query._replace(rating=np.where(padded, rubbish, query.rating))
    wider = [np.pad(x, ((0, 0), (0, 3))) for x in (*predictions[:3], query.rating, query.mask)]
    plain = evaluate_users(predictions, query, levels=LEVELS)
    for found in (
        evaluate_users(spoiled, dirty, levels=LEVELS),
        evaluate_users(Predictions(*wider[:3]), rows(*wider[3:]), levels=LEVELS),
    ):
        for name, (values, weights) in plain.items():
            np.testing.assert_array_equal(found[name].values, values, err_msg=name)
            np.testing.assert_array_equal(found[name].weights, weights, err_msg=name)


def test_input_order_never_matters_and_a_constant_scores_the_random_order():
    predictions, query = random_case(7)
    query = query._replace(mask=np.ones_like(query.mask))
    mixed = np.random.default_rng(0).permuted(np.tile(np.arange(9), (40, 1)), axis=1)
    moved = [np.take_along_axis(x, mixed, axis=1) for x in (*predictions[:3], query.rating)]
    found = judge(predictions, query)
    assert_close(judge(Predictions(*moved[:3]), rows(moved[3])), found, tolerance=1e-12, because="float64 throughout")

    constant = judge(same(np.full((40, 9), 4.0)), query)
    assert_each_close(constant["precision@5"], 5 / 9)
    assert_each_close(constant["recall@5"], 5 / 9)
    assert constant["auc"] == 0.5
    shuffled = judge(same(np.full((40, 9), 4.0)), rows(np.take_along_axis(query.rating, mixed, axis=1)))
    assert_close(shuffled, constant, tolerance=1e-12, because="float64 throughout")


def test_the_true_ratings_score_the_best_there_is():
    _, query = random_case(8)
    found = judge(same(query.rating), query)
    for name in ("ndcg@5", "ndcg_linear@5", "auc", "auc_liked", "accuracy"):
        assert_each_close(found[name], 1, **EXACT)
    assert found["mae"] == found["rmse"] == 0
    assert found["ndcg_binary@5"] < 1  # which of the tied ratings are positives is a draw that nobody can foresee


def test_a_user_without_positives_or_pairs_has_no_weight():
    found = evaluate_users(same([[1, 2], [2, 1]]), rows([[3, 3], [5, 3]]), relevance=Relevance(top=0))
    for name in ("precision@5", "recall@5", "hit@5", "mrr@5", "ndcg_binary@5", "auc", "auc_liked"):
        np.testing.assert_array_equal(found[name].weights, [0, 1], err_msg=name)
        assert found[name].values[0] == 0
    empty = evaluate_users(same(np.zeros((2, 0))), rows(np.zeros((2, 0))))
    assert all(math.isnan(value) for value in compute(sums(empty)).values())
    assert math.isnan(global_auc(liked_scores(same([[1.0]]), rows([[5.0]]))))


@pytest.mark.parametrize("field", ["point", "mean", "score"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_names_user_and_method(field, value):
    predictions, query = random_case(9)
    bad = np.array(predictions.score)
    bad[3, 0] = value
    with pytest.raises(MetarecError, match=rf"^maml: {field} of user u3 \(query slot 0\) is {value}"):
        evaluate_users(predictions._replace(**{field: bad}), query, method="maml", users=[f"u{i}" for i in range(40)])


def test_other_bad_input_is_named():
    with pytest.raises(MetarecError, match=r"a rating in the query of user 0 .* is nan"):
        evaluate_users(same([[1.0]]), rows([[np.nan]]))
    with pytest.raises(MetarecError, match="user 0 gave -3"):
        evaluate_users(same([[1.0]]), rows([[-3.0]]), metrics=("ndcg@5",))
    with pytest.raises(ValueError, match=r"point has shape \(1, 2\), but the query has \(1, 1\)"):
        evaluate_users(same([[1.0, 2.0]]), rows([[1.0]]))
    for name in ("ndgc@5", "ndcg", "mae@5", "ndcg@0", "ndcg@x", "ndcg@-1", "ndcg@"):
        with pytest.raises(MetarecError, match="no metric is called"):
            metric(name)
    with pytest.raises(MetarecError, match=r"relevance\.top is -1"):
        Relevance(top=-1)


def test_every_metric_is_defined_for_tables():
    for name in METRICS:
        spec = metric(name.replace("@k", "@7"))
        assert spec.better in ("lower", "higher")
        assert "{" not in spec.title + spec.definition
        assert ("7" in spec.title) == ("@" in name)
    assert metric("rmse").root


def test_a_hundred_thousand_users_take_seconds():
    rng = np.random.default_rng(0)
    score, rating = rng.normal(size=(100_000, 10)), rng.integers(1, 6, (100_000, 10))
    start = time.process_time()
    evaluate_users(same(score), rows(rating), levels=LEVELS)
    assert time.process_time() - start < 20  # a Python loop over users takes minutes
