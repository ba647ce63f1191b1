"""Items that are added to a trained model learn from their first ratings, in the recommender and in the service."""

import numpy as np
import pytest
from starlette.testclient import TestClient
from trained import fresh

from metarec_jax.core.errors import MetarecError
from metarec_jax.factors.item_factors import FACTORS, MEAN, REST
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.store import Store

TEXT = "A film about bees. It hums."


def people(count, seed=0):
    """Histories of so many users, and what each gave the new item."""
    rng = np.random.default_rng(seed)
    histories = [
        [(f"id:{item}", float(rng.integers(1, 6))) for item in rng.choice(np.arange(1, 90), 12, replace=False)]
        for _ in range(count)
    ]
    return histories, [float(rating) for rating in rng.integers(1, 6, count)]


def test_ratings_change_the_belief_and_without_them_it_is_the_first(believer):
    recommender = fresh(believer)
    new = "id:" + recommender.add_item(TEXT)
    row = recommender.find(new).row
    start = recommender.catalogue.statistics.beliefs[row].copy()
    state = recommender.adapt({"id:1": 5, "id:2": 1})
    before, others = recommender.score(state, [new])[0], recommender.score(state, ["id:5", "id:6"])
    histories, _ = people(40)
    means = []
    for rating in (1.0, 5.0):
        recommender.learn_item(new, [(history, rating) for history in histories])
        belief = recommender.catalogue.statistics.beliefs[row]
        means.append(belief[MEAN])
        assert belief[REST] < start[REST]
        assert (recommender.score(state, [new])[0] > before) == (rating == 5)
        assert (recommender.catalogue.statistics.total[row], recommender.catalogue.statistics.count[row]) == (
            40 * rating,
            40,
        )
    assert means[0] < start[MEAN] < means[1]
    (listed,) = [found for found in recommender.recommend(state, k=119) if f"id:{found.id}" == new]
    assert listed.ratings == 40
    np.testing.assert_array_equal(recommender.score(state, ["id:5", "id:6"]), others)
    recommender.learn_item(new, [])
    np.testing.assert_array_equal(recommender.catalogue.statistics.beliefs[row], start)
    assert recommender.score(state, [new])[0] == before


def test_factors_are_learned_from_raters(believer):
    """Those who share a taste and like it make it likelier for others of that taste than for the rest."""
    recommender = fresh(believer)
    new = "id:" + recommender.add_item(TEXT)
    row, trained = recommender.find(new).row, recommender.items.trained
    start = recommender.catalogue.statistics.beliefs[row].copy()
    factors = recommender.catalogue.statistics.beliefs[:trained, FACTORS:]
    order = np.argsort(factors[:, 0])
    fans = {f"id:{i + 1}": 5.0 for i in order[-10:]} | {f"id:{i + 1}": 1.0 for i in order[:10]}
    others = {f"id:{i + 1}": 1.0 for i in order[-10:]} | {f"id:{i + 1}": 5.0 for i in order[:10]}
    recommender.learn_item(new, [(fans, 5.0)] * 20 + [(others, 1.0)] * 20)
    learned = recommender.catalogue.statistics.beliefs[row, FACTORS] - start[FACTORS]
    assert learned > 0
    like, dislike = (recommender.score(recommender.adapt(history), [new])[0] for history in (fans, others))
    assert like > dislike + 0.3


def test_the_order_of_new_items_makes_no_difference(believer):
    histories, ratings = people(5)
    raters = list(zip(histories, ratings))
    tables = []
    for order in ((0, 1), (1, 0)):
        recommender = fresh(believer)
        new = ["id:" + recommender.add_item(text, id=f"n{n}") for n, text in enumerate((TEXT, "Ants."))]
        for n in order:
            others = [([*history, (new[1 - n], 5.0)], rating) for history, rating in raters]
            recommender.learn_item(new[n], others)
        tables.append(recommender.catalogue.statistics.beliefs)
    np.testing.assert_array_equal(*tables)


def test_a_run_without_factors_counts_ratings(recommender):
    counting = fresh(recommender)
    new = "id:" + counting.add_item(TEXT)
    state = counting.adapt({"id:1": 5, "id:2": 1})
    before = counting.score(state, [new])[0]
    counting.learn_item(new, [({"id:3": 4}, 5.0)] * 30)
    assert counting.score(state, [new])[0] > before


@pytest.mark.parametrize(
    ("item", "raters", "said"),
    [
        ("id:3", [], "there when the model was trained"),
        ("id:new", [({"id:1": 5}, 9.0)], "between 1 and 5"),
        ("id:new", [({"id:1": 9}, 5.0)], "between 1 and 5"),
        ("id:new", [({"id:1": 5}, float("nan"))], "between 1 and 5"),
        ("id:new", [({"id:nope": 5}, 5.0)], "nope"),
    ],
)
def test_refused_ratings_change_nothing(believer, item, raters, said):
    recommender = fresh(believer)
    recommender.add_item(TEXT, id="new")
    before = recommender.catalogue.statistics
    with pytest.raises(MetarecError, match=said):
        recommender.learn_item(item, raters)
    assert recommender.catalogue.statistics is before


def test_the_service_learns_from_feedback_and_keeps_it_after_a_restart(believer, tmp_path):
    def score(client):
        asked = {"history": [{"item": "1", "rating": 5}], "items": ["bees"]}
        return client.post("/score", json=asked).json()["scores"][0]["score"]

    def serving():
        engine = Engine([Arm("a", fresh(believer))], Store(tmp_path), seed=0)
        return TestClient(make_app(engine, hosts=frozenset({"127.0.0.1"})), base_url="http://127.0.0.1")

    with serving() as client:
        client.post("/items", json={"text": TEXT, "id": "bees"})
        before = score(client)
        users = [
            client.post("/users", json={"history": [{"item": str(n + 1), "rating": 4}]}).json()["user"]
            for n in range(6)
        ]
        for user in users:
            rate = {"user": user, "item": "bees", "kind": "rating", "rating": 1}
            assert client.post("/feedback", json=rate).status_code == 201
        after = score(client)
        assert after < before - 0.1
        client.post("/users", json={"history": [{"item": "bees", "rating": 1}]})
        seven = score(client)
        assert seven < after
    with serving() as client:
        assert score(client) == pytest.approx(seven, rel=1e-6)
        assert client.get("/items/bees").json()["ratings"] == 7
        for user in users:
            client.post("/feedback", json={"user": user, "item": "bees", "kind": "forget"})
        assert client.get("/items/bees").json()["ratings"] == 1
        assert score(client) > seven
