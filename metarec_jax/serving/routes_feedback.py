"""Routes of the feedback: users' actions on the items that they were shown, and metrics of these actions."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from metarec_jax.recommender.errors import InputError
from metarec_jax.serving import schemas
from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.service import ServiceDependency
from metarec_jax.serving.store import Event

router = APIRouter(route_class=TokenRoute, tags=["feedback"])


@router.post("/feedback", response_model=schemas.FeedbackResponse, status_code=201)
async def feedback(request: schemas.FeedbackRequest, service: ServiceDependency) -> JSONResponse:
    """Store an action of a user. It is on disk before this answers."""
    user = None if request.user is None else service.stored_user(request.user)
    arm = "none"
    if not service.engine.first.items.titles.has_id(request.item):
        raise InputError(f"no item has the id {request.item!r}", "item")
    if request.list_id is not None:
        shown = service.store.shown_in(request.list_id)
        if shown is None:
            raise InputError(f"no list has the id {request.list_id!r}", "list_id")
        viewer, arms = shown
        if user is not None and user != viewer:
            raise InputError("the list was shown to another user", "user")
        user = viewer
        if request.item not in arms:
            raise InputError(f"the item {request.item!r} was not in the list", "item")
        arm = arms[request.item]
    scale = service.engine.first.catalogue.scale
    if request.rating is not None and scale.place(request.rating) is None:
        allowed = f"between {scale.low:.7g} and {scale.high:.7g}"
        raise InputError(f"the rating is {request.rating:.7g}; ratings are {allowed}", "rating")
    value = 1.0 if request.rating is None else request.rating
    await service.writes.submit(Event(user or "", request.item, request.kind, value, request.list_id))
    if request.kind in ("rating", "forget"):
        await service.learn([request.item])
    service.metrics.event(request.kind, arm)
    return JSONResponse({"kept": True}, 201)


@router.get("/figures")
def figures(service: ServiceDependency) -> JSONResponse:
    """Return CTR, precision, nDCG of clicks and ratings of each model with intervals over users, and over time.

    They are computed again only after something was written to the store.
    """
    return JSONResponse(service.figures.get())
