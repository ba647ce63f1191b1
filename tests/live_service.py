"""A service in a thread of this process that is asked over real connections."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.protocol import LimitedProtocol
from metarec_jax.serving.server import listen, uvicorn_config
from metarec_jax.serving.store import Store

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
JSON = {"content-type": "application/json"}


class Reply(NamedTuple):
    """An answer: status, headers by name in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def loc(self) -> list[str | int]:
        return self.json["detail"][0]["loc"]


class Live(NamedTuple):
    """A running service."""

    host: str
    port: int
    engine: Engine

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send a request as it is: no part of the path is changed. A body that is no bytes is sent as JSON."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=60)) as connection:
            connection.request(method, path, content, JSON if headers is None else headers)
            answer = connection.getresponse()
            return Reply(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())

    def get(self, path: str, **query: str) -> Reply:
        return self.ask("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path: str, body: Any) -> Reply:
        return self.ask("POST", path, body)


@contextlib.contextmanager
def live(
    recommender: Recommender,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    protocol: type[LimitedProtocol] | None = None,
    **options: Any,
) -> Iterator[Live]:
    """Serve a model with a store in `folder`; `protocol` is that of `uvicorn_config`, `options` those of `make_app`."""
    listening = listen(host, 0)
    engine = Engine([Arm("a", recommender)], Store(folder), seed=0)
    server = uvicorn.Server(uvicorn_config(make_app(engine, **{"hosts": HOSTS, **options}), protocol))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Live(host, listening.getsockname()[1], engine)
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()
