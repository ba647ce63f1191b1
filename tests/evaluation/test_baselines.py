"""Baselines against hand-computed cases and closed forms, and what they may never look at."""

import jax
import numpy as np
import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Episodes, Rows
from metarec_jax.evaluation import baselines as rules
from metarec_jax.evaluation import fit_baselines as fitting
from metarec_jax.evaluation.baselines import Scale
from metarec_jax.evaluation.budget import FULL
from metarec_jax.metrics.metrics import compute, evaluate_users, sums

SCALE = Scale(mean=3.0, median=4.0, low=1.0, high=5.0)


def rows(item, rating, mask, statistic):
    return Rows(np.asarray(item), np.float32(rating), np.float32(mask), np.float32(statistic))


def two_users():
    """User 0 has three support ratings, user 1 one and two padded slots; item statistics are (sum, count)."""
    support = rows(
        [[0, 1, 2], [1, 0, 0]],
        [[5, 4, 1], [2, 0, 0]],
        [[1, 1, 1], [1, 0, 0]],
        [[[8, 2], [0, 0], [3, 1]], [[10, 5], [0, 0], [0, 0]]],
    )
    query = rows([[3, 4], [3, 0]], [[5, 3], [1, 0]], [[1, 1], [1, 0]], [[[50, 10], [1, 1]], [[50, 10], [0, 0]]])
    return Episodes(np.array([7, 9]), support, query, np.ones(2, np.float32))


def random_episodes(seed, users=12, support=6, query=4, items=20):
    rng = np.random.default_rng(seed)

    def draw(n, least):
        mask = np.arange(n) < rng.integers(least, n + 1, (users, 1))
        count = rng.integers(0, 9, (users, n))
        statistic = np.stack([count * rng.uniform(1, 5, (users, n)), count], axis=-1)
        item, rating = rng.integers(0, items, (users, n)), rng.integers(1, 6, (users, n))
        return rows(item * mask, rating * mask, mask, statistic * mask[..., None])

    return Episodes(np.arange(users), draw(support, 1), draw(query, 1), np.ones(users, np.float32))


def all_rules(items=20):
    embeddings = np.random.default_rng(0).normal(size=(items, 5)).astype(np.float32)
    biased = rules.item_mean_user_bias(SCALE, item_shrink=5.0, user_shrink=2.0)
    return (
        rules.constant(SCALE),
        rules.popularity(SCALE),
        rules.user_mean(SCALE),
        rules.user_median(SCALE),
        rules.item_mean(SCALE, item_shrink=5.0),
        biased,
        rules.to_nearest_level(biased, (1.0, 2.0, 3.0, 4.0, 5.0)),
        rules.ridge(SCALE, embeddings, item_shrink=5.0, user_shrink=2.0, penalty=3.0),
    )


def test_constant_and_popularity_by_hand():
    found = rules.constant(SCALE).predict(two_users())
    assert (found.point == 4).all()
    assert (found.mean == 3).all()
    assert (found.score == found.score[0, 0]).all()
    found = rules.popularity(SCALE).predict(two_users())
    np.testing.assert_array_equal(found.score[0], [10, 1])
    assert (found.point == 4).all()


def test_user_mean_and_median_by_hand():
    np.testing.assert_allclose(rules.user_mean(SCALE).predict(two_users()).mean[:, 0], [10 / 3, 2])
    np.testing.assert_allclose(rules.user_median(SCALE).predict(two_users()).point[:, 0], [4, 2])
    even = two_users()
    even = even._replace(support=even.support._replace(mask=np.float32([[1, 0, 1], [0, 0, 0]])))
    np.testing.assert_allclose(rules.user_median(SCALE).predict(even).point[:, 0], [3, SCALE.median])
    np.testing.assert_allclose(rules.user_mean(SCALE).predict(even).mean[:, 0], [3, SCALE.mean])


def test_item_mean_and_user_bias_by_hand():
    found = rules.item_mean(SCALE, item_shrink=2.0).predict(two_users())
    first, second = (50 + 6) / 12, (1 + 6) / 3
    np.testing.assert_allclose(found.mean[0], [first, second])
    # Item priors of the support: (8+6)/4, 6/2, (3+6)/3 for user 0 and (10+6)/7 for user 1.
    bias = ((5 - 3.5) + (4 - 3) + (1 - 3)) / (3 + 1), (2 - 16 / 7) / (1 + 1)
    found = rules.item_mean_user_bias(SCALE, item_shrink=2.0, user_shrink=1.0).predict(two_users())
    np.testing.assert_allclose(found.score[0], [first + bias[0], second + bias[0]])
    np.testing.assert_allclose(found.score[1, 0], first + bias[1])


def test_ratings_are_clipped_to_the_scale_and_scores_are_not():
    episodes = two_users()
    high = episodes._replace(support=episodes.support._replace(rating=np.float32([[5, 5, 5], [5, 0, 0]])))
    found = rules.item_mean_user_bias(SCALE, item_shrink=0.1, user_shrink=0.1).predict(high)
    assert found.score[0, 0] > 5
    assert found.point[0, 0] == found.mean[0, 0] == 5


def test_nearest_level_moves_the_point_only():
    plain = rules.item_mean(SCALE, item_shrink=2.0)
    before = plain.predict(two_users())
    after = rules.to_nearest_level(plain, (1.0, 2.0, 3.0, 4.0, 5.0)).predict(two_users())
    np.testing.assert_array_equal(after.point[0], [5, 2])  # of 4.67 and 2.33
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_array_equal(after.score, before.score)


def test_ridge_equals_the_primal_solution_user_by_user():
    episodes = random_episodes(1)
    embeddings = np.random.default_rng(2).normal(size=(20, 7))
    settings = {"item_shrink": 5.0, "user_shrink": 2.0}
    found = rules.ridge(SCALE, embeddings, penalty=0.7, **settings).predict(episodes)
    base = rules.item_mean_user_bias(SCALE, **settings).predict(episodes)
    on_support = rules.item_mean_user_bias(SCALE, **settings).predict(episodes._replace(query=episodes.support))
    x = embeddings - embeddings.mean(axis=0)
    for user in range(12):
        real = episodes.support.mask[user] > 0
        features = x[episodes.support.item[user, real]]
        residual = episodes.support.rating[user, real] - on_support.score[user, real]
        weight = np.linalg.solve(features.T @ features + 0.7 * np.eye(7), features.T @ residual)
        expected = base.score[user] + x[episodes.query.item[user]] @ weight
        np.testing.assert_allclose(found.score[user], expected, rtol=1e-5)


def test_a_great_penalty_turns_ridge_into_item_mean_and_user_bias():
    episodes = random_episodes(3)
    embeddings = np.random.default_rng(4).normal(size=(20, 7))
    found = rules.ridge(SCALE, embeddings, item_shrink=5.0, user_shrink=2.0, penalty=1e12).predict(episodes)
    base = rules.item_mean_user_bias(SCALE, item_shrink=5.0, user_shrink=2.0).predict(episodes)
    np.testing.assert_allclose(found.score, base.score, atol=1e-8)


def test_ridge_in_small_batches_equals_one_batch():
    episodes = random_episodes(5, users=2 * rules.USERS_AT_ONCE + 3)
    rule = all_rules()[-1]
    alone = [rule.predict(jax.tree.map(lambda leaf, u=u: leaf[u : u + 1], episodes)).score for u in episodes.user]
    np.testing.assert_allclose(rule.predict(episodes).score, np.concatenate(alone), rtol=1e-6)


@pytest.mark.parametrize("index", range(8))
def test_query_ratings_are_never_read(index):
    episodes = random_episodes(6)
    blind = episodes._replace(query=episodes.query._replace(rating=np.full_like(episodes.query.rating, np.nan)))
    rule = all_rules()[index]
    for seen, unseen in zip(rule.predict(episodes)[:3], rule.predict(blind)):
        np.testing.assert_array_equal(seen, unseen)


@pytest.mark.parametrize("index", range(8))
def test_more_padding_changes_no_prediction(index):
    episodes = random_episodes(7)

    def wider(part):
        return Rows(*(np.pad(x, ((0, 0), (0, 4), (0, 0))[: x.ndim]) for x in part))

    rule = all_rules()[index]
    real = episodes.query.mask > 0
    padded = rule.predict(episodes._replace(support=wider(episodes.support), query=wider(episodes.query)))
    for plain, found in zip(rule.predict(episodes)[:3], padded):
        np.testing.assert_allclose(found[:, :4][real], plain[real], rtol=1e-6)


@pytest.mark.parametrize("index", range(8))
def test_users_without_support_get_finite_predictions(index):
    episodes = random_episodes(8)
    none = Rows(*(x[:, :0] for x in episodes.support))
    found = all_rules()[index].predict(episodes._replace(support=none))
    assert all(np.isfinite(x).all() and x.shape == (12, 4) for x in found[:3])


def test_scale_counts_each_real_rating_of_real_users_once():
    found = rules.fit_scale([two_users(), two_users()], 1.0, 5.0)
    ratings = [5, 4, 1, 5, 3, 2, 1]
    assert found.mean == pytest.approx(np.mean(ratings))
    assert found.median == np.median(ratings)
    filler = two_users()._replace(weight=np.float32([1, 0]))
    assert rules.fit_scale([filler], 1.0, 5.0).mean == pytest.approx(np.mean([5, 4, 1, 5, 3]))
    with pytest.raises(MetarecError, match="training users have no ratings"):
        rules.fit_scale([filler._replace(weight=np.zeros(2, np.float32))], 1.0, 5.0)


def test_fitting_recovers_how_a_simulated_world_was_made():
    # Ratings = item quality + user bias + a taste in 3 dimensions + noise: each rule that sees more must do better.
    rng = np.random.default_rng(9)
    users, items, support, query = 600, 60, 20, 10
    quality, features = rng.normal(3, 0.7, items), rng.normal(size=(items, 3))
    bias, taste = rng.normal(0, 0.5, users), rng.normal(0, 0.4, (users, 3))
    seen = np.argsort(rng.random((users, items)), axis=1)[:, : support + query]
    truth = quality[seen] + bias[:, None] + np.einsum("unf,uf->un", features[seen], taste)
    rating = truth + rng.normal(0, 0.5, truth.shape)
    train = np.arange(users) < 400
    total = np.stack(
        [np.bincount(seen[train].ravel(), w, items) for w in (rating[train].ravel(), np.ones(400 * 30))], axis=-1
    )
    own = np.stack([rating, np.ones_like(rating)], axis=-1) * train[:, None, None]
    statistic = total[seen] - own

    def episodes(chosen):
        parts = [
            rows(seen[chosen][:, c], rating[chosen][:, c], np.ones(rating[chosen][:, c].shape), statistic[chosen][:, c])
            for c in (slice(0, support), slice(support, None))
        ]
        return Episodes(np.flatnonzero(chosen), *parts, np.ones(chosen.sum(), np.float32))

    index = np.arange(users)
    validation, test = episodes((index >= 400) & (index < 500)), episodes(index >= 500)
    fitted = fitting.fit_baselines([episodes(train)], [validation], low=-2.0, high=8.0, items=features)
    names = [rule.name for rule in fitted]
    assert names == [
        "constant, random order", "popularity", "user mean", "user median", "item mean", "item mean + user bias",
        "ridge per user",
    ]  # fmt: skip
    found = {
        r.name: compute(sums(evaluate_users(r.predict(test), test.query, metrics=("rmse", "auc")))) for r in fitted
    }
    rmse = {name: value["rmse"] for name, value in found.items()}
    assert rmse["constant, random order"] > rmse["user mean"] > rmse["item mean + user bias"]
    assert rmse["constant, random order"] > rmse["item mean"] > rmse["item mean + user bias"]
    assert rmse["item mean + user bias"] - 0.1 > rmse["ridge per user"] > 0.5  # 0.5 is the noise
    assert found["user mean"]["auc"] == 0.5
    with_levels = fitting.fit_baselines(
        [episodes(train)], [validation], low=-2.0, high=8.0, levels=(1.0, 2.0, 3.0), items=features
    )
    assert [r.name for r in with_levels][5:] == [
        "item mean + user bias",
        "item mean + user bias, nearest level",
        "ridge per user",
        "ridge per user, nearest level",
    ]


def test_tuning_takes_the_least_validation_error_and_needs_validation_users():
    episodes = random_episodes(10)
    low, best, high = (rules.constant(SCALE._replace(median=m)) for m in (1.0, 3.0, 5.0))
    assert fitting.tune([low, best, high], [episodes, episodes]) is best
    with pytest.raises(MetarecError, match="tuned on validation users"):
        fitting.tune([low], [episodes._replace(weight=np.zeros(12, np.float32))])
    with pytest.raises(MetarecError, match="tuned on validation users"):
        fitting.tune([], [episodes])
    with pytest.raises(MetarecError, match="penalty is 0"):
        rules.ridge(SCALE, np.ones((3, 2)), item_shrink=1.0, user_shrink=1.0, penalty=0.0)


def test_rules_for_clicks_by_hand():
    scale = Scale(mean=0.5, median=0.0, low=0.0, high=1.0)
    statistic = [[[8, 10], [1, 1], [0, 0]]]
    query = rows([[0, 1, 2]], [[1, 0, 1]], [[1, 1, 1]], statistic)
    episodes = Episodes(np.array([0]), query, query, np.ones(1, np.float32))
    np.testing.assert_array_equal(rules.popularity(scale, clicks=True).predict(episodes).score, [[8, 1, 0]])
    found = rules.click_rate(scale, item_shrink=2.0).predict(episodes)
    np.testing.assert_allclose(found.score, [[9 / 12, 2 / 3, 0.5]])
    fitted = fitting.fit_click_baselines([episodes], [episodes])
    assert [rule.name for rule in fitted] == ["constant, random order", "popularity", "item click rate"]
    # Of the candidates, the one with the least squared error on validation users.
    errors = [np.sum((rules.click_rate(fit, item_shrink=a).predict(episodes).mean - query.rating) ** 2)
              for fit in [rules.fit_scale([episodes], 0.0, 1.0)] for a in FULL.item_shrinks]  # fmt: skip
    assert fitted[-1].settings == {"item_shrink": FULL.item_shrinks[int(np.argmin(errors))]}
