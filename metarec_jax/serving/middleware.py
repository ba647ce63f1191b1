"""What every request passes before anything reads it: who may ask, how much may be sent, and what is counted."""

from __future__ import annotations

import contextlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from metarec_jax.serving.prometheus import Meters
from metarec_jax.serving.schemas import MOST_BODY

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    # The page loads nothing from elsewhere, runs no script that is not its own, and stands in no other's frame.
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
]


class Guard:
    """Wraps an application.

    Args:
        app: what is behind it.
        token: what requests must show (``Authorization: Bearer TOKEN``); None lets everybody in.
        hosts: names that the service may be called by; a page that leads a browser here by another name is refused
            (DNS rebinding). None allows any, for a service with a token.
        free: paths that need no token: those of the page's files, which hold no data.
        meters: what counts.
    """

    def __init__(
        self, app: App, *, token: str | None, hosts: frozenset[str] | None, free: frozenset[str], meters: Meters
    ):
        self._app, self._hosts, self._free, self._meters = app, hosts, free, meters
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Serves a request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        headers = dict(scope["headers"])

        bounded = _Bounded(receive)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        async def unless_full(message: Message) -> None:
            if not bounded.full:  # else what the application made of a body that was cut off is nothing to send
                await noted(message)

        try:
            if problem := self._problem(scope, headers):
                await _refuse(noted, *problem)
                return
            with contextlib.suppress(_TooLarge):
                await self._app(scope, bounded, unless_full)
            if bounded.full:
                await _refuse(noted, 413, "body", f"the request is larger than {MOST_BODY:,} bytes")
        finally:
            route = scope.get("route")
            self._meters.request(getattr(route, "path", "other"), status, time.perf_counter() - started)

    def _problem(self, scope: Message, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0].strip("[]").lower()
        if self._hosts is not None and host not in self._hosts:
            return 421, "header", "this service is not called by that name: use the address that it printed"
        if self._token is not None and scope["path"] not in self._free:
            shown = headers.get(b"authorization", b"")
            if not hmac.compare_digest(shown, b"Bearer " + self._token):
                return 401, "header", "show the service's token: Authorization: Bearer TOKEN"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BODY:
            return 413, "body", f"the request is larger than {MOST_BODY:,} bytes"
        return None


class _TooLarge(Exception):
    pass


class _Bounded:
    """Receives a body, and no more of it than is allowed."""

    def __init__(self, receive: Any):
        self._receive, self._size = receive, 0

    @property
    def full(self) -> bool:
        """Whether more came than is allowed."""
        return self._size > MOST_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self.full:
            raise _TooLarge
        return message


async def _refuse(send: Any, status: int, where: str, text: str) -> None:
    body = json.dumps({"detail": [{"loc": [where], "msg": text, "type": "refused"}]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
