"""Checks before a request reaches its route (host name, origin, type and size of the body, token), and what is added to
every answer and counted.

The classes wrap an ASGI application. They send their answers themselves, because Starlette's exception handlers are
inside of them.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metarec_jax.recommender.errors import shortened
from metarec_jax.serving.errors import Refused, refusal
from metarec_jax.serving.prometheus import ServiceMetrics
from metarec_jax.serving.schemas import MAX_BODY_BYTES

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?", re.IGNORECASE)
_JSON = re.compile(r"application/json(\s*;\s*charset=\"?utf-?8\"?)?\s*", re.IGNORECASE)
_READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""

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


class HeadAsGet:
    """Answer HEAD as GET, without the body: FastAPI's routes have no HEAD.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


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
        hosts: allowed host names, as `host_of` returns them; None allows all.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if self._hosts is not None and scope["type"] == "http":
            header = Headers(scope=scope).get("host", "")
            if host_of(header) not in self._hosts:
                message = (
                    f"this service has another host name than {shortened(header)}: use the address that it printed"
                )
                await refusal(Refused(421, "header", message))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_of(header: str) -> str | None:
    """Return the host that a Host header names.

    Args:
        header: host and port.

    Returns:
        In lower case, without port, brackets and the dot at the end; IPv6 in its shortest form. None for no host.

    >>> host_of("LOCALHOST:80"), host_of("[0:0::1]:8765"), host_of("[::1")
    ('localhost', '::1', None)
    """
    match = _HOST.fullmatch(header)
    if match is None:
        return None
    try:
        return str(ipaddress.ip_address(match[1] or match[2]))
    except ValueError:
        return None if match[1] else match[2].lower().removesuffix(".")


class WriteCheck:
    """Refuse requests that may change something, if they are from a page of another site or not sent as JSON.

    A browser lets any page send a form or text anywhere, but not JSON, and adds the page's origin (CSRF). FastAPI
    before 0.132 reads a body without a type as JSON. Behind a proxy, the host that the browser asked is in
    X-Forwarded-Host, which no page can set, or the browser says that it asks its own site (Sec-Fetch-Site).

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] == "http" and scope["method"] not in _READING:
            headers = Headers(scope=scope)
            origin, kind = headers.get("origin"), headers.get("content-type", "")
            refused = None
            if not _same_site(headers):
                page = "another site" if origin is None else shortened(origin)
                refused = Refused(403, "header", f"the request comes from a page of {page}: use the service's own page")
            elif _JSON.fullmatch(kind) is None:
                given = f"is {shortened(kind)}" if kind else "is missing"
                refused = Refused(415, "header", f"Content-Type {given}: send application/json, in UTF-8")
            elif headers.get("content-encoding", "identity") != "identity":
                refused = Refused(415, "header", "Content-Encoding is given: send the body uncompressed")
            if refused is not None:
                await refusal(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _same_site(headers: Headers) -> bool:
    """Whether a request is from no page, or from one of this service."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin", "none"):
        return False
    if origin is None or site == "same-origin":
        return True
    address = origin.partition("://")[2].lower()
    return address in [headers.get(name, "").lower() for name in ("host", "x-forwarded-host")] and address != ""


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
