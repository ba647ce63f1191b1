"""Figures from a log: against closed forms, and off-policy estimates against the known CTR."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from trained import small_data, trained_run

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving import analytics, event_log, feedback
from metarec_jax.serving.ab_test import Exploring, arm_of, explored, interleaved
from metarec_jax.serving.event_log import Log
from metarec_jax.serving.rows import Event, Shown, ShownList
from metarec_jax.serving.store import Store
from metarec_jax.train.catalogue import Scale

RATINGS = Scale("rating", (1.0, 2.0, 3.0, 4.0, 5.0), 1.0, 5.0)


def a_log(**columns) -> Log:
    """A log of one list a user and place, in which nothing happened."""
    n = len(next(iter(columns.values())))
    plain = {
        "list": np.arange(n),
        "user": np.arange(n),
        "arm": np.full(n, "a"),
        "item": np.arange(n).astype(str),
        "place": np.ones(n, np.int64),
        "propensity": np.ones(n),
        "own_place": np.ones(n, np.int64),
        "explore": np.zeros(n),
        "pool": np.full(n, 10),
        "interleaved": np.zeros(n, bool),
        "time": np.arange(n, dtype=float),
        "clicked": np.zeros(n, bool),
        "purchased": np.zeros(n, bool),
        "rating": np.full(n, np.nan),
    }
    return Log(**plain | {name: np.asarray(column) for name, column in columns.items()})


def test_rates_are_shares_of_what_was_shown():
    shown = a_log(
        list=[0, 0, 0, 1, 1],
        user=[0, 0, 0, 1, 1],
        place=[1, 2, 3, 1, 2],
        clicked=[True, False, True, False, False],
        rating=[np.nan, 4.0, np.nan, 5.0, 2.0],
    )
    found = analytics.arm_figures(shown, RATINGS)
    assert (found["users"], found["lists"], found["impressions"], found["clicks"]) == (2, 2, 5, 2)
    assert found["ctr"].value == pytest.approx(2 / 5)
    assert found["precision"].value == pytest.approx(4 / 5)
    assert found["rating"].value == pytest.approx(11 / 3)
    # One list has clicks, at places 1 and 3 where 1 and 2 would be best.
    assert found["ndcg"].value == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))


def test_an_interval_is_over_users():
    """With k users of n who click everything, that of a binomial share of n."""
    n, share = 400, 0.3
    clicked = np.arange(n) < share * n
    # Three places of each user, all alike: thrice the rows say nothing more.
    thrice = np.repeat(np.arange(n), 3)
    found = analytics.ratio(np.repeat(clicked, 3).astype(float), np.ones(3 * n), thrice)
    half = 1.96 * np.sqrt(share * (1 - share) / n)
    assert found.value == pytest.approx(share)
    assert [found.low, found.high] == pytest.approx([share - half, share + half], rel=2e-3)
    assert found.users == n


def test_an_interval_is_what_resampling_users_gives():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 200, 2000))
    over = rng.random(2000) < rng.uniform(0, 1, 200)[user]
    found = analytics.ratio(over.astype(float), np.ones(2000), user)
    top, bottom = np.bincount(user, weights=over), np.bincount(user)
    draws = rng.integers(0, 200, (4000, 200))
    low, high = np.quantile(top[draws].sum(1) / bottom[draws].sum(1), [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.15 * (high - low) / 2)


def test_a_ratio_of_no_rows_is_nan():
    found = analytics.ratio(np.zeros(0), np.zeros(0), np.zeros(0, int))
    assert np.isnan(found.value)
    assert analytics.to_tree({"ctr": found})["ctr"] == {"value": None, "low": None, "high": None, "users": 0}


def test_off_policy_estimates_agree_with_the_known_ctr():
    """Clicks depend on item and place alone, so that the click-through of any ranking is known."""
    rng = np.random.default_rng(0)
    items, k, lists, share = 6, 3, 10_000, 0.4
    appeal = rng.uniform(0.1, 0.9, items)
    looks = 1 / np.log2(1 + np.arange(1, k + 1))
    ids = tuple(map(str, range(items)))
    shown = [
        place
        for _ in range(lists)
        for place in explored(np.arange(items), -np.arange(items), k, Exploring(share, items), "a", ids, rng)
    ]
    item, place = np.array([int(s.item) for s in shown]), np.array([s.place for s in shown])
    number = np.repeat(np.arange(lists), k)
    found = a_log(
        list=number,
        user=number,
        item=item.astype(str),
        place=place,
        propensity=np.array([s.propensity for s in shown]),
        own_place=np.array([s.own_place for s in shown]),
        explore=np.full(len(shown), share),
        pool=np.full(len(shown), items),
        clicked=rng.random(len(shown)) < appeal[item] * looks[place - 1],
    )
    truth = {"own": (appeal[:k] * looks).mean(), "uniform": (appeal.mean() * looks).mean()}
    other = np.argsort(-appeal)
    truth["other"] = (appeal[other[:k]] * looks).mean()
    got = {
        "own": analytics.off_policy(found, found.own_place == found.place),
        "uniform": analytics.uniform(found),
        "other": analytics.off_policy(found, item == other[place - 1]),
    }
    for name, value in truth.items():
        for kind in ("ips", "snips"):
            figure = got[name][kind]
            deviation = (figure.high - figure.low) / 4
            assert abs(figure.value - value) < 4 * deviation, (name, kind, figure, value)
            assert deviation < 0.02
        weight = got[name]["weight"]
        assert abs(weight.value - 1) <= weight.high - weight.low
    assert truth["own"] < truth["other"], "a better ranking than the one that was shown is found"
    assert got["other"]["ips"].low > got["own"]["ips"].high


def test_propensities_are_how_often_things_are_shown():
    rng = np.random.default_rng(1)
    ids = ("a", "b", "c", "d")
    exploring = Exploring(0.5, 4)
    count: dict[tuple[str, int], int] = {}
    said: dict[tuple[str, int], float] = {}
    for _ in range(4000):
        for s in explored(np.arange(4), np.zeros(4), 2, exploring, "x", ids, rng):
            count[s.item, s.place] = count.get((s.item, s.place), 0) + 1
            said[s.item, s.place] = s.propensity
    assert len(said) == 8
    for key, propensity in said.items():
        assert count[key] / 4000 == pytest.approx(propensity, abs=4 * np.sqrt(propensity / 4000))


def test_without_exploring_a_list_is_the_model_s():
    found = explored(
        np.array([3, 1, 0]),
        np.array([3.0, 1.0, 0.0]),
        2,
        Exploring(),
        "x",
        ("a", "b", "c", "d"),
        np.random.default_rng(0),
    )
    assert found == [Shown(1, "d", "x", 3.0, 1.0, 1), Shown(2, "b", "x", 1.0, 1.0, 2)]


def test_two_models_take_turns_and_neither_is_favoured():
    orders = (["a", "b", "c", "d"], ["b", "a", "e", "f"])
    scores = tuple(dict.fromkeys(order, 1.0) for order in orders)
    rng = np.random.default_rng(0)
    firsts = []
    for _ in range(400):
        found = interleaved(orders, scores, ("x", "y"), 4, rng)
        assert [s.place for s in found] == [1, 2, 3, 4]
        assert len({s.item for s in found}) == 4
        assert [s.arm for s in found].count("x") == 2
        assert {s.item for s in found[:2]} == {"a", "b"}
        assert all(s.propensity is None for s in found)
        firsts.append(found[0].arm)
    assert 150 < firsts.count("x") < 250
    assert len(interleaved((["a"], ["a", "b"]), ({"a": 1.0}, {"a": 1.0, "b": 0.5}), ("x", "y"), 5, rng)) == 2


def test_the_model_whose_items_are_clicked_is_preferred():
    n = 200
    number = np.repeat(np.arange(n), 2)
    shown = a_log(
        list=number,
        user=number,
        arm=np.tile(["a", "b"], n),
        interleaved=np.ones(2 * n, bool),
        clicked=np.concatenate([np.tile([False, True], 150), np.tile([True, False], 30), np.tile([True, True], 20)]),
    )
    found = analytics.preference(shown, "b")
    assert found.value == pytest.approx((150 + 10) / 200 - 0.5)
    assert found.low > 0
    assert analytics.preference(shown, "a").value == pytest.approx(-found.value)


def test_an_arm_is_for_life_and_arms_get_their_shares():
    users = [f"user {n}" for n in range(4000)]
    arms = [arm_of(user, 2, 0.25) for user in users]
    assert arms == [arm_of(user, 2, 0.25) for user in users]
    assert np.mean(arms) == pytest.approx(0.25, abs=0.03)
    assert {arm_of(user, 1) for user in users} == {0}


def test_two_arms_are_compared_between_users():
    n = 300
    arm = np.repeat(["a", "b"], n)
    clicked = np.concatenate([np.arange(n) < 60, np.arange(n) < 120])
    found = analytics.figures(a_log(arm=arm, clicked=clicked), RATINGS)["b less a"]["ctr"]
    half = 1.96 * np.sqrt(0.2 * 0.8 / n + 0.4 * 0.6 / n)
    assert found.value == pytest.approx(0.2)
    assert [found.low, found.high] == pytest.approx([0.2 - half, 0.2 + half], rel=5e-3)


# The store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "service")
    history = [("1", 5.0), ("2", 3.0)]
    places = [Shown(1, "3", "a", 4.5, 0.6, 1), Shown(2, "4", "a", 4.0, 0.1, 7)]
    filters = '{"details": {}, "between": {}, "exclude": [], "exclude_seen": true}'
    store.add([ShownList("L", "u", "a", "digest", "single", history, filters, 10, 0.5, places)], [])
    store.add([], [Event("u", "4", "click", 1.0, "L"), Event("u", "4", "rating", 2.0, "L"), Event("u", "1", "forget")])
    store.add_user("v", "", [("5", 1.0)])
    yield store
    store.close()


def test_a_log_has_what_was_kept(store):
    found = event_log.read(store._database)
    assert found.item.tolist() == ["3", "4"]
    assert found.clicked.tolist() == [False, True]
    np.testing.assert_array_equal(found.rating, [np.nan, 2.0])
    assert found.own_place.tolist() == [1, 7]
    (request,) = event_log.requests(store._database)
    assert request.history == [("1", 5.0), ("2", 3.0)]
    assert request.exclude_seen


def test_the_log_is_interactions_that_training_reads(store, tmp_path):
    rows = feedback.interactions(store._database, RATINGS)
    assert sorted(row[:3] for row in rows) == [("u", "2", 3.0), ("u", "4", 2.0), ("v", "5", 1.0)]
    for ending in ("csv", "parquet"):
        path = tmp_path / f"log.{ending}"
        count, items = feedback.export(trained_run(), store.folder, path)
        assert count == 3
        data = load(DataConfig(source="table", path=str(path), items_path=str(items)), seed=0)
        named = [data.users.ids[u] for u in data.user], [data.items.ids[i] for i in data.item]
        assert sorted(zip(*named, data.scale.decimal(data.rating))) == [
            ("u", "2", 3.0),
            ("u", "4", 2.0),
            ("v", "5", 1.0),
        ]
        assert len(data.items) == 120
    merged, _ = feedback.export(trained_run(), store.folder, tmp_path / "both.csv", merge=True)
    assert merged == 3 + len(small_data())
    with pytest.raises(MetarecError, match=r"ends in \.csv or \.parquet"):
        feedback.export(trained_run(), store.folder, tmp_path / "log.txt")


def test_clicks_are_interactions_too(store):
    clicks = feedback.interactions(store._database, Scale("click", (0.0, 1.0), 0.0, 1.0))
    assert {row[:3] for row in clicks} >= {("u", "3", 0.0)}


def test_a_store_of_another_version_is_refused(store):
    other = sqlite3.connect(store.folder / "service.sqlite")
    other.execute("PRAGMA user_version = 99")
    other.close()
    store.close()
    with pytest.raises(MetarecError, match="layout version 99, and this version of metarec_jax reads 1"):
        Store(store.folder)


def test_another_run_is_judged_from_random_lists_only(store):
    with pytest.raises(MetarecError, match="nothing was served from there yet"):
        feedback.judge(trained_run(), store.folder.parent / "nowhere")
    found = feedback.judge(trained_run(), store.folder, [trained_run()])["off-policy"]
    assert set(found) == {"shown", "the models' own lists", "random lists of the pool", str(trained_run())}
    store._database.execute("UPDATE lists SET explore = 0")
    with pytest.raises(MetarecError, match=r"serve with --explore 0\.2"):
        feedback.judge(trained_run(), store.folder, [trained_run()])


def test_another_model_s_places_are_those_of_its_own_lists(recommender: Recommender):
    """A log of a model's own lists: the same model would show the same, item by item."""
    filters = event_log.Filters()
    histories = [[("7", 5.0), ("8", 1.0)], [("9", 2.0)]]
    lists = [recommender.recommend(recommender.adapt([(f"id:{i}", r) for i, r in h]), k=3) for h in histories]
    asked = [event_log.Request(n, h, filters, True) for n, h in enumerate(histories)]
    item = [r.id for found in lists for r in found]
    shown = a_log(list=np.repeat([0, 1], 3), place=np.tile([1, 2, 3], 2), item=np.array(item))
    assert feedback.same_places(shown, asked, recommender).all()
    turned = shown._replace(item=shown.item[::-1])
    assert not feedback.same_places(turned, asked, recommender).all()


def test_figures_print(store, capsys):
    feedback.show(feedback.judge(trained_run(), store.folder))
    said = capsys.readouterr().out
    assert "CTR" in said
    assert "0.500" in said
