"""The service as a process: its address, its restart after SIGKILL, its options, and no 5xx for any request."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from quick import quick_flags
from schemathesis.checks import not_a_server_error, response_schema_conformance
from schemathesis.generation import GenerationMode
from trained import small_config, trained_run

from metarec_jax.core.errors import MetarecError
from metarec_jax.serving import server
from metarec_jax.serving.database import open_for_reading
from metarec_jax.serving.feedback import judge
from metarec_jax.serving.options import ServeArguments
from metarec_jax.serving.simulate import Client, Habits, held_out, simulate
from metarec_jax.train.catalogue import Scale


def started(store: Path, *options: str) -> tuple[subprocess.Popen, int]:
    """`metarec serve` on a free port."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick_flags()}
    environment.pop("METAREC_TOKEN", None)
    command = [sys.executable, "-m", "metarec_jax", "serve", str(trained_run()), "--port", "0", "--together", "4"]
    command += ["--store", str(store), *options]
    with open(store.with_suffix(".log"), "a") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        line = said.readline()
    assert line.startswith("serving "), store.with_suffix(".log").read_text()
    return process, int(line.strip().rstrip("/").rsplit(":", 1)[1])


def ask(port: int, path: str, body: Any = None) -> Any:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
        connection.request(method, path, content, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status < 300, text
    return json.loads(text)


class Killed(NamedTuple):
    """A service that was killed under load and started again."""

    port: int
    store: Path
    acknowledged: list[tuple[str, str]]
    user: str
    item: str


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Killed]:
    folder = tmp_path_factory.mktemp("served")
    store = folder / "store"
    process, port = started(store)
    acknowledged: list[tuple[str, str]] = []
    enough = threading.Event()

    def click(number: int) -> None:
        draw = random.Random(number)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                history = [{"item": str(draw.randint(1, 120)), "rating": 4}]
                shown = ask(port, "/recommend", {"history": history, "k": 5})
                for card in shown["items"]:
                    ask(port, "/feedback", {"list_id": shown["list_id"], "item": card["id"], "kind": "click"})
                    acknowledged.append((shown["list_id"], card["id"]))
                    if len(acknowledged) > 60:
                        enough.set()

    try:
        item = ask(port, "/items", {"text": "A film about bees."})["id"]
        user = ask(port, "/users", {"history": [{"item": item, "rating": 5}]})["user"]
        threads = [threading.Thread(target=click, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        assert enough.wait(120)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    for thread in threads:
        thread.join(60)
    process, port = started(store)
    try:
        yield Killed(port, store, acknowledged, user, item)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert "Traceback" not in store.with_suffix(".log").read_text()


def test_a_kill_loses_nothing_that_was_acknowledged(service):
    with open_for_reading(service.store) as database:
        kept = set(database.execute("SELECT list, item FROM events WHERE kind = 'click'"))
        shown = set(database.execute("SELECT list, item FROM shown"))
    assert len(service.acknowledged) > 60
    assert set(service.acknowledged) <= kept <= shown
    assert ask(service.port, f"/items/{service.item}")["text"] == "A film about bees."
    assert ask(service.port, "/adapt", {"user": service.user})["rated"] == 1


def test_simulated_users_appear_in_the_figures(service):
    before = ask(service.port, "/figures")["arms"]["a"]
    people = held_out(small_config())[:3]
    scale = ask(service.port, "/about")["scale"]
    levels = Scale(scale["kind"], tuple(scale["levels"]), scale["low"], scale["high"])
    habits = Habits(start=3, lists=2, k=10, curiosity=0.3)
    with contextlib.closing(Client(f"http://127.0.0.1:{service.port}/")) as client:
        counts = simulate(client, people, levels, habits=habits)
    assert (counts["users"], counts["lists"], counts["shown"]) == (3, 6, 60)
    assert counts["clicks"] > 0
    after = ask(service.port, "/figures")["arms"]["a"]
    assert after["impressions"] - before["impressions"] == 60
    assert after["clicks"] - before["clicks"] == counts["clicks"]
    assert after["ratings"] - before["ratings"] == counts["ratings"]
    found = judge(trained_run(), service.store)["arms"]["a"]
    assert found["clicks"] == after["clicks"]
    assert found["ctr"].value == pytest.approx(after["clicks"] / after["impressions"])
    assert after["ctr"]["low"] <= after["ctr"]["value"] <= after["ctr"]["high"]


def test_a_refused_request_is_named_by_the_client(service):
    with (
        contextlib.closing(Client(f"http://127.0.0.1:{service.port}/")) as client,
        pytest.raises(MetarecError, match=r"/items/nope is refused with status 404: .*no item has the id 'nope'"),
    ):
        client.ask("/items/nope")


@pytest.mark.filterwarnings("default")  # of schemathesis' own needs
@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, pytest.param(GenerationMode.NEGATIVE, marks=pytest.mark.slow)]
)
def test_no_request_gets_a_5xx(service, mode):
    """Requests of all kinds, from the OpenAPI document: no 5xx, and answers that are as the document says."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    seen = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        seen += 1

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def holds(case):
            response = case.call(timeout=60)
            case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])

        with contextlib.suppress(Unsatisfiable):  # what takes no parameters cannot be asked wrongly
            holds()
    assert seen >= 14


# Options


def options(**changes) -> ServeArguments:
    return dataclasses.replace(ServeArguments("run"), **changes)


@pytest.mark.parametrize(
    ("changes", "token", "message"),
    [
        (
            {"host": "0.0.0.0"},
            None,
            r"--host 0\.0\.0\.0 can be reached from other machines, so requests must show a token",
        ),
        ({"host": "example.org"}, None, "must show a token"),
        ({}, "short", "at least 16 characters"),
        ({"explore": 1.5}, None, r"--explore is 1\.5; it must lie between 0 and 1"),
        ({"mode": "ab"}, None, "--mode ab does not fit the number of runs: name a second run with --against"),
        ({"mode": "single", "against": "b"}, None, "leave out --against"),
        ({"mode": "interleave", "against": "b", "explore": 0.1}, None, "no known propensities"),
        ({"together": 0}, None, "--together is 0; it must lie between 1 and 4096"),
        ({"pool": 0}, None, "--pool is 0; it must lie between 1 and 1000000"),
        ({"wait_ms": 1001.0}, None, "--wait-ms is 1001; it must lie between 0 and 1000"),
        ({"wait_ms": float("nan")}, None, "--wait-ms is nan"),
        ({"port": 65536}, None, "--port is 65536; it must lie between 0 and 65535"),
    ],
)
def test_invalid_options_are_refused(changes, token, message):
    with pytest.raises(MetarecError, match=message):
        server.check(options(**changes), token)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_a_loopback_address_needs_no_token(host):
    server.check(options(host=host), None)
    server.check(options(host="0.0.0.0"), "a token of some length")


def test_a_port_in_use_is_refused():
    with contextlib.closing(server.listen("127.0.0.1", 0)) as taken:
        taken.listen()
        with pytest.raises(MetarecError, match="cannot listen there"):
            server.listen("127.0.0.1", taken.getsockname()[1])


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MetarecError, match=r"uvicorn is not installed; .* pip install 'metarec_jax\[serve\]'"):
        server.serve(options())


@pytest.mark.parametrize(("display", "opened"), [("", []), (":0", ["http://127.0.0.1:8765/"])])
def test_the_page_is_opened_only_in_a_desktop_session(monkeypatch, display, opened):
    found, done = [], threading.Event()
    monkeypatch.setattr(server.sys, "platform", "linux")
    monkeypatch.setattr(server.webbrowser, "open", lambda address: (found.append(address), done.set()))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    server.open_browser("http://127.0.0.1:8765/")
    assert done.wait(5 if opened else 0.1) == bool(opened)
    assert found == opened
