"""HTTP connections with limits: how many there are, how large the head of a request is, and how long it takes.

They apply before anything of a request is looked at, the token included; uvicorn has none of them for httptools. What
the application is given of a request is limited in `metarec_jax.serving.middleware`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 1024
"""Open connections, at most; fewer where the process may open few files."""
MAX_HEADERS = 100
"""Headers of a request, at most."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's address and headers together, at most."""
REQUEST_SECONDS = 20.0
"""Time from the start of a connection or of a request until the request has arrived."""
ANSWER_SECONDS = 300.0
"""Time from then until the answer has been read."""


class LimitedProtocol(HttpToolsProtocol):
    """A connection of `metarec serve`."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._timer: asyncio.TimerHandle | None = None
        self.since = 0.0  # time of the loop when the connection began to do what it does
        self._arriving = True  # whether a request is, or the first one is waited for
        self._in_head = True
        self._received = 0  # bytes since the head began, with those of a body that came along
        self._head_bytes = self._headers = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for a request. If there are too many connections, one that is not being answered is closed."""
        super().connection_made(transport)
        self._within(REQUEST_SECONDS)
        if len(self.connections) <= _max_connections():
            return
        others = [one for one in self.connections if one is not self and isinstance(one, LimitedProtocol)]
        idle = [one for one in others if one.idle]
        if idle:
            min(idle, key=lambda one: one.since).transport.abort()
        else:
            self._refuse(503, "service", "too many connections are open: try again in a second")

    @property
    def idle(self) -> bool:
        """Whether no request of this connection is being answered."""
        return self._arriving or self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of a request, unless its head is too large."""
        if self.transport.is_closing():
            return
        if not self._arriving:
            self._begin()
        self._received += len(data)
        super().data_received(data)
        if self._in_head and self._received > MAX_HEAD and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Start the time and the counts of a request."""
        if not self._in_head:  # it came together with the end of the one before
            self._begin()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count(0, len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(1, len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Serve the request, whose body is still to come."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the answer to be made and read."""
        self._arriving = False
        self._within(ANSWER_SECONDS)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, for as long as uvicorn keeps idle connections."""
        if not self._arriving:
            self._within(None)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, or one whose head is too large, and close the connection."""
        if self._head_bytes > MAX_HEAD or self._headers > MAX_HEADERS:
            self._refuse_head()
        else:
            self._refuse(400, "header", "this is not a valid HTTP request")

    def _refuse_head(self) -> None:
        limits = f"at most {MAX_HEADERS} headers, and {MAX_HEAD:,} bytes of address and headers"
        self._refuse(431, "header", f"the head of the request is too large: send {limits}")

    def _begin(self) -> None:
        self._arriving = self._in_head = True
        self._received = self._head_bytes = self._headers = 0
        self._within(REQUEST_SECONDS)

    def _count(self, headers: int, size: int) -> None:
        self._headers += headers
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD or self._headers > MAX_HEADERS:
            raise ValueError(
                "the head of the request is too large"
            )  # the parser stops, and `send_400_response` answers

    def _within(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)
        self.since = self.loop.time()

    def _late(self) -> None:
        if self._arriving and self._in_head:
            self._refuse(408, "header", f"the request did not arrive within {REQUEST_SECONDS:g} seconds")
        else:
            self.transport.abort()  # an answer may have begun

    def _refuse(self, status: int, place: str, message: str) -> None:
        body = json.dumps({"detail": [{"loc": [place], "msg": message, "type": "refused"}]}).encode()
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(["retry-after: 1"] if status == 503 else []),
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()


def _max_connections() -> int:
    """`MAX_CONNECTIONS`, or half of the files that the process may open where that is less."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft // 2)
