"""A service that starts again on its store: what was acknowledged is there, and no content prevents the start."""

import pytest
from fastapi.testclient import TestClient
from trained import fresh

from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.rows import Event, NewItem
from metarec_jax.serving.store import Store


def serving(recommender, folder) -> TestClient:
    engine = Engine([Arm("a", recommender)], Store(folder), seed=0)
    return TestClient(make_app(engine, hosts=frozenset({"127.0.0.1"})), base_url="http://127.0.0.1")


def ratings(client, item: str) -> int:
    return client.get(f"/items/{item}").json()["ratings"]


def test_a_restart_with_a_user_who_rated_two_added_items(believer, tmp_path):
    with serving(fresh(believer), tmp_path) as client:
        for name in ("ants", "bees"):
            assert client.post("/items", json={"text": f"A film about {name}.", "id": name}).status_code == 201
        both = [{"item": "ants", "rating": 5}, {"item": "bees", "rating": 4}, {"item": "7", "rating": 2}]
        user = client.post("/users", json={"history": both}).json()["user"]
        score = client.post("/score", json={"user": user, "items": ["ants", "bees"]}).json()["scores"]
    with serving(fresh(believer), tmp_path) as client:
        assert [ratings(client, name) for name in ("ants", "bees")] == [1, 1]
        again = client.post("/score", json={"user": user, "items": ["ants", "bees"]}).json()["scores"]
        assert [s["score"] for s in again] == pytest.approx([s["score"] for s in score], rel=1e-6)


def test_a_rating_of_a_missing_item_is_left_out(believer, tmp_path):
    with serving(fresh(believer), tmp_path) as client:
        client.post("/items", json={"text": "A film about bees.", "id": "bees"})
        user = client.post("/users", json={"history": [{"item": "bees", "rating": 4}]}).json()["user"]
        store = client.app.state.service.store
        store.add([], [Event(name, "gone", "rating", 3.0) for (name,) in store._read("SELECT id FROM users")])
    with serving(fresh(believer), tmp_path) as client:
        assert ratings(client, "bees") == 1
        assert client.post("/adapt", json={"user": user}).json()["rated"] == 1


def test_an_id_with_outer_blanks_or_control_characters_is_refused(believer, tmp_path):
    with serving(fresh(believer), tmp_path) as client:
        for identity in (" bees", "bees\t", "\u00a0bees", "be\x00es", "be\nes", "bees\u2028", "\x85"):
            answer = client.post("/items", json={"text": "A film about bees.", "id": identity})
            assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "id"]), identity
        for identity in ("b", "id:7", "die Bienen, 1999", "蜂/2", "¿"):
            answer = client.post("/items", json={"text": "A film about bees.", "id": identity})
            assert (answer.status_code, answer.json()["id"]) == (201, identity)


def test_a_restart_with_an_id_that_has_outer_blanks(believer, tmp_path):
    store = Store(tmp_path)
    store.add_item(NewItem(" bees", "Bees", "A film about bees.", {}))
    store.add_user("u", "", [(" bees", 4.0), ("7", 2.0)])
    store.close()
    recommender = fresh(believer)
    with serving(recommender, tmp_path) as client:
        row = recommender.items.titles.find_id(" bees").row
        assert recommender.catalogue.statistics.count[row] == 1
        why = client.post("/explain", json={"history": [{"item": "7", "rating": 2}], "items": [" bees"]})
        assert why.json()["explanations"][0]["item"] == " bees"


def test_a_restart_with_a_run_that_was_trained_with_an_added_item(believer, tmp_path):
    """Items were added, the run trained anew on the log, and the store goes on with the new run."""
    store = Store(tmp_path)
    store.add_item(NewItem("7", "Another title", "Another text.", {}))
    store.add_item(NewItem("bees", "Bees", "A film about bees.", {"colour": "red"}))  # which items of this run lack
    store.add_user("u", "", [("7", 5.0), ("bees", 4.0)])
    store.close()
    with serving(fresh(believer), tmp_path) as client:
        known, new = (client.get(f"/items/{name}").json() for name in ("7", "bees"))
        assert (known["new"], new["new"]) == (False, True)
        assert known["title"] == believer.catalogue.items.titles[6]
        assert (new["ratings"], known["ratings"]) == (1, believer.catalogue.statistics.count[6])
        assert client.get("/healthz").status_code == 200
