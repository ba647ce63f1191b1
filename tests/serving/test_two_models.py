"""Two models behind one service: lists, explanations and figures are those of the model that chose the items."""

import collections

import pytest
from fastapi.testclient import TestClient
from trained import believing_run

from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.store import Store

LIKES = [{"item": "7", "rating": 5}, {"item": "8", "rating": 1}, {"item": "9", "rating": 4}]


@pytest.fixture(scope="module")
def arms(recommender) -> list[Arm]:
    return [Arm("a", recommender), Arm("b", Recommender.load(believing_run()))]


@pytest.fixture(params=[pytest.param("ab", marks=pytest.mark.slow), "interleave"])
def client(request, arms, tmp_path):
    engine = Engine(arms, Store(tmp_path), mode=request.param, seed=0)
    with TestClient(make_app(engine, hosts=frozenset({"127.0.0.1"})), base_url="http://127.0.0.1") as client:
        yield client


def test_from_adapting_to_figures(client, arms):
    models = {arm.name: arm.recommender for arm in arms}
    mode = client.get("/about").json()["mode"]
    mine = {name: model.adapt([(int(r["item"]), r["rating"]) for r in LIKES]) for name, model in models.items()}
    users, clicks, explained = collections.Counter(), collections.Counter(), collections.defaultdict(dict)
    while min(users["a"], users["b"]) < 3:  # an arm is drawn for each user
        state = client.post("/adapt", json={"history": LIKES}).json()["state"]
        shown = client.post("/recommend", json={"state": state, "k": 6}).json()
        of = {card["id"]: card for card in shown["items"]}
        chose = {card["arm"] for card in of.values()}
        assert chose == ({"a", "b"} if mode == "interleave" else {shown["arm"]})
        for name in chose:
            users[name] += 1
            theirs = [card["id"] for card in of.values() if card["arm"] == name]
            best = models[name].recommend(mine[name], k=6)
            assert theirs[0] in [found.id for found in best]
            if users[name] % 2:
                click = {"list_id": shown["list_id"], "item": theirs[0], "kind": "click"}
                assert client.post("/feedback", json=click).status_code == 201
                clicks[name] += 1
            if users[name] > 1:
                continue
            asked = {"state": state, "items": theirs, "arm": name}
            for one in client.post("/explain", json=asked).json()["explanations"]:
                explained[name][one["item"]] = one
                assert one["arm"] == name
                assert one["score"] == pytest.approx(of[one["item"]]["score"], rel=1e-4)
    for name, found in explained.items():
        for want in models[name].explain(mine[name], [f"id:{item}" for item in found]):
            got = found[want.id]
            assert got["sentence"] == want.sentence
            influences = {i.id: i.influence for i in want.influences}
            assert {i["id"]: i["influence"] for i in got["influences"]} == pytest.approx(influences, rel=1e-3, abs=1e-5)
    figures = client.get("/figures").json()
    assert set(figures["arms"]) == {"a", "b"}
    for name, figure in figures["arms"].items():
        assert (figure["users"], figure["clicks"]) == (users[name], clicks[name])
        assert figure["ctr"]["low"] < figure["ctr"]["value"] < figure["ctr"]["high"]
    compared = figures["b less a"]["ctr"] if mode == "ab" else figures["interleaving"]["b over a"]
    assert compared["low"] <= compared["value"] <= compared["high"]
    assert {row["arm"] for row in figures["over time"]} == {"a", "b"}
    if mode == "ab":  # a state is of one model; and without one any model can be asked
        other = {"a": "b", "b": "a"}[shown["arm"]]
        refused = client.post("/explain", json={"state": state, "items": ["3"], "arm": other})
        assert refused.json()["detail"][0]["loc"] == ["body", "state"]
    for name in models:
        asked = {"history": LIKES, "items": ["3"], "arm": name}
        (one,) = client.post("/explain", json=asked).json()["explanations"]
        assert one["score"] == pytest.approx(models[name].score(mine[name], ["id:3"])[0], rel=1e-4)
    unknown = client.post("/explain", json={"items": ["3"], "arm": "c"})
    assert unknown.json()["detail"][0]["loc"] == ["body", "arm"]
