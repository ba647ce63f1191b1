"""Work that requests can make is bounded, and what was kept is not refused for want of time."""

import threading
from unittest import mock

import pytest
from fastapi.testclient import TestClient
from trained import fresh

from metarec_jax.recommender.state_codec import Seal
from metarec_jax.serving import app as apps
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.cache import Remembered
from metarec_jax.serving.engine import LEARNED_AT_ONCE, Engine, Job, Whose
from metarec_jax.serving.store import Event, NewItem, Store

BEES = {"text": "A film about bees.", "id": "bees"}


class WatchedStore(Store):
    """Records the items whose raters are read: once whenever an item learns."""

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


def test_where_too_much_waits_new_items_are_refused_and_ratings_are_kept(engine):
    engine.add_item(NewItem("bees", "", BEES["text"], {}))
    engine.store.add_user("u", "", [])
    user = Seal(engine.store.key).close("user", b"u")
    with serving(engine, longest=0) as client:
        refused = client.post("/items", json={"text": "A film about ants."})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        rate = {"user": user, "item": "bees", "kind": "rating", "rating": 4}
        assert client.post("/feedback", json=rate).status_code == 201
        assert engine.store.history("u") == [("bees", 4.0)]
        assert engine.store.learned == []
        engine.answer([])  # whatever comes next
        assert engine.store.learned == ["bees"]


def test_only_so_many_items_can_be_added(recommender, tmp_path):
    engine = Engine([Arm("a", fresh(recommender))], Store(tmp_path), seed=0, max_added=2)
    with serving(engine) as client:
        made = [client.post("/items", json={"text": f"Film {n}"}) for n in range(3)]
        assert [answer.status_code for answer in made] == [201, 201, 409]
        assert "train the model anew" in made[2].json()["detail"][0]["msg"]
        assert len(engine.store.items()) == 2


def test_an_item_learns_once_for_all_ratings_that_came_together(engine):
    engine.add_item(NewItem("bees", "", BEES["text"], {}))
    for n in range(50):
        engine.store.add([], [Event(f"u{n}", "bees", "rating", 3.0)])
        assert engine.hear(["bees", "7"])
    assert not engine.hear(["7"])  # which the model was trained with
    engine.answer([Job(Whose("u"))])
    engine.learn_heard()
    assert engine.store.learned == ["bees"]
    engine.hear(["bees"])
    engine.learn_heard()
    assert engine.store.learned == ["bees", "bees"]


def test_no_request_waits_for_very_many_items_to_learn(engine):
    for n in range(20):
        engine.add_item(NewItem(f"n{n}", "", f"Film {n}", {}))
    engine.hear(f"n{n}" for n in range(20))
    engine.learn_heard()
    assert len(engine.store.learned) == LEARNED_AT_ONCE
    engine.learn_heard()
    assert sorted(engine.store.learned) == sorted(f"n{n}" for n in range(20))


def test_a_dashboard_that_asks_again_makes_nothing_be_read_again(engine):
    with serving(engine) as client, mock.patch.object(apps, "read", wraps=apps.read) as read:
        shown = client.post("/recommend", json={"k": 3}).json()
        first = [client.get("/figures").json() for _ in range(4)]
        assert read.call_count == 1
        assert [found["arms"]["a"]["clicks"] for found in first] == [0] * 4
        click = {"list_id": shown["list_id"], "item": shown["items"][0]["id"], "kind": "click"}
        assert client.post("/feedback", json=click).status_code == 201
        for _ in range(200):  # as soon as reading it again is affordable
            if client.get("/figures").json()["arms"]["a"]["clicks"]:
                break
            threading.Event().wait(0.05)
        assert client.get("/figures").json()["arms"]["a"]["clicks"] == 1
        assert read.call_count == 2


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


def test_what_takes_long_is_made_for_a_tenth_of_the_time_at_most():
    now, made, version = [0.0], [], [0]

    def make():
        now[0] += 2.0
        made.append(now[0])
        return len(made)

    found = Remembered(make, lambda: version[0], share=0.1, clock=lambda: now[0])
    assert found.get() == 1
    now[0] += 1000
    assert found.get() == 1  # nothing has changed
    version[0] += 1
    assert found.get() == 2
    version[0] += 1
    seen = []
    for _ in range(19):
        now[0] += 1.0
        seen.append(found.get())
    assert seen == [2] * 17 + [3] * 2  # eighteen seconds later


def test_threads_that_ask_at_the_same_time_make_it_once():
    made, started, go = [], threading.Event(), threading.Event()

    def make():
        started.set()
        go.wait(10)
        made.append(1)
        return len(made)

    found, answers = Remembered(make, lambda: 0), []
    threads = [threading.Thread(target=lambda: answers.append(found.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert (answers, made) == ([1] * 4, [1])
