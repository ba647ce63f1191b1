"""Bounds on the work that requests cause; a rating that is stored is not refused because of them."""

import contextlib

import pytest
from fastapi.testclient import TestClient
from trained import fresh

from metarec_jax.recommender.state_codec import Seal
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.added_items import LEARNED_AT_ONCE
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine, Job, Whose
from metarec_jax.serving.rows import Event, NewItem
from metarec_jax.serving.store import Store

BEES = {"text": "A film about bees.", "id": "bees"}


class WatchedStore(Store):
    """Records the items whose raters are read: one whenever an item learns."""

    def __init__(self, folder):
        super().__init__(folder)
        self.learned = []

    def raters(self, item, most):
        self.learned.append(item)
        return super().raters(item, most)


@pytest.fixture
def engine(recommender, tmp_path):
    return Engine([Arm("a", fresh(recommender))], WatchedStore(tmp_path), seed=0)


def serving(engine, **options) -> TestClient:
    return TestClient(make_app(engine, hosts=frozenset({"127.0.0.1"}), **options), base_url="http://127.0.0.1")


def test_a_full_queue_refuses_new_items_and_stores_ratings(engine):
    engine.added.add(NewItem("bees", "", BEES["text"], {}))
    engine.store.add_user("u", "", [])
    user = Seal(engine.store.key).close("user", b"u")
    with serving(engine, max_waiting=0) as client:
        refused = client.post("/items", json={"text": "A film about ants."})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        rate = {"user": user, "item": "bees", "kind": "rating", "rating": 4}
        assert client.post("/feedback", json=rate).status_code == 201
        assert engine.store.raters("bees", 9) == [("u", 4.0)]
        assert client.get("/items/bees").json()["ratings"] == 0
        engine.answer([])  # the next batch
        assert client.get("/items/bees").json()["ratings"] == 1


def test_only_so_many_items_can_be_added(recommender, tmp_path):
    engine = Engine([Arm("a", fresh(recommender))], Store(tmp_path), seed=0, max_added=2)
    with serving(engine) as client:
        made = [client.post("/items", json={"text": f"Film {n}"}) for n in range(3)]
        assert [answer.status_code for answer in made] == [201, 201, 409]
        assert "train the model anew" in made[2].json()["detail"][0]["msg"]
        assert len(engine.store.items()) == 2


def test_an_item_learns_once_for_all_ratings_that_came_together(engine):
    engine.added.add(NewItem("bees", "", BEES["text"], {}))
    for n in range(50):
        engine.store.add([], [Event(f"u{n}", "bees", "rating", 3.0)])
        assert engine.added.note_rated(["bees", "7"])
    assert not engine.added.note_rated(["7"])  # which the model was trained with
    engine.answer([Job(Whose("u"))])
    engine.added.learn_noted()
    assert engine.store.learned == ["bees"]
    engine.added.note_rated(["bees"])
    engine.added.learn_noted()
    assert engine.store.learned == ["bees", "bees"]


def test_no_request_waits_for_very_many_items_to_learn(engine):
    for n in range(20):
        engine.added.add(NewItem(f"n{n}", "", f"Film {n}", {}))
    engine.added.note_rated(f"n{n}" for n in range(20))
    engine.added.learn_noted()
    assert len(engine.store.learned) == LEARNED_AT_ONCE
    engine.added.learn_noted()
    assert sorted(engine.store.learned) == sorted(f"n{n}" for n in range(20))


def test_figures_are_computed_again_only_after_a_write(engine):
    file = engine.store.folder / "service.sqlite"

    @contextlib.contextmanager
    def unreadable():
        """Move the file of the log away, so that figures that are computed again fail."""
        aside = file.rename(file.with_suffix(".aside"))
        yield
        aside.rename(file)

    def clicks() -> int:
        answer = client.get("/figures")
        assert answer.status_code == 200, answer.text
        return answer.json()["arms"]["a"]["clicks"]

    with serving(engine) as client:
        shown = client.post("/recommend", json={"k": 3}).json()
        assert clicks() == 0
        with unreadable():
            assert [clicks() for _ in range(3)] == [0] * 3
        click = {"list_id": shown["list_id"], "item": shown["items"][0]["id"], "kind": "click"}
        assert client.post("/feedback", json=click).status_code == 201
        with unreadable():
            assert client.get("/figures").status_code == 503
        assert clicks() == 1
        with unreadable():
            assert clicks() == 1


def test_counting_what_is_kept_looks_at_no_table(engine):
    asked: list[str] = []
    with serving(engine) as client:
        client.post("/users", json={"history": [{"item": "7", "rating": 5}, {"item": "8", "rating": 2}]})
        client.post("/items", json=BEES)
        client.post("/recommend", json={"k": 3})
        engine.store._reader.set_trace_callback(asked.append)
        text = client.get("/metrics").text
        engine.store._reader.set_trace_callback(None)
        assert asked == []
    kept = {name: float(text.split(f"\nmetarec_kept_{name} ")[1].split()[0]) for name in engine.store.counts()}
    assert kept == {"items": 1, "users": 1, "lists": 1, "events": 2}
    again = Store(engine.store.folder)
    assert again.counts() == kept
    version = again.version()
    assert again.version() == version
    again.add([], [Event("u", "7", "click")])
    assert again.version() != version
    again.close()
