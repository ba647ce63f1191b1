"""Fixtures of the page's tests: a run on MovieLens-100K, a service of it, and Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from page_service import here, serving

from benchmarks import browser

LITTLE = (
    "--data.no-download --episodes.draws 1 --episodes.buckets 90 --factors.rank 8 --learner.hidden 16 "
    "--learner.gate 10 --updater.steps 2 --updater.order first --train.epochs 1"
)
"""Options of a small run on MovieLens-100K: one program for all support sizes, eight factors, one epoch."""


class Service(NamedTuple):
    """A running service."""

    address: str

    def ask(self, path: str, body: Any = None) -> Any:
        """Return the answer: to a POST if there is a body, else to a GET."""
        content = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.address + path[1:], content, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def chromium():
    found = browser.find()
    if not found.path:
        pytest.skip(found.why_not)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root, as in a container, has no user namespace to put a sandbox around.
        started = playwright.chromium.launch(executable_path=found.path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """MovieLens-100K, read by MiniLM and trained by the command, in another process: this one checks every call.

    Texts that another test has read are taken from the cache of the session, as any training does.
    """
    folder = tmp_path_factory.mktemp("movielens") / "run"
    command = [sys.executable, "-m", "metarec_jax", "train", *LITTLE.split(), "--out", str(folder)]
    done = subprocess.run(command, env=here(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def service(chromium, run, tmp_path_factory) -> Iterator[Service]:
    """A service of `run`, shared by the tests; each test is another user."""
    with serving(run, tmp_path_factory.mktemp("page") / "store") as address:
        yield Service(address)


@pytest.fixture
def context(chromium):
    """A browser profile of its own for each test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def errors() -> list[str]:
    """Errors on the page. A test that expects some removes them."""
    return []


@pytest.fixture
def phone(chromium):
    """A browser profile of a phone, which has touch and no mouse."""
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, reduced_motion="reduce"
    )
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context, service, errors):
    """The page. An error on it, or a request to another server, fails the test."""
    yield from watched(context, service, errors)


@pytest.fixture
def small(phone, service, errors):
    """The page on a phone."""
    yield from watched(phone, service, errors)


def watched(context, service, errors):
    page = context.new_page()
    elsewhere: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((service.address, "data:")) else elsewhere.append(r.url))
    page.goto(service.address)
    page.locator(".card").first.wait_for()
    yield page
    assert not errors
    assert not elsewhere
