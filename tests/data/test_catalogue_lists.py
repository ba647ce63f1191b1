"""Protocols of lists over the catalogue against the same protocols written with loops, and what they refuse."""

import dataclasses
import math

import numpy as np
import pytest
from helpers import assert_says, random_interactions

from metarec_jax.config.data import DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.protocols import divide
from metarec_jax.data.protocols.catalogue_lists import clicks_of
from metarec_jax.data.sources import clicks_of as made_clicks
from metarec_jax.data.splits import item_statistics
from metarec_jax.data.tasks import TaskSource

EPISODES = EpisodeConfig(min_ratings=5, max_ratings=0, query=2, buckets=(4,), validation=0.2, test=0.2)
NAMES = ("strong-generalisation", "next-items", "cold-items")


def made(kind="click", seed=0):
    """Eighty users with 6 to 20 ratings of forty items; some users have few clicks, some items none."""
    data = random_interactions(np.random.default_rng(seed), users=80, items=40, least=6, most=20)
    data = dataclasses.replace(data, time=np.random.default_rng(seed).permutation(len(data)).astype(np.int64) + 1)
    data = dataclasses.replace(data, rating=np.where(data.item == 39, 1, data.rating).astype(np.float32))
    return made_clicks(data) if kind == "click" else data


def config_of(kind, query=2, **split):
    return Config(split=SplitConfig(kind=kind, **split), episodes=dataclasses.replace(EPISODES, query=query))


def tasks_of(tasks):
    """{user: (support rows, query rows)}"""
    return {int(user): (support.tolist(), query.tolist()) for user, (support, query) in zip(tasks.user, tasks.each())}


def parts(division):
    return tasks_of(division.validation), tasks_of(division.scenarios[0].tasks)


def clicks_by_user(data):
    found = {user: [] for user in range(len(data.users))}
    clicked = clicks_of(data)
    for row in sorted(range(len(data)), key=lambda row: data.time[row]):
        if clicked[row]:
            found[int(data.user[row])].append(row)
    return found


@pytest.mark.parametrize("kind", ["click", "rating"])
def test_strong_generalisation_shows_most_clicks_and_asks_for_the_others(kind):
    data = made(kind)
    division = divide(data, config_of("strong-generalisation"), 3)
    clicked, own = clicks_of(data), clicks_by_user(data)
    validation, test = parts(division)
    train_users = set(data.user[division.train].tolist())
    assert not train_users & (set(validation) | set(test))
    assert not set(validation) & set(test)
    known = {int(data.item[row]) for row in division.train if clicked[row]}
    assert np.flatnonzero(division.candidates).tolist() == sorted(known)
    assert not division.candidates[39]
    for user, (support, query) in (validation | test).items():
        rows = [row for row in own[user] if data.item[row] in known]
        shown = [row for row in support if clicked[row]]
        assert sorted(shown + query) == sorted(rows)
        assert len(rows) >= 5
        assert len(shown) == math.floor(0.8 * len(rows))
        if kind == "rating":
            latest = max(data.time[row] for row in shown)
            low = [r for r in range(len(data)) if data.user[r] == user and not clicked[r] and data.time[r] <= latest]
            assert set(support) - set(shown) == {row for row in low if data.item[row] in known}
    eligible = [user for user in own if len(own[user]) >= 5]
    assert set(division.train_users.tolist()) <= set(eligible)
    held_out = {user for user in eligible if user not in train_users}
    assert len(held_out) == 2 * round(0.2 * len(eligible))
    everyone = divide(data, config_of("strong-generalisation", everyone=True), 3)
    assert set(data.user[everyone.train].tolist()) == set(data.user.tolist()) - held_out


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("query", [1, 3])
def test_next_items_are_the_last_clicks_and_known_users_train_on_the_earlier_ones(known, query):
    data = made()
    division = divide(data, config_of("next-items", query, known_users=known), 4)
    own = clicks_by_user(data)
    validation, test = parts(division)
    trained = set(division.train.tolist())
    for user, (support, targets) in (validation | test).items():
        assert set(targets) == {row for row in own[user][-query:] if division.candidates[data.item[row]]}
        assert set(support) == {row for row in own[user][:-query] if division.candidates[data.item[row]]}
        earlier = set(own[user][:-query])
        assert trained & set(own[user]) == (earlier if known else set())
    episodes = {user for user in test if len(own[user]) > 2 * query} if known else set()
    assert set(division.train_users.tolist()) & set(test) == episodes


@pytest.mark.parametrize("cold_by", ["random", "latest"])
def test_cold_items_are_in_no_training_row_and_all_items_are_ranked(cold_by):
    data = made()
    division = divide(data, config_of("cold-items", cold=0.2, cold_by=cold_by), 1)
    own = clicks_by_user(data)
    validation, test = parts(division)
    trained = set(data.item[division.train].tolist())
    assert division.candidates.all()
    cold = [{int(data.item[row]) for _, query in part.values() for row in query} for part in (validation, test)]
    assert not cold[0] & cold[1]
    assert not (cold[0] | cold[1]) & trained
    items = np.unique(data.item)
    assert len(trained) == len(items) - 2 * round(0.2 * len(items))
    for part, wanted in zip((validation, test), cold):
        for user, (support, query) in part.items():
            assert {row for row in own[user] if data.item[row] in wanted} == set(query)
            assert {row for row in own[user] if data.item[row] in trained} == set(support)
    if cold_by == "latest":
        first = {item: data.time[data.item == item].min() for item in items}
        assert max(first[item] for item in trained) < min(first[item] for item in cold[0])
        assert max(first[item] for item in cold[0]) < min(first[item] for item in cold[1])


@pytest.mark.parametrize("name", NAMES)
def test_what_held_out_users_did_changes_no_training_row(name):
    data, config = made(), config_of(name)
    division = divide(data, config, 2)
    held_out = ~np.isin(np.arange(len(data)), division.train) & ~np.isin(data.user, division.train_users)
    rng = np.random.default_rng(0)
    item = data.item.copy()
    for user in np.unique(data.user[held_out]):
        rows = np.flatnonzero(held_out & (data.user == user))
        item[rows] = rng.permutation(39)[: len(rows)]
    other = divide(dataclasses.replace(data, item=item), config, 2)
    assert other.train.tolist() == division.train.tolist()
    assert other.train_users.tolist() == division.train_users.tolist()
    assert np.array_equal(other.candidates, division.candidates)


def test_a_long_history_is_read_whole():
    """Buckets end at 4, and users are shown up to 15 ratings: none is lost, and batches stay small."""
    data = made("rating")
    division = divide(data, config_of("strong-generalisation"), 3)
    tasks = division.scenarios[0].tasks
    assert tasks.supports.max() > 8
    source = TaskSource(data, tasks, item_statistics(data, division.train_users), np.zeros(len(data), bool), (4,), 8)
    read = {}
    for index in range(len(source)):
        batch = source[index]
        assert batch.support.mask.size <= 8 * 4
        for user, item, mask, weight in zip(batch.user, batch.support.item, batch.support.mask, batch.weight):
            if weight:
                read[int(user)] = sorted(item[mask > 0].tolist())
    assert read == {u: sorted(data.item[support].tolist()) for u, (support, _) in tasks_of(tasks).items()}
    assert source.batch_of_all().support.mask.sum() == tasks.supports.sum()


def nothing_liked(data):
    return dataclasses.replace(data, rating=np.ones(len(data), np.float32))


MISTAKES = (
    ("next-items", {}, lambda data: dataclasses.replace(data, time=0 * data.time), ("next-items", "columns.time")),
    ("cold-items", {"cold_by": "latest"}, lambda d: dataclasses.replace(d, time=0 * d.time), ("cold-items", "time")),
    ("cold-items", {"cold": 0.001}, lambda data: data, ("split.cold is 0.001", "items")),
    ("strong-generalisation", {}, nothing_liked, ("5 or more clicks", "--episodes.min-ratings")),
)


@pytest.mark.parametrize(("name", "split", "change", "parts"), MISTAKES)
def test_data_that_lack_something_are_refused(name, split, change, parts):
    with pytest.raises(MetarecError) as refused:
        divide(change(made("rating")), config_of(name, **split), 0)
    assert_says(str(refused.value), *parts)


# Clicks of ratings


def test_a_threshold_makes_clicks_of_ratings(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text(
        "user_id,item_id,rating,timestamp\n" + "".join(f"u{n % 5},i{n},{n % 10 + 1},{n}\n" for n in range(50))
    )
    for liked, least in (("7", 7), ("10", 10)):
        data = load(DataConfig(source="table", path=str(path), kind="click", liked=liked))
        assert data.kind == "click"
        assert sorted(data.items.ids[i] for i in data.item) == sorted(f"i{n}" for n in range(50) if n % 10 + 1 >= least)
        assert (data.rating == 1).all()
        assert_says(data.notes[-1], f"{liked} or more", str(len(data)))
    frame = {"user_id": ["a", "b"], "item_id": ["x", "y"], "rating": [1, 5]}
    assert load(frame, kind="click", liked="5").items.ids == ("x", "y")
    with pytest.raises(MetarecError) as refused:
        load(DataConfig(source="table", path=str(path), kind="click", liked="11"))
    assert_says(str(refused.value), "data.liked is 11", "between 1 and 10")


def test_ratings_of_a_published_layout_become_clicks_at_the_top_quarter(tmp_path):
    from layouts import movielens_1m_of

    folder = movielens_1m_of(tmp_path, users=8)
    ratings = load(DataConfig(path=str(folder)))
    clicks = load(DataConfig(path=str(folder), kind="click"))
    assert len(clicks) == (ratings.rating >= 4).sum()
    assert clicks.items == ratings.items
    assert clicks.users == ratings.users
