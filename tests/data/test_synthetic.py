"""The generator draws from its stated model, and the stated best predictions are the best."""

import numpy as np
import pytest

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.sources.synthetic import synthetic


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("user", "item", "rating", "time"))


def test_shape_and_order():
    data, truth = synthetic(3, users=7, items=11, ratings_per_user=5, hidden=2)
    assert (len(data), len(data.users), len(data.items)) == (35, 7, 11)
    assert truth.score.shape == truth.expected.shape == truth.variance.shape == (7, 11)
    assert truth.probabilities.shape == (7, 11, 5)
    np.testing.assert_array_equal(data.user, np.repeat(np.arange(7), 5))
    assert len(set(zip(data.user.tolist(), data.item.tolist()))) == 35
    assert (np.diff(data.time) > 0).all()
    assert set(np.unique(data.rating)) <= set(data.scale.levels) == {1, 2, 3, 4, 5}
    assert [data.user.dtype, data.item.dtype, data.rating.dtype, data.time.dtype] == [
        *(np.int32, np.int32, np.float32, np.int64)
    ]
    assert len(set(data.items.texts)) == len(set(data.items.titles)) == 11


def test_the_seed_decides():
    assert same(synthetic(0, users=9)[0], synthetic(0, users=9)[0])
    assert synthetic(0, users=9)[0].items == synthetic(0, users=9)[0].items
    assert not same(synthetic(0, users=9)[0], synthetic(1, users=9)[0])


def test_load_hands_on_seed_and_kind():
    assert same(load(DataConfig(source="synthetic"), seed=4), synthetic(4)[0])
    clicks = load(DataConfig(source="synthetic", kind="click"), seed=4)
    assert clicks.kind == "click"
    assert set(np.unique(clicks.rating)) == set(clicks.scale.levels) == {0, 1}


@pytest.mark.parametrize("kind", ["rating", "click"])
def test_ratings_follow_the_stated_distribution(kind):
    data, truth = synthetic(5, users=400, items=60, ratings_per_user=60, kind=kind)
    at = (data.user, data.item)
    np.testing.assert_allclose(truth.probabilities.sum(axis=-1), 1, atol=1e-12)
    # The mean of n independent draws has standard deviation sqrt(sum of variances) / n: four of them are the bound.
    n, bound = len(data), 4 * np.sqrt(truth.variance[at].sum()) / len(data)
    assert abs((data.rating - truth.expected[at]).mean()) < bound
    for index, level in enumerate(data.scale.levels):
        p = truth.probabilities[at][:, index]
        assert abs((data.rating == level).mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / n
    # The Bayes error: the squared residuals have the stated mean.
    squares = (data.rating - truth.expected[at]) ** 2
    assert abs(squares.mean() - truth.variance[at].mean()) < 4 * squares.std() / np.sqrt(n)


def test_the_logistic_formula():
    _, truth = synthetic(1, users=3, items=4, ratings_per_user=2, noise=0.5)
    at_least_4 = 1 / (1 + np.exp(-(truth.score - 3.5) / 0.5))
    np.testing.assert_allclose(truth.probabilities[..., 3:].sum(axis=-1), at_least_4, rtol=1e-10)
    np.testing.assert_allclose(
        truth.score - truth.score.mean(axis=1, keepdims=True),
        truth.preferences @ (truth.items - truth.items.mean(axis=0)).T,
        atol=1e-12,
    )


def test_without_noise_a_rating_is_the_rounded_score():
    data, truth = synthetic(2, noise=0.0)
    at = (data.user, data.item)
    np.testing.assert_array_equal(data.rating, np.clip(np.floor(truth.score[at] + 0.5), 1, 5))
    np.testing.assert_array_equal(truth.variance, 0)


def test_the_optimum_is_far_better_than_what_does_not_know_the_user():
    data, truth = synthetic(0, users=300)
    at = (data.user, data.item)
    item_mean = np.bincount(data.item, data.rating, len(data.items)) / np.bincount(data.item, minlength=len(data.items))
    assert truth.variance[at].mean() < 0.5 * ((data.rating - item_mean[data.item]) ** 2).mean()


def test_words_show_the_latent_vector():
    data, truth = synthetic(0, items=400, words=30)
    bags = [text.rstrip(".").split(". ")[1].split() for text in data.items.texts]
    words = sorted({word for bag in bags for word in bag})
    counts = np.array([[bag.count(word) for word in words] for bag in bags], float)
    train, test = slice(0, 300), slice(300, None)
    weights = np.linalg.lstsq(np.c_[counts[train], np.ones(300)], truth.items[train], rcond=None)[0]
    left = truth.items[test] - np.c_[counts[test], np.ones(100)] @ weights
    assert (left**2).sum() < 0.3 * ((truth.items[test] - truth.items[train].mean(axis=0)) ** 2).sum()


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"users": 0}, "users is 0"),
        ({"items": 5, "ratings_per_user": 6}, "6 of 5 items"),
        ({"noise": -1.0}, "noise is -1"),
        ({"noise": float("nan")}, "noise is nan"),
    ],
)
def test_impossible_sizes_are_refused(sizes, says):
    with pytest.raises(MetarecError, match=says):
        synthetic(0, **sizes)
