"""A store that is full, locked, damaged or gone: what is answered, and that memory never has more than the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading

import pytest
from fastapi.testclient import TestClient
from helpers import assert_says
from trained import fresh, trained_run

from metarec_jax import encoder as encoders
from metarec_jax.cli import main
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving import store as stores
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.database import FILE
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.rows import Event, NewItem
from metarec_jax.serving.store import Store

BEES = {"text": "A film about bees.", "id": "bees"}


def serving(recommender, folder, **options) -> TestClient:
    app = make_app(Engine([Arm("a", recommender)], Store(folder), seed=0), **options)
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture
def client(recommender, tmp_path):
    with serving(fresh(recommender), tmp_path) as client:
        yield client


def full(store: Store, folder) -> contextlib.AbstractContextManager:
    """Let the file have no further page, as a full disk does."""
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    undo = contextlib.ExitStack()
    undo.callback(store._database.execute, "PRAGMA max_page_count = 1000000")
    return undo


def locked(store: Store, folder) -> contextlib.AbstractContextManager:
    """Lock the database, as another program can."""
    other = sqlite3.connect(folder / FILE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return contextlib.closing(other)


def read_only(store: Store, folder) -> contextlib.AbstractContextManager:
    store._database.execute("PRAGMA query_only = 1")
    undo = contextlib.ExitStack()
    undo.callback(store._database.execute, "PRAGMA query_only = 0")
    return undo


@contextlib.contextmanager
def removed(store: Store, folder):
    aside = (folder / FILE).rename(folder / "aside")
    yield
    aside.rename(folder / FILE)


@pytest.mark.parametrize(
    ("fault", "says", "passing"),
    [
        (full, "the disk is full", True),
        (locked, "another process has locked the database", True),
        (read_only, "read-only", False),
        (removed, "removed or replaced", False),
    ],
)
def test_what_cannot_be_stored_is_not_served(client, recommender, tmp_path, fault, says, passing):
    store = client.app.state.service.store
    store.wait = 0.05
    listed = client.post("/recommend", json={"k": 1}).json()
    page = " " * 3900  # a row of an item fills a page of the database
    assert client.post("/items", json={"text": "Ants." + page}).status_code == 201
    bodies = {
        "/items": BEES | {"text": "Bees." + page},
        "/users": {"history": [{"item": "7", "rating": 5}] + [{"item": str(n), "rating": 1} for n in range(20, 110)]},
        "/recommend": {"k": 100},
        "/feedback": {"list_id": listed["list_id"], "item": listed["items"][0]["id"], "kind": "click"},
    }
    before = store.counts()
    with fault(store, tmp_path):
        if fault is full:
            while client.post("/recommend", json=bodies["/recommend"]).status_code == 200:
                before = store.counts()
        for path in list(bodies)[: 3 if fault is full else 4]:  # one click fits into a page that is there
            refused = client.post(path, json=bodies[path])
            assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (503, ["service"]), path
            assert says in refused.json()["detail"][0]["msg"]
            assert ("retry-after" in refused.headers) == passing
            assert str(tmp_path) not in refused.text
        assert client.get("/items/bees").status_code == 404
        assert client.post("/recommend", json={"k": 3, "log": False}).status_code == 200
        ill = client.get("/healthz")
        assert (ill.status_code, ill.json()["status"]) == (503, "degraded")
        assert says in ill.json()["problems"][0]["msg"]
        assert store.counts() == before
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.post("/items", json=bodies["/items"]).status_code == 201
    store.close()
    with contextlib.closing(Store(tmp_path)) as again:
        assert [item.id for _, item in again.items()] == ["new-121", "bees"]


def test_a_write_that_waits_holds_nobody_up(client, tmp_path):
    client.app.state.service.store.wait = 60.0
    user = client.post("/users", json={"history": [{"item": "7", "rating": 5}]}).json()["user"]
    added: list[int] = []
    waiting = threading.Thread(target=lambda: added.append(client.post("/items", json=BEES).status_code))
    with locked(client.app.state.service.store, tmp_path):
        waiting.start()
        for _ in range(3):
            assert client.post("/recommend", json={"user": user, "k": 3, "log": False}).status_code == 200
            assert client.post("/score", json={"user": user, "items": ["3"]}).status_code == 200
            assert client.get("/healthz").status_code == 200
            assert client.get("/items?search=bees").status_code == 200
        assert not added
    waiting.join(60)
    assert added == [201]


def test_requests_with_one_id_at_the_same_time_add_one_item(client):
    together, found = threading.Barrier(4), []

    def add(text: str) -> None:
        together.wait()
        found.append(client.post("/items", json={"id": "bees", "text": text}).status_code)

    threads = [threading.Thread(target=add, args=(f"Film {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [201, 422, 422, 422]
    ((_, kept),) = client.app.state.service.store.items()
    assert client.get("/items/bees").json()["text"] == kept.text


# Damage


def stored(folder) -> None:
    with contextlib.closing(Store(folder)) as store:
        for n in range(40):
            store.add_item(NewItem(f"n{n}", "", f"Film {n} " * 300, {}))
        store.add([], [Event("u", "7", "rating", 3.0)] * 400)


def cut(file) -> None:
    file.write_bytes(file.read_bytes()[:9000])


def garbage(file) -> None:
    file.write_bytes(b"not a database at all" * 600)


def overwritten(file) -> None:
    data = bytearray(file.read_bytes())
    data[4096 : 4096 * 6] = b"\xff" * (4096 * 5)
    file.write_bytes(data)


def no_json(file) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE items SET details = '{'")
        row = ["L", "u", "a", "m", "single", "[[", "{", 1, 0.0, 1.0]
        database.execute("INSERT INTO lists VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        database.execute("INSERT INTO shown VALUES ('L', 1, '7', 'a', 1.0, 1.0, 1)")


def no_utf8(file) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE items SET text = CAST(x'ff41' AS TEXT)")
        database.execute("UPDATE events SET item = CAST(x'ff41' AS TEXT), list = 'L'")
        row = ["L", "u", "a", "m", "single", "[]", "{}", 1, 0.0, 1.0]
        database.execute("INSERT INTO lists VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        database.execute("INSERT INTO shown VALUES ('L', 1, '7', 'a', 1.0, 1.0, 1)")


@pytest.mark.parametrize("damage", [cut, garbage, overwritten, no_json, no_utf8])
def test_a_damaged_store_is_one_message(recommender, tmp_path, capsys, damage):
    stored(tmp_path)
    damage(tmp_path / FILE)
    with pytest.raises(MetarecError) as refused:
        Engine([Arm("a", fresh(recommender))], Store(tmp_path))
    said = [str(refused.value)]
    assert main.main(["feedback", str(trained_run()), "--store", str(tmp_path)]) == 2
    said.append(capsys.readouterr().err)
    for message in said:
        assert_says(message, str(tmp_path / FILE), "damaged", "restore it from a backup", "--store")
        assert len(message) < 500
        assert "Traceback" not in message


# The clock


def test_times_are_in_order_when_the_clock_is_set_back(tmp_path, monkeypatch):
    clock = [2000.0]
    monkeypatch.setattr(stores.time, "time", lambda: clock[0])
    store = Store(tmp_path)
    for now in (2000.0, 1000.0, 2500.0):
        clock[0] = now
        store.add([], [Event("u", "7", "rating", 3.0)])
    store.close()
    clock[0] = 500.0
    with contextlib.closing(Store(tmp_path)) as store:
        store.add([], [Event("u", "7", "rating", 3.0)])
        times = [time for (time,) in store._read("SELECT time FROM events ORDER BY number")]
    assert times == sorted(set(times))
    assert [round(time, 3) for time in times] == [2000.0, 2000.0, 2500.0, 2500.0]


# The encoder


def test_an_encoder_that_is_gone_is_needed_for_new_texts_only(recommender, tmp_path):
    folder = tmp_path / "encoder"
    encoders.save(encoders.load("random"), folder)
    config = recommender.config
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, path=str(folder)))

    def model() -> Recommender:
        return Recommender(config, recommender.catalogue, recommender.executor.trainable)

    asked = {"items": ["bees"]}
    with serving(model(), tmp_path / "store") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.post("/items", json=BEES).status_code == 201
        score = client.post("/score", json=asked).json()["scores"][0]["score"]
    folder.rename(tmp_path / "aside")
    with serving(model(), tmp_path / "store") as client:  # what was read of the item is in the store
        assert client.post("/score", json=asked).json()["scores"][0]["score"] == pytest.approx(score, rel=1e-6)
        ill = client.get("/healthz")
        assert (ill.status_code, ill.json()["status"]) == (200, "degraded")
        assert "encoder" in ill.json()["problems"][0]["msg"]
        for path, body in (("/items", {"text": "Ants."}), ("/score", {"texts": ["Ants."]})):
            refused = client.post(path, json=body)
            assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (503, ["service"])
            assert str(tmp_path) not in ill.text + refused.text
        (tmp_path / "aside").rename(folder)
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.post("/items", json={"text": "Ants."}).status_code == 201
