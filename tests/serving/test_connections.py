"""The door: origins and types of requests, sizes and times of their heads, numbers of connections, and IPv6."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import time

import pytest
from helpers import assert_says
from live_service import live
from trained import fresh

from metarec_jax.core.errors import MetarecError
from metarec_jax.serving.answers import Answer
from metarec_jax.serving.middleware import host_of
from metarec_jax.serving.protocol import LimitedProtocol
from metarec_jax.serving.simulate import Client

TOKEN = "a token of some length"
OWN = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service(recommender, tmp_path_factory):
    with live(fresh(recommender), tmp_path_factory.mktemp("store"), token=TOKEN, hosts=None) as service:
        yield service


@pytest.fixture(scope="module")
def limited(recommender, tmp_path_factory):
    """Starts a service whose connections have other limits, by name of the limit."""
    with contextlib.ExitStack() as opened:

        def start(**limits):
            protocol = type("Protocol", (LimitedProtocol,), limits)
            folder = tmp_path_factory.mktemp("store")
            return opened.enter_context(live(fresh(recommender), folder, protocol=protocol, token=TOKEN, hosts=None))

        yield functools.cache(start)


@contextlib.contextmanager
def connected(service):
    with socket.create_connection((service.host, service.port), timeout=60) as connection:
        yield connection


def reply(connection) -> tuple[int, list]:
    """Status and place of an answer, after which the service closes the connection; (0, []) if there is none."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            data += part
    if not data:
        return 0, []
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["detail"][0]["loc"]


# Before the token


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"origin": "http://127.0.0.1:PORT"}, 401),
        ({"origin": "HTTP://127.0.0.1:PORT", "sec-fetch-site": "same-origin"}, 401),
        ({"origin": "https://shop.example", "x-forwarded-host": "shop.example"}, 401),
        ({"origin": "https://shop.example", "sec-fetch-site": "same-origin"}, 401),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://127.0.0.1:PORT", "sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/jsonp"}, 415),
        ({"content-type": 'Application/JSON; charset="UTF-8"'}, 401),
    ],
)
def test_pages_of_other_sites_change_nothing(service, headers, status):
    sent = OWN | {name: value.replace("PORT", str(service.port)) for name, value in headers.items()}
    for method, path in (("POST", "/recommend"), ("POST", "/items"), ("POST", "/feedback")):
        answer = service.ask(method, path, b"{}", sent)
        assert (answer.status, answer.loc) == (status, ["header"]), answer.body
    assert service.ask("GET", "/healthz", headers=sent).status == 200


HEAD = b"POST /recommend HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"".join(b"a%d: b\r\n" % n for n in range(200)) + b"\r\n",
        HEAD + b"".join(b"a%d: b\r\n" % n for n in range(200)),
        HEAD + b"a: " + b"b" * 100_000,
        HEAD + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"c" * 100_000,
        b"\r\n" * 50_000,
    ],
)
def test_a_head_that_is_too_large_is_refused(service, data):
    with connected(service) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        assert reply(connection) in [(431, ["header"]), (0, [])]  # the answer may be lost where more was sent


def test_the_reason_for_a_head_that_is_refused_is_said(service):
    with connected(service) as connection:
        connection.sendall(HEAD + b"".join(b"a%d: b\r\n" % n for n in range(101)))
        assert reply(connection) == (431, ["header"])


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([], 408),
        ([b"\r\n"], 408),
        ([b"GET /healthz"], 408),
        ([b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n", b"c: d\r\n"], 408),
        ([HEAD + b"content-type: application/json\r\ncontent-length: 9\r\n\r\n", b"{", b" "], 0),
    ],
)
def test_a_request_that_does_not_arrive_in_time_is_ended(limited, pieces, status):
    with connected(limited(request_seconds=1.0)) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.2)
        # Without the token, a body that has not arrived is not waited for.
        found = reply(connection)[0] if status else 0
        assert found == status


def test_a_connection_serves_requests_one_after_the_other(service):
    ask = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    with connected(service) as connection:
        for number in (1, 1, 3, 1):
            connection.sendall(ask * number)
            data = b""
            while data.count(b'{"status":"ok"}') < number:
                data += connection.recv(4096)
            assert data.count(b"HTTP/1.1 200") == number


def test_for_one_connection_too_many_the_one_that_is_idle_for_longest_is_closed(limited):
    service = limited(most_connections=3)
    ask = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    with contextlib.ExitStack() as opened:
        idle = []
        for data in (ask, b"GET /healthz HTTP/1.1\r\n", ask):  # the second one goes on for ever
            connection = opened.enter_context(connected(service))
            connection.sendall(data)
            assert data != ask or b"200" in connection.recv(4096)
            idle.append(connection)
            time.sleep(0.2)
        for closed in idle:
            latest = opened.enter_context(connected(service))
            latest.sendall(ask)
            assert b"200" in latest.recv(4096)
            assert reply(closed)[0] == 0
            time.sleep(0.2)


def test_a_connection_is_refused_if_none_can_be_closed(limited):
    with connected(limited(most_connections=0)) as connection:
        assert reply(connection) == (503, ["service"])


# Names and numbers


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("a:1", "a"), ("A.B.", "a.b"), ("[::1]:8765", "::1"), ("[0:0:0:0:0:0:0:1]", "::1"),
        ("127.0.0.1:1", "127.0.0.1"), ("", None), ("[::1", None), ("::1", None),
        ("[a]", None), ("a:b", None), ("[::1%25a]", None),
    ],
)  # fmt: skip
def test_the_host_of_a_header(header, host):
    assert host_of(header) == host


def test_numbers_that_json_lacks_are_null():
    body = {"a": [float("inf"), (float("nan"), 1.5)], "b\ud800": {"c": -float("inf"), "d": "e\ud800"}}
    assert json.loads(Answer(body).body) == {"a": [None, [None, 1.5]], "b?": {"c": None, "d": "e?"}}


@pytest.mark.parametrize("rating", ["1e30", "1e999", "-1e999", "NaN", "Infinity", '"1e30"'])
def test_no_such_number_enters(service, rating):
    right = OWN | {"authorization": f"Bearer {TOKEN}"}
    for path, body in (
        ("/recommend", '{"history": [{"item": "7", "rating": RATING}]}'),
        ("/adapt", '{"history": [{"item": "7", "rating": RATING}]}'),
        ("/users", '{"history": [{"item": "7", "rating": RATING}]}'),
        ("/feedback", '{"list_id": "x", "item": "7", "kind": "rating", "rating": RATING}'),
    ):
        answer = service.ask("POST", path, body.replace("RATING", rating).encode(), right)
        assert (answer.status, answer.loc[0]) == (422, "body"), answer.body


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_a_service_on_ipv6(recommender, tmp_path):
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with (
        live(fresh(recommender), tmp_path, host="::1") as service,
        contextlib.closing(Client(f"http://[::1]:{service.port}/")) as client,
    ):
        assert service.get("/healthz").status == 200
        assert client.ask("/about")["items"] == 120
        with pytest.raises(MetarecError) as refused:
            client.ask("/items/nope")
        assert_says(str(refused.value), "404", "nope")
