"""The service in this process: what its routes answer, what they refuse, and what they store."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient
from trained import fresh

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.errors import InputError
from metarec_jax.serving.ab_test import Arm, Exploring
from metarec_jax.serving.app import make_app
from metarec_jax.serving.demo_users import Person
from metarec_jax.serving.engine import Engine, Job, List, Whose
from metarec_jax.serving.rows import NewItem
from metarec_jax.serving.store import Store

LIKES = [{"item": "7", "rating": 5}, {"item": "8", "rating": 1}]
HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def serving(recommender, folder, *, token=None, **engine) -> TestClient:
    people = {"9": Person("9", "a nurse", [("3", 4.0)])}
    app = make_app(
        Engine([Arm("a", recommender)], Store(folder), seed=0, **engine), token=token, hosts=HOSTS, people=people
    )
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def client(recommender, tmp_path_factory):
    with serving(fresh(recommender), tmp_path_factory.mktemp("store")) as client:
        yield client


def field_of(response) -> list:
    assert response.status_code == 422, response.text
    return response.json()["detail"][0]["loc"]


def test_a_list_equals_the_recommenders(client, recommender):
    answer = client.post("/recommend", json={"history": LIKES, "k": 5}).json()
    want = recommender.recommend(recommender.adapt({7: 5, 8: 1}), k=5)
    assert [(c["id"], c["title"], c["ratings"]) for c in answer["items"]] == [(r.id, r.title, r.ratings) for r in want]
    np.testing.assert_allclose([c["score"] for c in answer["items"]], [r.score for r in want], rtol=1e-5)
    assert [c["place"] for c in answer["items"]] == [1, 2, 3, 4, 5]


def test_a_deviation_is_that_of_the_predicted_levels(client, recommender):
    """By the definition: the root of the mean square around the mean, over the probabilities of the levels."""
    state = recommender.adapt({7: 5, 8: 1})
    ((_, both),) = recommender.executor.score_all_with_deviation([state])
    levels = np.array(recommender.catalogue.scale.levels)
    head, seen = recommender.executor.model.head, {}
    outputs = np.linspace(-2, 2, 5 * len(levels)).reshape(5, -1).astype(np.float32)
    seen["above"] = np.asarray(head.above(outputs))
    probability = np.diff(np.concatenate([np.ones((5, 1)), seen["above"], np.zeros((5, 1))], axis=1)) * -1
    mean = probability @ levels
    want = np.sqrt(probability @ levels**2 - mean**2)
    second = levels[0] ** 2 + seen["above"] @ np.diff(levels**2)
    np.testing.assert_allclose(np.sqrt(second - mean**2), want, rtol=1e-3)
    card = client.post("/recommend", json={"history": LIKES, "k": 1}).json()["items"][0]
    assert card["deviation"] == pytest.approx(both[1, int(card["id"]) - 1], rel=1e-4)
    assert 0 < card["deviation"] < 2


def test_a_state_gives_the_list_of_its_history(client):
    state = client.post("/adapt", json={"history": LIKES}).json()["state"]
    assert len(state) < 65_536
    lists = [client.post("/recommend", json=by | {"k": 6}).json() for by in ({"state": state}, {"history": LIKES})]
    assert [c["id"] for c in lists[0]["items"]] == [c["id"] for c in lists[1]["items"]]
    np.testing.assert_allclose(*[[c["score"] for c in found["items"]] for found in lists], rtol=1e-5)


def test_a_state_with_one_more_rating_gives_the_list_of_the_longer_history(client):
    first = client.post("/adapt", json={"history": LIKES}).json()
    more = client.post("/adapt", json={"state": first["state"], "history": [{"item": "9", "rating": 4}]}).json()
    less = client.post("/adapt", json={"state": more["state"], "forget": ["7"]}).json()
    assert [r["rated"] for r in (first, more, less)] == [2, 3, 2]
    lists = [
        client.post("/recommend", json=by).json()["items"]
        for by in ({"state": less["state"]}, {"history": [LIKES[1], {"item": "9", "rating": 4}]})
    ]
    assert [c["id"] for c in lists[0]] == [c["id"] for c in lists[1]]
    changed = {"state": first["state"], "history": [{"item": "7", "rating": 1}]}
    assert client.post("/adapt", json=changed).json()["rated"] == 2


def test_a_user_without_ratings_gets_the_list_of_the_prior(client, recommender):
    answer = client.post("/recommend", json={}).json()
    assert [c["id"] for c in answer["items"]] == [r.id for r in recommender.recommend(recommender.adapt())]


def test_concurrent_requests_get_their_own_answers(client, recommender):
    histories = [{n + 1: 1 + n % 5, 60 + n: 5} for n in range(24)]
    gate = threading.Barrier(len(histories))

    def ask(history):
        gate.wait()
        body = {"history": [{"item": str(i), "rating": r} for i, r in history.items()], "k": 4, "log": False}
        return [c["id"] for c in client.post("/recommend", json=body).json()["items"]]

    with ThreadPoolExecutor(len(histories)) as pool:
        got = list(pool.map(ask, histories))
    want = [[r.id for r in found] for found in recommender.recommend_many(recommender.adapt_many(histories), k=4)]
    assert got == want
    jobs = client.get("/metrics").text
    together = [line for line in jobs.splitlines() if line.startswith("metarec_jobs_per_call_")]
    count = next(float(line.split()[-1]) for line in together if "_count" in line)
    total = next(float(line.split()[-1]) for line in together if "_sum" in line)
    assert total > count, "some were computed together"


def test_requests_compile_nothing_after_the_start(recommender, tmp_path, compilations):
    engine = Engine([Arm("a", fresh(recommender))], Store(tmp_path))
    assert engine.warm(4) == (2 * 2 + 2) * len(recommender.config.episodes.buckets)
    done = len(compilations)
    state = None
    for users in (1, 2, 3, 4):
        for length in (0, 1, 17, 40):
            history = [(str(i + 1), 3.0) for i in range(length)]
            asked = [Job(Whose(f"u{u}", {}, history), List(5 + u)) for u in range(users)]
            done_jobs = engine.answer(asked)
            assert all(len(answer.places) == 5 + u for u, answer in enumerate(done_jobs))
            state = engine.write_states("u0", done_jobs[0].states)
    user, states = engine.read_states(state)
    more = Job(Whose(user, states, [("99", 1.0)], ["3"]), None, ["5", "6"])
    assert len(engine.answer([more, more])[1].scores) == 2
    engine.added.add(NewItem("", "", "A film about bees.", {}))
    engine.answer([Job(Whose("u", states=states), List(100))])
    for items in (["3"], ["3", "4", "5"]):
        engine.first.explain(engine.answer([more])[0].states["a"], [f"id:{item}" for item in items])
    programs = ("adapt", "score", "influences")
    assert [name for name in compilations[done:] if any(program in name for program in programs)] == []


def test_a_mistake_fails_its_own_job_only(client, recommender):
    engine = client.app.state.service.engine
    jobs = [Job(Whose("u", {}, [("7", 5.0)]), List(3)), Job(Whose("v", {}, [("nope", 5.0)]), List(3))]
    good, bad = engine.answer(jobs)
    assert len(good.places) == 3
    assert isinstance(bad, InputError)
    assert bad.field == ("history", 0, "item")


def test_scores_and_similar_items(client, recommender):
    answer = client.post("/score", json={"history": LIKES, "items": ["3", "4"], "texts": ["a quiet film"]}).json()
    state = recommender.adapt({7: 5, 8: 1})
    want = [*recommender.score(state, [3, 4]), recommender.score_text(state, "a quiet film")]
    np.testing.assert_allclose([s["score"] for s in answer["scores"]], want, rtol=1e-5)
    similar = client.get("/similar/3?k=4&by=text").json()
    assert similar["item"]["id"] == "3"
    table = recommender.catalogue.embeddings
    cosine = table @ table[2] / np.linalg.norm(table, axis=1) / np.linalg.norm(table[2])
    cosine[2] = -2
    assert [s["id"] for s in similar["similar"]] == [str(i + 1) for i in np.argsort(-cosine)[:4]]


def test_explanations_equal_the_recommenders(client, recommender):
    answer = client.post("/explain", json={"history": LIKES, "items": ["3", "60"]}).json()["explanations"]
    want = recommender.explain(recommender.adapt({7: 5, 8: 1}), [3, 60])
    for got, one in zip(answer, want, strict=True):
        assert (got["item"], got["sentence"], got["words"]) == (one.id, one.sentence, None)
        assert got["score"] == pytest.approx(one.score, rel=1e-5)
        influences = {i.id: i.influence for i in one.influences}
        assert {i["id"]: i["influence"] for i in got["influences"]} == pytest.approx(influences, rel=1e-3, abs=1e-6)
    (told,) = client.post("/explain", json={"history": LIKES, "items": ["3"], "words": True}).json()["explanations"]
    assert told["words"]


def test_a_new_item_can_be_recommended_at_once_and_after_a_restart(recommender, tmp_path):
    bodies = [{"text": "A film about bees. It hums.", "id": "bees"}, {"text": "Ants", "title": "Ants (2001)"}]
    lists = []
    for _ in range(2):
        with serving(fresh(recommender), tmp_path) as client:
            made = [client.post("/items", json=body) for body in bodies]
            everything = client.post("/recommend", json={"history": LIKES, "k": 100, "log": False}).json()["items"]
            found = client.get("/items", params={"search": "bees"}).json()["items"]
            lists.append([(c["id"], round(c["score"], 4)) for c in everything])
            bodies = bodies[:1]
            if len(lists) == 1:
                assert [m.json()["title"] for m in made] == ["A film about bees", "Ants (2001)"]
                assert made[1].json()["id"] == "new-122"
            else:
                assert field_of(made[0]) == ["body", "id"]
            assert [(f["id"], f["new"], f["ratings"]) for f in found] == [("bees", True, 0)]
    assert lists[0] == lists[1]
    text = {"texts": ["A film about bees. It hums."], "items": ["bees"]}
    with serving(fresh(recommender), tmp_path) as client:
        scores = client.post("/score", json=text).json()["scores"]
    assert scores[0]["score"] == pytest.approx(scores[1]["score"], rel=1e-5)


def test_a_user_is_stored_with_later_ratings(recommender, tmp_path):
    with serving(fresh(recommender), tmp_path) as client:
        user = client.post("/users", json={"history": LIKES}).json()["user"]
        rate = {"user": user, "item": "9", "kind": "rating", "rating": 4}
        assert client.post("/feedback", json=rate).json() == {"kept": True}
        assert client.post("/feedback", json={"user": user, "item": "7", "kind": "forget"}).status_code == 201
    with serving(fresh(recommender), tmp_path) as client:
        mine = client.post("/recommend", json={"user": user}).json()["items"]
        want = client.post("/recommend", json={"history": [LIKES[1], {"item": "9", "rating": 4}]}).json()["items"]
        assert [c["id"] for c in mine] == [c["id"] for c in want]
        assert client.post("/adapt", json={"user": user}).json()["rated"] == 2


def test_every_place_and_click_is_stored(recommender, tmp_path):
    with serving(fresh(recommender), tmp_path, exploring=Exploring(0.5, 20)) as client:
        answer = client.post("/recommend", json={"history": LIKES, "k": 3}).json()
        first = answer["items"][0]["id"]
        click = {"list_id": answer["list_id"], "item": first, "kind": "click"}
        assert client.post("/feedback", json=click).status_code == 201
        assert field_of(client.post("/feedback", json=click | {"item": "7"})) == ["body", "item"]
        assert field_of(client.post("/feedback", json=click | {"list_id": "x"})) == ["body", "list_id"]
        assert client.post("/recommend", json={"log": False}).json()["list_id"] is None
    store = Store(tmp_path)
    assert store.counts() == {"items": 0, "users": 0, "lists": 1, "events": 1}
    ((history, explore, pool),) = store._read("SELECT history, explore, pool FROM lists")
    assert (json.loads(history), explore, pool) == ([["7", 5.0], ["8", 1.0]], 0.5, 20)
    shown = store._read("SELECT place, item, arm, propensity, own_place FROM shown ORDER BY place")
    assert [row[1] for row in shown] == [c["id"] for c in answer["items"]]
    for place, _, arm, propensity, own in shown:
        assert arm == "a"
        assert propensity == pytest.approx(0.5 / 20 + (0.5 if own == place else 0))
    assert store._read("SELECT item, kind, list FROM events") == [(first, "click", answer["list_id"])]
    store.close()


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/recommend", {"history": [{"item": "nope", "rating": 3}]}, ["history", 0, "item"]),
        ("/recommend", {"history": [{"item": "7", "rating": 9}]}, ["history", 0, "rating"]),
        ("/recommend", {"history": [*LIKES, LIKES[0]]}, ["history", 2, "item"]),
        ("/recommend", {"k": 0}, ["k"]),
        ("/recommend", {"k": 10**6}, ["k"]),
        ("/recommend", {"kk": 3}, ["kk"]),
        ("/recommend", {"state": "AAAA"}, ["state"]),
        ("/recommend", {"state": "../../etc/passwd"}, ["state"]),
        ("/recommend", {"user": "AAAA"}, ["user"]),
        ("/recommend", {"filters": {"details": {"colour": ["red"]}}}, ["filters", "details", "colour"]),
        ("/recommend", {"filters": {"exclude": ["nope"]}}, ["filters", "exclude", 0]),
        ("/recommend", {"profile": "a nurse"}, ["profile"]),
        ("/adapt", {"forget": ["7"]}, ["forget", 0]),
        ("/adapt", {"history": [LIKES[0]] * 1001}, ["history"]),
        ("/score", {"items": ["nope"]}, ["items", 0]),
        ("/score", {"texts": [" "]}, ["texts", 0]),
        ("/score", {"texts": ["x" * 4001]}, ["texts", 0]),
        ("/explain", {"items": ["3", "nope"]}, ["items", 1]),
        ("/items", {"text": " "}, ["text"]),
        ("/items", {"text": "x", "details": {"colour": "red"}}, ["details", "colour"]),
        ("/items", {"text": "x", "id": "7"}, ["id"]),
        ("/feedback", {"item": "7", "kind": "click"}, []),
        ("/feedback", {"item": "7", "kind": "steal", "list_id": "x"}, ["kind"]),
    ],
)
def test_an_invalid_request_gets_422_with_the_field(client, path, body, field):
    assert field_of(client.post(path, json=body)) == ["body", *field]


def test_forged_states_and_user_tokens_are_refused(client, recommender, tmp_path):
    state = client.post("/adapt", json={"history": LIKES}).json()["state"]
    user = client.post("/users", json={"history": LIKES}).json()["user"]
    for place in (0, 20, 60, len(state) // 2, len(state) - 5):
        other = "A" if state[place] != "A" else "B"
        assert field_of(client.post("/recommend", json={"state": state[:place] + other + state[place + 1 :]}))
    assert field_of(client.post("/recommend", json={"state": user}))  # sealed, but for another purpose
    assert field_of(client.post("/recommend", json={"user": state[:200]}))
    with serving(fresh(recommender), tmp_path) as elsewhere:  # another key
        assert field_of(elsewhere.post("/recommend", json={"state": state})) == ["body", "state"]
        assert field_of(elsewhere.post("/recommend", json={"user": user})) == ["body", "user"]


def test_a_list_of_another_user_takes_no_feedback(client):
    mine, other = (client.post("/users", json={}).json()["user"] for _ in range(2))
    answer = client.post("/recommend", json={"user": mine}).json()
    click = {"list_id": answer["list_id"], "item": answer["items"][0]["id"], "kind": "click"}
    assert field_of(client.post("/feedback", json=click | {"user": other})) == ["body", "user"]
    assert client.post("/feedback", json=click | {"user": mine}).status_code == 201


def test_hostile_text_is_returned_unchanged(recommender, tmp_path):
    text = "<script>alert(1)</script> \u202e \x00 '; DROP TABLE items; -- 💥"
    with serving(fresh(recommender), tmp_path) as client:
        made = client.post("/items", json={"text": text})
        assert made.json()["text"] == text
        assert made.headers["content-type"] == "application/json"
        assert made.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in made.headers["content-security-policy"]
        lone = client.post(
            "/items", content=b'{"text": "\\ud800", "\\ud800": 1}', headers={"content-type": "application/json"}
        )
        assert lone.status_code == 422


def test_a_body_that_is_too_large_is_refused(client):
    assert client.post("/adapt", content=b" " * (256 * 1024 + 1)).status_code == 413

    def pieces():
        for _ in range(300):
            yield b" " * 1024

    assert client.post("/adapt", content=pieces(), headers={"content-type": "application/json"}).status_code == 413


def test_every_route_but_healthz_needs_the_token(recommender, tmp_path):
    with serving(fresh(recommender), tmp_path, token="correct horse battery") as client:
        right = {"authorization": "Bearer correct horse battery"}
        paths = client.get("/openapi.json", headers=right).json()["paths"]
        routes = [(method, path) for path, methods in paths.items() for method in methods if path != "/healthz"]
        assert len(routes) == 18
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "correct horse battery"}):
            for method, path in [*routes, ("get", "/openapi.json")]:
                refused = client.request(
                    method, path, headers=wrong | {"content-type": "application/json"}, content="{"
                )
                assert refused.status_code == 401, (method, path)  # before the body, which is no JSON, is parsed
                assert refused.headers["www-authenticate"] == "Bearer"
                assert refused.json()["detail"][0]["loc"] == ["header"]
        assert client.post("/recommend", json={}, headers=right).status_code == 200
        assert client.get("/healthz").json() == {"status": "ok"}
        assert "metarec" in client.get("/").text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8765", 200),
        ("LOCALHOST:80", 200),
        ("[::1]", 200),
        ("[::1]:8765", 200),
        ("evil.example", 421),
        ("evil.example:8765", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil@127.0.0.1", 421),
        ("[::1", 421),
        ("::1", 421),
        ("", 421),
    ],
)
def test_only_requests_for_its_own_host_names_are_served(client, host, status):
    for path in ("/healthz", "/", "/nowhere"):
        answer = client.get(path, headers={"host": host})
        assert (answer.status_code == 421) == (status == 421), path
        if status == 421:
            assert answer.json()["detail"][0]["loc"] == ["header"]


def test_requests_are_counted_by_route_and_status(client):
    client.get("/items/7")
    client.get("/similar/nope")
    counted = client.get("/metrics").text
    for route, status in (("/items/{item_id:any}", 200), ("/similar/{item_id:any}", 404)):
        assert f'metarec_requests_total{{route="{route}",status="{status}"}}' in counted


def test_users_of_a_public_data_set(client):
    assert client.get("/users").json()["users"] == [{"id": "9", "profile": "a nurse", "ratings": 1}]
    assert [h["id"] for h in client.get("/users/9").json()["history"]] == ["3"]
    missing = client.get("/users/10")
    assert (missing.status_code, missing.json()["detail"][0]["loc"]) == (404, ["path", "user_id"])
    assert client.get("/similar/nope").json()["detail"][0]["loc"] == ["path", "item_id"]


def test_runs_with_other_items_cannot_be_compared(recommender, tmp_path):
    other = fresh(recommender)
    other.add_item("A film about bees.")
    with pytest.raises(MetarecError, match="the two runs do not have the same items"):
        Engine([Arm("a", recommender), Arm("b", other)], Store(tmp_path), mode="ab")
