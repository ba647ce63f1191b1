"""The HTTP application, assembled from routes, middleware and error handlers.

Only this module and those that it imports depend on FastAPI.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware

from metarec_jax.serving import (
    routes_catalogue,
    routes_feedback,
    routes_recommend,
    routes_status,
    routes_users,
)
from metarec_jax.serving.demo_users import Person
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.errors import HANDLERS, RESPONSES
from metarec_jax.serving.middleware import BodyLimit, CountRequests, HeadAsGet, HostCheck, SecurityHeaders, WriteCheck
from metarec_jax.serving.service import Service

PAGE = Path(__file__).parent / "page"
ROUTERS = (
    routes_recommend.router,
    routes_catalogue.router,
    routes_users.router,
    routes_feedback.router,
    routes_status.router,
    routes_status.health,
)


def make_app(
    engine: Engine,
    *,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    people: Mapping[str, Person] | None = None,
    wait: float = 0.003,
    max_batch: int = 64,
    max_waiting: int = 1024,
) -> FastAPI:
    """Make the application; its `state.service` is the `Service`.

    Args:
        engine: the models and the store, which the application closes when it ends.
        token: what requests must send as ``Authorization: Bearer TOKEN``, but for /healthz and the page's files;
            None serves every request.
        hosts: host names that requests may name, as `middleware.host_of` returns them; None allows all.
        people: users of a public data set, by id.
        wait: seconds that the first of several requests waits for others.
        max_batch: largest number of requests that are computed together; 1 computes one at a time.
        max_waiting: largest number of requests that wait for the models; more are refused.

    Returns:
        The application.
    """
    service = Service(engine, token=token, people=people or {}, wait=wait, max_batch=max_batch, max_waiting=max_waiting)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="metarec",
        summary="Recommendations that adapt to a user at once.",
        lifespan=lifespan,
        openapi_url=None,  # `routes_status` serves the document; the pages for it would load scripts of other sites
        responses=RESPONSES,
        exception_handlers=HANDLERS,
        middleware=[  # the first is the outermost
            Middleware(HeadAsGet),
            Middleware(CountRequests, metrics=service.metrics),
            Middleware(SecurityHeaders),
            Middleware(HostCheck, hosts=hosts),
            Middleware(BodyLimit),
            Middleware(WriteCheck),
        ],
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return app
