"""Routes of the feedback: users' actions on the items that they were shown, and metrics of these actions."""

from __future__ import annotations

from fastapi import APIRouter

from metarec_jax.recommender.errors import InputError, shortened
from metarec_jax.serving import schemas
from metarec_jax.serving.answers import Answer
from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.rows import Event
from metarec_jax.serving.service import Service, ServiceDependency

router = APIRouter(route_class=TokenRoute, tags=["feedback"])


@router.post("/feedback", response_model=schemas.FeedbackResponse, status_code=201)
async def feedback(request: schemas.FeedbackRequest, service: ServiceDependency) -> Answer:
    """Store an action of a user. It is on disk before this answers."""
    if not service.engine.first.items.titles.has_id(request.item):
        raise InputError(f"no item has the id {shortened(request.item)}", "item")
    user, arm = await service.read(lambda: _shown_to(request, service))
    scale = service.engine.first.catalogue.scale
    if request.rating is not None and scale.place(request.rating) is None:
        allowed = f"between {scale.low:.7g} and {scale.high:.7g}"
        raise InputError(f"the rating is {request.rating:.7g}; ratings are {allowed}", "rating")
    value = 1.0 if request.rating is None else request.rating
    await service.writes.submit(Event(user, request.item, request.kind, value, request.list_id))
    if request.kind in ("rating", "forget"):
        await service.learn([request.item])
    service.metrics.event(request.kind, arm)
    return Answer({"kept": True}, 201)


def _shown_to(request: schemas.FeedbackRequest, service: Service) -> tuple[str, str]:
    """The user whose action this is, and the model that chose the item; "none" for an item of no list."""
    user = None if request.user is None else service.stored_user(request.user)[0]
    if request.list_id is None:
        return user or "", "none"
    shown = service.store.shown_in(request.list_id)
    if shown is None:
        raise InputError(f"no list has the id {request.list_id!r}", "list_id")
    viewer, arms = shown
    if user is not None and user != viewer:
        raise InputError("the list was shown to another user", "user")
    if request.item not in arms:
        raise InputError(f"the item {shortened(request.item)} was not in the list", "item")
    return viewer, arms[request.item]


@router.get("/figures")
async def figures(service: ServiceDependency) -> Answer:
    """Return CTR, precision, nDCG of clicks and ratings of each model with intervals over users, and over time.

    They are computed again only after something was written to the store.
    """
    return Answer(await service.read_figures())
