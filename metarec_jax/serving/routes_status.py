"""Routes of the service itself: what it serves, whether it is up, its metrics and its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.service import ServiceDependency

router = APIRouter(route_class=TokenRoute, tags=["service"])
health = APIRouter(tags=["service"])
"""Without the token, so that whatever supervises the service needs none."""


@router.get("/about")
def about(service: ServiceDependency) -> dict[str, Any]:
    """Return the models, the rating scale and the details of items."""
    engine, recommender = service.engine, service.engine.first
    scale = recommender.catalogue.scale
    return {
        "models": {name: arm.codec.digest for name, arm in engine.arms.items()},
        "mode": engine.mode,
        "explore": engine.exploring.share,
        "items": len(recommender.catalogue.items),
        "scale": {
            "kind": scale.kind,
            "low": scale.low,
            "high": scale.high,
            "levels": list(scale.levels),
            "liked": scale.liked_from,
        },
        "details": recommender.items.details.words(),
        "reads_profiles": recommender.config.learner.user_side == "profile",
        "asks": recommender.catalogue.beliefs is not None,
    }


@health.get("/healthz")
async def healthz() -> dict[str, str]:
    """Return whether the service is up."""
    return {"status": "ok"}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(service: ServiceDependency) -> PlainTextResponse:
    """Return counters in the text format of Prometheus."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document. FastAPI's own route for it would need no token."""
    return JSONResponse(request.app.openapi())
