"""Every id and every value that the service shows can be sent back to it, whatever its characters are."""

from __future__ import annotations

import dataclasses
import http.client
import json
from urllib.parse import quote

import pytest
from helpers import assert_says
from live_service import live

from metarec_jax.recommender.recommender import Recommender

IDS = (
    "https://shop.example/p/lamp?c=1#top", "a b%20c", "лампа/№3", "x" * 230, "..", "+1&2", "été",
    "e\u0301te\u0301", ".", "/", "//", "a/../b", "?", "#", "%", "%2F", "%zz", " ", " blanks ",
    "\u200b", "\u00a0", "line\nbreak", "ends with a break\n", "tab\t", "\x00", "\x1b[31mred\x1b[0m", "<b>&amp;\"'",
    "id:7", "new-121", "null", "0", "😀", "\u202eabc",
    "y" * 5000,
)  # fmt: skip
BRANDS = ("Stone, Inc.", "Müller & Co", "a|b; c", "z" * 400, "İstanbul")


@pytest.fixture(scope="module")
def service(recommender, tmp_path_factory):
    """A service of `trained_run`, whose first items have `IDS`, and whose items have `BRANDS` in turn."""
    catalogue, trainable = recommender.catalogue, recommender.executor.trainable
    ids = (*IDS, *catalogue.items.ids[len(IDS) :])
    items = dataclasses.replace(
        catalogue.items, ids=ids, details={"brand": tuple(BRANDS[n % len(BRANDS)] for n in range(len(ids)))}
    )
    model = Recommender(
        recommender.config, dataclasses.replace(catalogue, items=items), trainable, recommender.texts.encoder
    )
    with live(model, tmp_path_factory.mktemp("store")) as service:
        yield service


@pytest.mark.parametrize("identity", IDS, ids=ascii)
def test_an_id_that_is_shown_can_be_asked_for_rated_and_clicked(service, identity):
    path = quote(identity, safe="")
    for answer in (service.get(f"/items/{path}"), service.get("/items", id=identity)):
        assert answer.status == 200, answer.body
    assert service.get("/items", id=identity).json["items"][0]["id"] == identity
    for answer in (service.get(f"/similar/{path}?k=1"), service.get("/similar", item=identity, k="1")):
        assert (answer.status, answer.json["item"]["id"]) == (200, identity)
    history = [{"item": identity, "rating": 5}]
    assert service.post("/adapt", {"history": history}).json["rated"] == 1
    why = service.post("/explain", {"history": history, "items": [identity]})
    assert why.json["explanations"][0]["item"] == identity
    others = [i for i in service.engine.first.catalogue.items.ids if i != identity]
    shown = service.post("/recommend", {"k": 1, "filters": {"exclude": others}}).json
    assert [card["id"] for card in shown["items"]] == [identity]
    clicked = service.post("/feedback", {"list_id": shown["list_id"], "item": identity, "kind": "click"})
    assert clicked.json == {"kept": True}


@pytest.mark.parametrize("brand", [*BRANDS, "stone, inc.", "Mu\u0308ller & Co", "Stone", " b "], ids=ascii)
def test_a_filter_by_a_value_that_is_shown_finds_its_items(service, brand):
    found = service.post("/recommend", {"k": 9, "log": False, "filters": {"details": {"brand": [brand]}}}).json["items"]
    assert len(found) == 9
    assert len({card["details"]["brand"] for card in found}) == 1


def test_every_get_route_answers_head(service):
    paths = [
        "/",
        "/healthz",
        "/about",
        "/items",
        "/items/7",
        "/similar/7",
        "/users",
        "/figures",
        "/metrics",
        "/openapi.json",
    ]
    for path in paths:
        want, got = service.get(path.replace("/7", "/99")), service.ask("HEAD", path.replace("/7", "/99"))
        assert (want.status, got.status, got.body) == (200, 200, b""), path
        if path not in ("/metrics", "/figures"):  # which change with every request
            assert got.headers["content-length"] == want.headers["content-length"]
    assert service.ask("HEAD", "/items/nope").status == 404


def long_id(body: dict) -> dict:
    return json.loads(json.dumps(body).replace("LONG", "n" * 20_000))


MISTAKES = [
    ("POST", "/recommend", b"\x1f\x8b\x08", {"content-type": "application/json", "content-encoding": "gzip"}, 415,
     ["header"], ["Content-Encoding"]),
    ("POST", "/recommend", b'{"k": 1}', {"content-type": "text/plain"}, 415, ["header"], ["text/plain"]),
    ("POST", "/recommend", b'{"k": 1}', {}, 415, ["header"], ["missing", "application/json"]),
    ("POST", "/recommend", b"{}", {"content-type": "application/json; charset=latin-1"}, 415, ["header"], ["latin-1"]),
    ("POST", "/recommend", '{"profile": "été"}'.encode("latin-1"), None, 400, ["body"], []),
    ("POST", "/recommend", b'{"a":' * 5000 + b"1" + b"}" * 5000, None, 400, ["body"], []),
    ("POST", "/recommend", b'{"k":' + b"9" * 5000 + b"}", None, 400, ["body"], []),
    ("POST", "/recommend", b'{"history": [{"item": "99", "rating": NaN}]}', None, 422,
     ["body", "history", 0, "rating"], ["finite"]),
    ("POST", "/recommend", b'{"history": [{"item": "99", "rating": 1e999}]}', None, 422,
     ["body", "history", 0, "rating"], ["finite"]),
    ("POST", "/recommend", {"history": [{"item": "99", "rating": 1e30}]}, None, 422,
     ["body", "history", 0, "rating"], []),
    ("POST", "/recommend", {"filters": {"between": {"brand": [0, 1e30]}}}, None, 422,
     ["body", "filters", "between", "brand", 1], []),
    ("POST", "/recommend", {"history": [{"item": "LONG", "rating": 5}]}, None, 422,
     ["body", "history", 0, "item"], ["nnn…"]),
    ("POST", "/feedback", {"list_id": "x", "item": "LONG", "kind": "click"}, None, 422, ["body", "item"], ["nnn…"]),
    ("GET", "/items?id=nope", None, None, 404, ["query", "id"], ["'nope'"]),
    ("GET", "/similar?item=nope", None, None, 404, ["query", "item"], ["'nope'"]),
    ("GET", "/items/nope", None, None, 404, ["path", "item_id"], ["'nope'"]),
    ("GET", "/recommend", None, None, 404, ["path"], []),
    ("PUT", "/items", {"id": "a"}, None, 405, ["path"], []),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "loc", "says"), MISTAKES)
def test_a_mistake_is_a_4xx_with_its_place(service, method, path, body, headers, status, loc, says):
    answer = service.ask(method, path, long_id(body) if isinstance(body, dict) else body, headers)
    assert (answer.status, answer.loc) == (status, loc), answer.body
    message = answer.json["detail"][0]["msg"]
    assert_says(message, *says)
    assert len(message) < 600


@pytest.mark.parametrize(
    ("header", "status"),
    [("[::1]:8765", 200), ("[0:0:0:0:0:0:0:1]", 200), ("LOCALHOST.:80", 200), ("shop.example", 421), ("[::1", 421)],
)
def test_the_names_of_this_machine_are_its_hosts(service, header, status):
    assert service.ask("GET", "/healthz", headers={"host": header}).status == status


def test_a_body_with_a_byte_order_mark_or_a_charset_is_json(service):
    assert service.ask("POST", "/recommend", b'\xef\xbb\xbf{"k":1}').status == 200
    kind = {"content-type": "application/json; charset=utf-8"}
    assert service.ask("POST", "/recommend", b'{"k":1}', kind).status == 200


def test_bytes_that_are_no_request_are_a_400_in_json(service):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("POST", "/recommend", b"{}", {"content-length": "+2"})
    answer = connection.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read())["detail"][0]["loc"] == ["header"]
    connection.close()
