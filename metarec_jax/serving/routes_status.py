"""Routes of the service itself: what it serves, whether it is up, its metrics and its OpenAPI document."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from metarec_jax.serving import schemas
from metarec_jax.serving.answers import Answer
from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.service import ServiceDependency

router = APIRouter(route_class=TokenRoute, tags=["service"])
health = APIRouter(tags=["service"])
"""Router without the token check, so that a supervisor of the service needs no token."""


@router.get("/about")
def about(service: ServiceDependency) -> Answer:
    """Return the models, the rating scale and the details of items."""
    engine, recommender = service.engine, service.engine.first
    scale = recommender.catalogue.scale
    return Answer(
        {
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
    )


@health.get("/healthz", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
async def healthz(service: ServiceDependency) -> Answer:
    """Return whether the service is up, and what is wrong: with status 503 if the store cannot be written or read."""
    problems = await service.problems()
    if not problems:
        return Answer({"status": "ok"})
    broken = any(one.type == "store" for one in problems)
    return Answer({"status": "degraded", "problems": [one.model_dump() for one in problems]}, 503 if broken else 200)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(service: ServiceDependency) -> PlainTextResponse:
    """Return counters in the text format of Prometheus."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> Answer:
    """Return the OpenAPI document. FastAPI's own route for it would need no token."""
    return Answer(request.app.openapi())
