"""Candidates beside the targets of clicks: which items they are, and what they weigh."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_close, assert_equal, interactions

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.scale import CLICKS
from metarec_jax.data.candidates import MOST, Candidates, beside, candidates_of
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.splits import row_statistics
from metarec_jax.data.tasks import TaskSource, make_tasks

USERS, ITEMS = 12, 40


def clicks(users=USERS, items=ITEMS, chance=0.4):
    user, item = np.nonzero(np.random.default_rng(0).random((users, items)) < chance)
    data = interactions(user, item, np.ones(len(user)), users=users, items=items)
    return dataclasses.replace(data, scale=CLICKS)


def source_of(data, **options):
    statistics = row_statistics(data, np.arange(len(data)))
    return EpisodeSource(
        histories=histories(data, np.arange(len(data.users))),
        config=EpisodeConfig(min_ratings=4, query=3, buckets=(8, 32)),
        statistics=statistics,
        training=True,
        users_per_batch=5,
        seed=3,
        candidates=candidates_of(statistics.count, 3),
        **options,
    )


def test_which_data_has_clicks_alone():
    data = clicks()
    assert data.clicks_alone
    some = data.rating.copy()
    some[3] = 0
    assert not dataclasses.replace(data, rating=some).clicks_alone
    assert not interactions(data.user, data.item, 1.0 + data.item % 5, users=USERS, items=ITEMS).clicks_alone


def test_without_any_count_all_items_are_candidates():
    assert candidates_of(np.zeros(5), 0).items.tolist() == [0, 1, 2, 3, 4]
    assert candidates_of(np.ones(5), 0, np.array([True, False, False, True, False])).items.tolist() == [0, 3]


def test_a_small_catalogue_is_taken_whole_but_for_the_items_that_nobody_clicked():
    count = np.ones(ITEMS)
    count[[2, 7]] = 0
    found = candidates_of(count, 0)
    item, weight = found.draw(0)
    assert item.tolist() == [i for i in range(ITEMS) if i not in (2, 7)]
    assert set(weight) == {1.0}


def test_weights_of_a_sample_estimate_sums_over_the_catalogue():
    rng = np.random.default_rng(0)
    chance = rng.random(3 * MOST) ** 3
    found = Candidates(np.arange(3 * MOST, dtype=np.int32), chance / chance.sum(), 0)
    value = np.sqrt(chance)  # any function of items
    sums = [np.sum(weight * value[item]) for item, weight in map(found.draw, range(200))]
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - value.sum()) < 4 * error
    assert error < 0.01 * value.sum()
    assert not np.array_equal(found.draw(0)[0], found.draw(1)[0])
    assert np.array_equal(found.draw(5)[0], found.draw(5)[0])


def test_no_user_gets_an_own_item():
    drawn = np.array([4, 1, 9], np.int32), np.array([0.5, 2.0, 1.0], np.float32)
    item, weight = beside(drawn, np.array([0, 0, 1]), np.array([1, 3, 9]), users=3)
    assert item.tolist() == [[4, 1, 9]] * 3
    assert weight.tolist() == [[0.5, 0, 1], [0.5, 2, 0], [0.5, 2, 1]]


def test_a_query_is_targets_and_all_items_of_no_own_click():
    data = clicks()
    source = source_of(data)
    for number in range(source.batches):
        episodes = source[number]
        for place in np.flatnonzero(episodes.weight):
            own = set(data.item[data.user == episodes.user[place]].tolist())
            query, support = (
                set(rows.item[place][rows.mask[place] * rows.rating[place] > 0].tolist())
                for rows in (episodes.query, episodes.support)
            )
            others = set(
                episodes.query.item[place][(episodes.query.mask[place] > 0) & (episodes.query.rating[place] == 0)]
            )
            assert query | support == own
            assert not query & support
            assert len(query) == np.clip(round(0.2 * len(own)), 1, 3)
            assert others == set(range(ITEMS)) - own


def test_the_statistics_of_candidates_are_those_of_everybody_and_of_targets_those_of_others():
    data = clicks()
    episodes = source_of(data)[0]
    count = np.bincount(data.item, minlength=ITEMS)
    query = episodes.query
    want = np.where(query.mask > 0, count[query.item] - query.rating, 0).astype(np.float32)
    assert_close(query.statistic[..., 1], want)


def test_tasks_have_the_same_candidates():
    data = clicks()
    first = [np.flatnonzero(data.user == user) for user in range(3)]
    tasks = make_tasks(range(3), [rows[2:] for rows in first], [rows[:2] for rows in first])
    statistics = row_statistics(data, np.flatnonzero(data.user >= 3))
    trained = data.user >= 3
    source = TaskSource(data, tasks, statistics, trained, (32,), 4, candidates=candidates_of(statistics.count, 0))
    episodes = source[0]
    for user in range(3):
        own = set(data.item[first[user]].tolist())
        others = episodes.query.item[user][(episodes.query.mask[user] > 0) & (episodes.query.rating[user] == 0)]
        assert set(others.tolist()) == set(range(ITEMS)) - own
        assert set(episodes.query.item[user][:2].tolist()) == set(data.item[first[user][:2]].tolist())
    assert not episodes.query.mask[3].any()


@pytest.mark.parametrize("chance", [0.05, 1.0])
def test_users_of_few_clicks_and_of_all(chance):
    """A user needs two clicks; one who clicked everything has targets and no other candidate."""
    data = clicks(chance=chance)
    enough = np.flatnonzero(np.bincount(data.user, minlength=USERS) >= 2)
    statistics = row_statistics(data, np.arange(len(data)))
    source = dataclasses.replace(source_of(clicks()), histories=histories(data, enough), statistics=statistics)
    for number in range(source.batches):
        episodes = source[number]
        real = episodes.weight > 0
        assert (episodes.query.mask * episodes.query.rating).sum(axis=1)[real].min() >= 1
        unseen = sum(ITEMS - (data.user == user).sum() for user in episodes.user[real])
        assert (episodes.query.mask * (1 - episodes.query.rating)).sum() == unseen


def test_parts_of_a_batch_have_the_candidates_of_the_batch():
    source = source_of(clicks())
    for index in range(len(source)):
        parts = [source.part(index, own) for own in np.split(np.arange(7), [2, 5])]
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:5], *parts)
        assert_equal(whole, source[index])
