"""Routes of the items: search, one item, similar items, and adding one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from metarec_jax.core.errors import MetarecError
from metarec_jax.serving import schemas
from metarec_jax.serving.errors import FULL, NotFound, problem
from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.service import Service, ServiceDependency
from metarec_jax.serving.store import NewItem

router = APIRouter(route_class=TokenRoute, tags=["items"])

ItemId = Annotated[str, Path(min_length=1, max_length=200)]


@router.get("/items", response_model=schemas.ItemsResponse)
def find_items(
    service: ServiceDependency,
    search: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JSONResponse:
    """Search items by the beginnings of words of their titles, most rated first; if none matches, the most similar."""
    recommender = service.engine.first
    rows = recommender.items.titles.search(search, limit)
    return JSONResponse({"items": [service.item(recommender.catalogue.items.ids[row]) for row in rows]})


@router.get("/items/{item_id:path}", response_model=schemas.Item)
def one_item(item_id: ItemId, service: ServiceDependency) -> JSONResponse:
    """Return an item."""
    _check_exists(item_id, service)
    return JSONResponse(service.item(item_id))


@router.post("/items", response_model=schemas.Item, status_code=201, responses=FULL)
async def add_item(request: schemas.ItemRequest, service: ServiceDependency) -> JSONResponse:
    """Add an item that is given by a text. It can be recommended at once."""
    new = NewItem(request.id, request.title, request.text, request.details)
    identity = await service.computations.run(lambda: service.engine.add_item(new))
    return JSONResponse(service.item(identity), 201)


@router.get("/similar/{item_id:path}", response_model=schemas.SimilarResponse)
def similar(
    item_id: ItemId,
    service: ServiceDependency,
    k: Annotated[int, Query(ge=1, le=schemas.MAX_LIST)] = 10,
    by: Annotated[str, Query(pattern="^(auto|text|taste)$")] = "auto",
) -> JSONResponse:
    """Return items with a similar embedding of the text ("text"), or with similar factors of its raters ("taste")."""
    _check_exists(item_id, service)
    recommender = service.engine.first
    count = min(k, len(recommender.catalogue.items))
    try:
        found = recommender.similar(f"id:{item_id}", count, by)  # type: ignore[arg-type]
    except MetarecError as error:
        return problem(422, ["query", "by"], str(error), "value_error")
    return JSONResponse(
        {"item": service.item(item_id), "similar": [service.item(one.id) | {"cosine": one.score} for one in found]}
    )


def _check_exists(item_id: str, service: Service) -> None:
    if not service.engine.first.items.titles.has_id(item_id):
        raise NotFound(f"no item has the id {item_id!r}", "item_id")
