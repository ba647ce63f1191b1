"""Checks before a request reaches its route (host name, size, token), headers of every answer, and request counts.

The classes wrap an ASGI application. They send their answers themselves, because Starlette's exception handlers are
inside of them.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metarec_jax.serving.errors import Refused, refusal
from metarec_jax.serving.prometheus import ServiceMetrics
from metarec_jax.serving.schemas import MAX_BODY_BYTES

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?", re.IGNORECASE)

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    # The page loads files and scripts from this service only, and no other page can show it in a frame.
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
]


class CountRequests:
    """Count every request by its route, status and duration.

    Args:
        app: the ASGI application.
        metrics: the counters.
    """

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(route, status, time.perf_counter() - started)


class SecurityHeaders:
    """Add the headers that restrict what a browser does with an answer.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HostCheck:
    """Refuse requests for another host name, so that no page of another site can reach the service (DNS rebinding).

    Starlette's `TrustedHostMiddleware` is not used: it answers in plain text with status 400, without a way to change
    that, and before Starlette 1.7 it cuts the header at the first colon, so that ``[::1]:8765`` is the host ``[``.

    Args:
        app: the ASGI application.
        hosts: allowed host names, in lower case, without ports and brackets; None allows all.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if self._hosts is not None and scope["type"] == "http":
            header = Headers(scope=scope).get("host", "")
            match = _HOST.fullmatch(header)
            if match is None or (match[1] or match[2]).lower() not in self._hosts:
                message = f"this service has another host name than {header!r}: use the address that it printed"
                await refusal(Refused(421, "header", message))(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuse requests with a body of more than `MAX_BODY_BYTES`; no more than that is read.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            await refusal(_too_large())(scope, receive, send)
            return
        received = 0

        async def receive_at_most() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise _too_large()  # FastAPI passes on an HTTPException that is raised while it reads the body
            return message

        await self._app(scope, receive_at_most, send)


def _too_large() -> Refused:
    return Refused(413, "body", f"the request is larger than {MAX_BODY_BYTES:,} bytes")


class TokenRoute(APIRoute):
    """A route that needs the service's token, if it has one.

    A FastAPI dependency would run after the body was read and parsed; this check runs before.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, behind the check."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            token = request.app.state.service.token
            sent = request.headers.get("authorization", "").encode("latin-1")
            if token is not None and not hmac.compare_digest(sent, b"Bearer " + token.encode()):
                message = "the token is missing or wrong: send the header 'Authorization: Bearer TOKEN'"
                raise Refused(401, "header", message, {"WWW-Authenticate": "Bearer"})
            return await handle(request)

        return checked
