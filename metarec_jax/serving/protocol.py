"""Limits of HTTP connections: their number, the size of a request's head, and the duration of a request.

The limits apply before the content of a request, including its token, is inspected; uvicorn does not implement them for
httptools. `metarec_jax.serving.middleware` limits the requests that the application receives.
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 100
"""Greatest number of headers of a request."""
MAX_HEAD = 64 * 1024
"""Greatest size of a request's address and headers together, in bytes."""
ANSWER_SECONDS = 300.0
"""Longest time from the arrival of a request until the client has read the response, in seconds."""


class LimitedProtocol(HttpToolsProtocol):
    """HTTP connection of `metarec serve`."""

    most_connections = 1024
    """Greatest number of open connections; it is lower if the process may open only few files."""
    request_seconds = 20.0
    """Longest time from the start of a connection or request until the request has arrived, in seconds."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._timer: asyncio.TimerHandle | None = None
        self.since = 0.0  # event loop time at which the current phase of the connection began
        self._arriving = True  # whether a request is arriving, or the first one is awaited
        self._in_head = True
        self._received = 0  # bytes since the start of the head, including body bytes that came with it
        self._head_bytes = self._headers = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for a request. If there are too many connections, abort the oldest idle one, or else refuse this one."""
        super().connection_made(transport)
        self._within(self.request_seconds)
        if len(self.connections) <= self._most_open():
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
        """Parse bytes of a request, and refuse the request if its head is too large."""
        if self.transport.is_closing():
            return
        if not self._arriving:
            self._begin()
        self._received += len(data)
        super().data_received(data)
        if self._in_head and self._received > MAX_HEAD and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Start the timer and reset the counters of a request."""
        if not self._in_head:  # it arrived together with the end of the previous request
            self._begin()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count and parse a part of the address."""
        self._count(0, len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count and parse a header.

        Args:
            name: name of the header.
            value: value of the header.

        Raises:
            ValueError: the head of the request is too large.
        """
        self._count(1, len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, whose body has not arrived yet."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Start the timer of the response."""
        self._arriving = False
        self._within(ANSWER_SECONDS)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, for as long as uvicorn keeps idle connections."""
        if not self._arriving:
            self._within(None)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request, or a request with too large a head, and close the connection."""
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
        self._within(self.request_seconds)

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
            self._refuse(408, "header", f"the request did not arrive within {self.request_seconds:g} seconds")
        else:
            self.transport.abort()  # a response may already be under way

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

    def _most_open(self) -> int:
        """The smaller of `most_connections` and half the number of files that the process may open."""
        if sys.platform == "win32":
            return self.most_connections
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.most_connections if soft == resource.RLIM_INFINITY else min(self.most_connections, soft // 2)
