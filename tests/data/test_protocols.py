"""Each protocol against the same protocol written with loops, on small data; and the data that it refuses."""

import collections
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_equal, interactions, random_interactions

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import CLICKS
from metarec_jax.data import load
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.protocols import divide, tallrec
from metarec_jax.data.protocols.division import Division, Scenario, check, drawn_tasks
from metarec_jax.data.protocols.melu import chosen_year, item_years
from metarec_jax.data.splits import item_statistics
from metarec_jax.data.tasks import TaskSource, make_tasks

EPISODES = EpisodeConfig(min_ratings=5, max_ratings=9, query=3, buckets=(6,), validation=0.2, test=0.2)


def dated(seed=0, users=60, items=30, least=6, most=20, years=True):
    """Random ratings at different times; items have years 1990 to 1999."""
    rng = np.random.default_rng(seed)
    data = random_interactions(rng, users=users, items=items, least=least, most=most)
    year = {"year": tuple(str(1990 + i % 10) for i in range(items))} if years else {}
    return dataclasses.replace(
        data,
        time=rng.permutation(len(data)).astype(np.int64) + 1000,
        items=dataclasses.replace(data.items, details=year),
    )


def config_of(kind, **split):
    return Config(split=SplitConfig(kind=kind, **split), episodes=EPISODES)


def listed(tasks):
    """[(user, support rows, query rows)]"""
    supports, queries = (
        np.split(r, np.cumsum(n)[:-1]) for r, n in ((tasks.support, tasks.supports), (tasks.query, tasks.queries))
    )
    return [(int(u), s.tolist(), q.tolist()) for u, s, q in zip(tasks.user, supports, queries)]


def rows_of_user(data, user, keep=lambda row: True):
    """Rows of a user by time."""
    rows = [row for row in range(len(data)) if data.user[row] == user and keep(row)]
    return sorted(rows, key=lambda row: data.time[row])


# New users


def test_new_users_train_nothing_and_everyone_else_can():
    data = dated()
    plain, everyone = (divide(data, config_of("users", everyone=e), 1) for e in (False, True))
    (scenario,) = plain.scenarios
    count = collections.Counter(data.user.tolist())
    for user, support, query in listed(scenario.tasks):
        assert 5 <= count[user] <= 9
        assert sorted(support + query) == sorted(rows_of_user(data, user))
        assert len(query) == 3
    test, validation = (set(tasks.user.tolist()) for tasks in (scenario.tasks, plain.validation))
    assert not test & validation
    assert set(data.user[plain.train]) == set(plain.train_users)
    assert all(5 <= count[user] <= 9 for user in plain.train_users)
    assert set(data.user[everyone.train]) == set(range(60)) - test - validation
    assert set(everyone.train_users) == set(range(60)) - test - validation
    assert everyone.train_users[: len(plain.train_users)].tolist() == plain.train_users.tolist()
    for a, b in ((plain.validation, everyone.validation), (scenario.tasks, everyone.scenarios[0].tasks)):
        assert listed(a) == listed(b)


def test_the_latest_rows_are_the_query_where_the_order_is_time():
    data = dated()
    config = config_of("users")
    config = dataclasses.replace(config, episodes=dataclasses.replace(EPISODES, order="time"))
    for user, support, query in listed(divide(data, config, 0).scenarios[0].tasks):
        rows = rows_of_user(data, user)[::-1]
        assert query == rows[:3]
        assert support == rows[3:]


@pytest.mark.parametrize("order", ["random", "time"])
def test_drawn_tasks_are_the_episodes_of_the_first_draw(order):
    data, users = dated(), np.arange(60)
    config = dataclasses.replace(EPISODES, max_ratings=0, order=order)
    statistics = item_statistics(data, users[:0])
    episodes = EpisodeSource(histories(data, users), config, statistics, training=False, users_per_batch=60, seed=5)
    tasks = drawn_tasks(data, users, config, seed=5)
    source = TaskSource(data, tasks, statistics, np.zeros(len(data), bool), config.buckets, users_per_batch=60)
    assert_equal(source.batch_of_all(), episodes.batch_of_all(0))


# MeLU


def test_melus_scenarios_are_four_partitions_of_the_rows():
    data, year = dated(), 1994
    division = divide(data, config_of("melu", year=year), 3)
    new_item = [1990 + i % 10 > year for i in range(30)]
    warm, users, items, both = (listed(s.tasks) for s in division.scenarios)
    assert [s.held_out for s in division.scenarios] == [False, True, True, True]
    new = {user for user, _, _ in users + both}
    validation = {user for user, _, _ in listed(division.validation)}
    known = {user for user, _, _ in warm + items}
    assert not new & known
    assert not validation & (new | known)
    assert round(60 * 0.2) == 12 >= len(new)
    for tasks, wanted in (
        (warm, False),
        (users, False),
        (items, True),
        (both, True),
        (listed(division.validation), False),
    ):
        assert tasks
        for user, support, query in tasks:
            rows = rows_of_user(data, user, lambda row, wanted=wanted: new_item[data.item[row]] == wanted)
            assert 5 <= len(rows) <= 9
            assert sorted(support + query) == sorted(rows)
            assert len(query) == 3
    # Every user within the bounds has a task.
    eligible = [u for u in range(60) if u not in new | validation]
    wanted = [u for u in eligible if 5 <= len(rows_of_user(data, u, lambda row: new_item[data.item[row]])) <= 9]
    assert set(wanted) >= {user for user, _, _ in items}
    train = [
        row for user in division.train_users for row in rows_of_user(data, user, lambda r: not new_item[data.item[r]])
    ]
    assert division.train.tolist() == sorted(train)
    assert sorted(division.train_users.tolist()) == sorted(user for user, _, _ in warm)
    everyone = divide(data, config_of("melu", year=year, everyone=True), 3)
    assert set(everyone.train) > set(division.train)
    assert not any(new_item[item] for item in data.item[everyone.train])
    assert not set(data.user[everyone.train]) & (new | validation)


def test_a_year_is_chosen_that_leaves_enough_items_new_and_the_published_one_for_movielens_1m():
    data = dated()
    assert chosen_year(data, item_years(data)) == 1997  # 1998 and 1999 are a fifth, 1999 alone a tenth
    late = tuple(str(1990 + (i < 15) * 9) for i in range(30))
    data = dataclasses.replace(data, items=dataclasses.replace(data.items, details={"year": late}))
    assert chosen_year(data, item_years(data)) == 1990
    assert chosen_year(dataclasses.replace(data, source="MovieLens-1M from here"), item_years(data)) == 1997


# TALLRec


def test_tallrec_asks_for_the_next_item_of_every_window():
    data = dated()
    division = divide(data, config_of("tallrec", history=4), 2)
    window, whole = division.scenarios
    test = list(dict.fromkeys(window.tasks.user.tolist()))
    want_window, want_whole = [], []
    for user in test:
        rows = rows_of_user(data, user)
        for i in range(4, len(rows)):
            want_window.append((user, rows[i - 4 : i], [rows[i]]))
            want_whole.append((user, rows[max(0, i - 6) : i], [rows[i]]))
    assert listed(window.tasks) == want_window
    assert listed(whole.tasks) == want_whole
    assert whole.tasks.shown is None
    liked = data.rating[window.tasks.support] > 3
    means = [data.rating[division.train][(data.rating[division.train] > 3) == side].mean() for side in (False, True)]
    assert set(window.tasks.shown[liked]) == {np.round(means[1])}
    assert set(window.tasks.shown[~liked]) == {np.round(means[0])}
    validation = set(division.validation.user.tolist())
    assert set(data.user[division.train]) == set(range(60)) - set(test) - validation


@pytest.mark.skipif(importlib.util.find_spec("recbole") is None, reason="MovieLens-100K is not installed here")
def test_the_published_users_are_those_of_the_last_thousand_windows_of_the_file():
    """Computed as in the published preprocessing, from the lines of the file in their order."""
    folder = Path(importlib.util.find_spec("recbole").submodule_search_locations[0], "dataset_example", "ml-100k")
    rows = [line.split("\t")[0] for line in (folder / "ml-100k.inter").read_text().splitlines()[1:]]
    count = collections.Counter(rows)
    windows = [user for user in dict.fromkeys(rows) for _ in range(10, count[user])][-1000:]
    assert tuple(dict.fromkeys(windows)) == tallrec.PUBLISHED_USERS
    data = load(Config().data)
    config = Config(split=SplitConfig(kind="tallrec"), episodes=dataclasses.replace(EpisodeConfig(), max_ratings=0))
    for seed in (0, 1):
        division = divide(data, config, seed)
        assert [data.users.ids[u] for u in division.scenarios[0].tasks.user] == windows
    drawn = dataclasses.replace(config, split=dataclasses.replace(config.split, test_users="random"))
    assert len(np.unique(divide(data, drawn, 0).scenarios[0].tasks.user)) == 94


# Few-shot


def test_few_shot_shows_the_first_ratings_and_asks_about_the_same_later_ones():
    data = dated(least=4, most=25)
    division = divide(data, config_of("few-shot", supports=(0, 1, 4)), 5)
    assert [s.name for s in division.scenarios] == ["k = 0", "k = 1", "k = 4"]
    test = division.scenarios[0].tasks.user.tolist()
    for k, scenario in zip((0, 1, 4), division.scenarios):
        want = [(u, rows_of_user(data, u)[:k], rows_of_user(data, u)[4:54]) for u in test]
        assert listed(scenario.tasks) == want
    validation = list(dict.fromkeys(division.validation.user.tolist()))
    want = [(u, rows_of_user(data, u)[:k], rows_of_user(data, u)[4:54]) for k in (0, 1, 4) for u in validation]
    assert listed(division.validation) == want
    count = collections.Counter(data.user.tolist())
    assert all(count[u] >= 5 for u in test + validation)
    assert set(data.user[division.train]) == set(range(60)) - set(test) - set(validation)
    assert set(division.train_users) == {u for u in set(data.user[division.train]) if count[u] >= 5}


def test_a_query_of_few_shot_is_at_most_fifty_rows():
    data = interactions([0] * 70 + [1] * 70 + [2] * 70, list(range(70)) * 3, [3, 4] * 105, range(210))
    config = dataclasses.replace(
        config_of("few-shot", supports=(2,)), episodes=dataclasses.replace(EPISODES, validation=0.3, test=0.3)
    )
    (scenario,) = divide(data, config, 0).scenarios
    ((user, support, query),) = listed(scenario.tasks)
    assert support == [70 * user, 70 * user + 1]
    assert query == list(range(70 * user + 2, 70 * user + 52))


# A date


def timed():
    """Ratings with increasing times, so that some users and items have late rows alone."""
    rng = np.random.default_rng(4)
    user, item, time = [], [], []
    for u in range(40):
        begin = rng.integers(0, 800)
        for i in rng.permutation(30)[: rng.integers(8, 20)]:
            moment = begin + rng.integers(0, 300)
            if i < 24 or moment > 700:  # the last items come out late
                user.append(u), item.append(i), time.append(moment)
    return interactions(user, item, rng.integers(1, 6, len(user)), time, users=40, items=30)


def test_a_date_divides_rows_and_what_is_first_seen_after_it_is_cold():
    data, date = timed(), 700
    division = divide(data, config_of("time", date=str(date)), 1)
    validation = set(division.validation.user.tolist())
    before = [row for row in range(len(data)) if data.time[row] < date]
    assert division.train.tolist() == [row for row in before if data.user[row] not in validation]
    count = collections.Counter(data.user[before].tolist())
    assert set(division.train_users) == {u for u in range(40) if count[u] >= 5} - validation
    for _, support, query in listed(division.validation):
        assert all(data.time[row] < date for row in support + query)

    want = []
    for u in range(40):
        rows = rows_of_user(data, u)
        later = [row for row in rows if data.time[row] >= date]
        if u not in validation and len(later) >= 3 and len(rows) > 3:
            want.append((u, rows[:-3][-6:], rows[-3:]))
    scenarios = {s.name: s.tasks for s in division.scenarios}
    got = listed(scenarios.pop("everything after the date"))
    assert [(u, data.time[s].tolist(), data.time[q].tolist()) for u, s, q in got] == [
        (u, data.time[s].tolist(), data.time[q].tolist()) for u, s, q in want
    ]
    seen_users, seen_items = set(data.user[before].tolist()), set(data.item[before].tolist())
    parts = {}
    for u, support, query in got:
        for row in query:
            user, item = ("warm" if u in seen_users else "cold"), ("warm" if data.item[row] in seen_items else "cold")
            parts.setdefault(f"{user} users, {item} items", {}).setdefault(u, (support, []))[1].append(row)
    assert len(parts) == 4
    assert {n: [(u, s, q) for u, (s, q) in by.items()] for n, by in parts.items()} == {
        n: listed(t) for n, t in scenarios.items()
    }


def test_dates_can_be_written_and_are_chosen_where_they_are_not():
    data = dataclasses.replace(timed(), time=timed().time * 86400)
    by_day, by_second = (divide(data, config_of("time", date=d), 1) for d in ("1971-12-02", str(700 * 86400)))
    assert by_day.train.tolist() == by_second.train.tolist()
    chosen = divide(data, config_of("time"), 1)
    share = (data.time < np.sort(data.time)[int(0.8 * len(data))]).mean()
    assert f"({share:.0%} of all" in chosen.description
    assert data.time[chosen.train].max() < data.time[chosen.scenarios[0].tasks.query].min()


# What all have in common


KINDS = ("users", "melu", "tallrec", "few-shot", "time")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arguments_give_equal_divisions_and_ratings_have_no_say(kind):
    data = dated()
    config = config_of(kind, supports=(0, 2), history=3)
    changed = dataclasses.replace(data, rating=6 - data.rating)
    first, again, other = divide(data, config, 1), divide(data, config, 1), divide(changed, config, 1)
    for same in (again, other):
        assert first.train.tolist() == same.train.tolist()
        assert first.train_users.tolist() == same.train_users.tolist()
        assert listed(first.validation) == listed(same.validation)
        assert [listed(s.tasks) for s in first.scenarios] == [listed(s.tasks) for s in same.scenarios]
    assert divide(data, config, 2).train_users.tolist() != first.train_users.tolist()


def test_a_division_that_trains_on_what_it_asks_is_refused():
    data = dated()
    tasks, others = (make_tasks([user], [np.array([row])], [np.array([row + 1])]) for user, row in ((0, 0), (1, 20)))
    good = Division(np.arange(2, 9), np.array([2]), others, (Scenario("s", "", tasks),), "")
    check(good, data)
    with pytest.raises(ValueError, match="a query row is among the training rows"):
        check(good._replace(train=np.arange(9)), data)
    with pytest.raises(ValueError, match="a query row is among the training rows"):
        check(good._replace(train=np.array([21])), data)
    with pytest.raises(ValueError, match="among those of validation"):
        check(good._replace(validation=tasks), data)


def clicks(data):
    return dataclasses.replace(data, scale=CLICKS, rating=(data.rating > 3).astype(np.float32))


REFUSED = {
    "clicks (melu)": ("melu", {}, clicks, "protocol melu is about ratings, and invented holds clicks"),
    "clicks (tallrec)": ("tallrec", {}, clicks, "protocol tallrec is about ratings"),
    "no years": (
        "melu",
        {},
        lambda data: dated(years=False),
        "protocol melu goes by the year of each item, and invented has no column 'year'",
    ),
    "no times (tallrec)": ("tallrec", {}, lambda d: dataclasses.replace(d, time=0 * d.time), "has none .all are 0."),
    "no times (few-shot)": ("few-shot", {}, lambda d: dataclasses.replace(d, time=0 * d.time), "--data.columns.time"),
    "no times (time)": ("time", {}, lambda d: dataclasses.replace(d, time=0 * d.time), "protocol time goes by times"),
    "a year too late": ("melu", {"year": 2020}, None, "split.year is 2020, and none of the rated items are of a later"),
    "a year too early": ("melu", {"year": 1900}, None, "all of the rated items .* choose one between 1990 and 1998"),
    "no date": ("time", {"date": "soon"}, None, "split.date is 'soon'; write a date such as 1998-03-01"),
    "a date too late": ("time", {"date": "99999"}, None, "and all rows come before it: choose one between"),
    "a date too early": ("time", {"date": "5"}, None, "and no rows come before it"),
    "nobody after the date": (
        "time",
        {"date": "4000"},
        lambda d: dataclasses.replace(d, time=np.where(d.time == d.time.max(), 5000, d.time)),
        "no user has 3 rows from",
    ),
    "a support too long": (
        "few-shot",
        {"supports": (9,)},
        None,
        "split.supports ends at 9, but episodes.buckets at 6",
    ),
    "too few users": ("few-shot", {}, lambda d: dated(users=3, least=20), "users have 21 rows or more"),
}


@pytest.mark.parametrize(("kind", "split", "change", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_data_that_lacks_what_a_protocol_needs_is_refused(kind, split, change, words):
    data = (change or (lambda data: data))(dated())
    config = config_of(kind, **split)
    if words == "users have 21 rows or more":
        config = dataclasses.replace(config, episodes=dataclasses.replace(EPISODES, buckets=(20,)))
    with pytest.raises(MetarecError, match=words):
        divide(data, config, 0)
