"""Exceptions as JSON answers: ``{"detail": [{"loc": [...], "msg": "...", "type": "..."}]}`` with a 4xx status."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import HTTPException as FastAPIHTTPException
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.errors import InputError, Unavailable
from metarec_jax.serving.added_items import Full
from metarec_jax.serving.answers import Answer
from metarec_jax.serving.batching import QueueFull
from metarec_jax.serving.database import StoreError
from metarec_jax.serving.schemas import Problems

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": Problems, "description": "The request is not valid HTTP, or its body not JSON in UTF-8."},
    401: {"model": Problems, "description": "The token is missing or wrong."},
    403: {"model": Problems, "description": "The request comes from a page of another site."},
    404: {"model": Problems, "description": "The path names no item or user of this service."},
    413: {"model": Problems, "description": "The body of the request is too large."},
    415: {"model": Problems, "description": "The body is not sent as application/json in UTF-8."},
    422: {"model": Problems, "description": "A field is wrong; `loc` names it."},
    429: {"model": Problems, "description": "Too many requests are waiting."},
    503: {"model": Problems, "description": "The store or the encoder cannot be used now; /healthz says so, too."},
}
"""Answers that any route can give, for the OpenAPI document."""

FULL: dict[int | str, dict[str, Any]] = {
    409: {"model": Problems, "description": "The service has as many added items as it can take."}
}


class NotFound(InputError):
    """An address that names no item or user; `field` is "path" or "query", and the name of the parameter."""


class Refused(FastAPIHTTPException):
    """A request that is refused because of its headers or its size.

    Args:
        status: status code of the answer.
        place: "header" or "body".
        message: reason and remedy.
        headers: headers of the answer.
    """

    def __init__(self, status: int, place: str, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(status, message, dict(headers or {}))
        self.place = place


def problem(
    status: int,
    location: Sequence[str | int],
    message: str,
    kind: str,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return an answer that names one problem.

    Args:
        status: status code.
        location: "body", "query", "path", "header" or "service", and the names and indices that lead to the field.
        message: reason and remedy.
        kind: the problem's type.
        headers: headers of the answer.

    Returns:
        The answer.
    """
    return _answer(status, [(location, message, kind)], headers)


def refusal(refused: Refused) -> Answer:
    """Return the answer to a request that is refused."""
    return problem(refused.status_code, [refused.place], refused.detail, "refused", refused.headers)


def _answer(
    status: int,
    problems: Sequence[tuple[Sequence[str | int], str, str]],
    headers: Mapping[str, str] | None = None,
) -> Answer:
    return Answer({"detail": [{"loc": list(loc), "msg": msg, "type": t} for loc, msg, t in problems]}, status, headers)


def _handler(status: int, place: str, kind: str, headers: Mapping[str, str] | None = None) -> Handler:
    """Return a handler that answers with an exception's message, and the field that it names."""

    async def handle(request: Request, error: Exception) -> Response:
        return problem(status, [place, *getattr(error, "field", ())], str(error), kind, headers)

    return handle


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return _answer(422, [(one["loc"], one["msg"], one["type"]) for one in error.errors()])


async def _refused(request: Request, error: Refused) -> Response:
    return refusal(error)


async def _http(request: Request, error: HTTPException) -> Response:
    place = "body" if error.status_code == 400 else "path"  # FastAPI has it for a body that cannot be parsed
    return problem(error.status_code, [place], error.detail, "http", error.headers)


async def _not_found(request: Request, error: NotFound) -> Response:
    return problem(404, error.field, str(error), "missing")


async def _store(request: Request, error: StoreError) -> Response:
    request.app.state.service.report(error)
    headers = {"Retry-After": "5"} if error.cause.passing else None
    return problem(503, ["service"], f"{error.cause.wrong}: {error.cause.remedy}", "store", headers)


async def _unavailable(request: Request, error: Unavailable) -> Response:
    request.app.state.service.report(error)
    return problem(503, ["service"], f"{error.what}: the messages of the service say why", "unavailable")


async def _unexpected(request: Request, error: Exception) -> Response:
    return problem(500, ["service"], "the service has failed: its messages say why", "failed")


HANDLERS: dict[int | type[Exception], Handler] = {
    RequestValidationError: _invalid,
    InputError: _handler(422, "body", "value_error"),
    NotFound: _not_found,
    MetarecError: _handler(422, "body", "value_error"),
    StoreError: _store,
    Unavailable: _unavailable,
    Full: _handler(409, "service", "full"),
    QueueFull: _handler(429, "service", "crowded", {"Retry-After": "1"}),
    Refused: _refused,
    HTTPException: _http,
    Exception: _unexpected,
}
"""Handlers by the class of the exception; the most specific class counts."""
