"""Routes of the items: search, one item, similar items, and adding one."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from starlette.convertors import Convertor, register_url_convertor

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.errors import shortened
from metarec_jax.serving import schemas
from metarec_jax.serving.answers import Answer
from metarec_jax.serving.errors import FULL, NotFound, problem
from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.rows import NewItem
from metarec_jax.serving.service import Service, ServiceDependency

router = APIRouter(route_class=TokenRoute, tags=["items"])


class _AnyPath(Convertor[str]):
    """The rest of a path. Starlette's own convertor stops at a line break, which an id can have."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", _AnyPath())

ItemId = Annotated[str, Path(min_length=1)]
ById = Annotated[
    str | None, Query(description="An item's id, whatever it is: addresses and proxies change some paths (.., //).")
]
Count = Annotated[int, Query(ge=1, le=schemas.MAX_LIST)]
By = Annotated[Literal["auto", "text", "taste"], Query()]


@router.get("/items", response_model=schemas.ItemsResponse)
def find_items(
    service: ServiceDependency,
    search: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    id: ById = None,
) -> Answer:
    """Search items by the beginnings of words of their titles, most rated first; if none matches, the most similar.

    With `id` it is the item that has it.
    """
    if id is not None:
        _check_exists(id, service, ("query", "id"))
        return Answer({"items": [service.item(id)]})
    recommender = service.engine.first
    rows = recommender.items.titles.search(search, limit)
    return Answer({"items": [service.item(recommender.catalogue.items.ids[row]) for row in rows]})


@router.get("/items/{item_id:any}", response_model=schemas.Item)
def one_item(item_id: ItemId, service: ServiceDependency) -> Answer:
    """Return an item."""
    _check_exists(item_id, service)
    return Answer(service.item(item_id))


@router.post("/items", response_model=schemas.Item, status_code=201, responses=FULL)
async def add_item(request: schemas.ItemRequest, service: ServiceDependency) -> Answer:
    """Add an item that is given by a text. It can be recommended at once, and is on disk before this answers."""
    identity = await service.add_item(NewItem(request.id, request.title, request.text, request.details))
    return Answer(service.item(identity), 201)


@router.get("/picture", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def picture(service: ServiceDependency, item: Annotated[str, Query(min_length=1)]) -> Response:
    """Return a small copy of an item's picture, as a JPEG."""
    _check_exists(item, service, ("query", "item"))
    found = service.picture(item)
    if found is None:
        raise NotFound(f"the item {shortened(item)} has no picture", "query", "item")
    return Response(found, media_type="image/jpeg")


@router.get("/similar", response_model=schemas.SimilarResponse)
def similar_to(
    service: ServiceDependency, item: Annotated[str, Query(min_length=1)], k: Count = 10, by: By = "auto"
) -> Answer:
    """Return items similar to an item, as GET /similar/{item_id} does."""
    _check_exists(item, service, ("query", "item"))
    return _similar(item, service, k, by)


@router.get("/similar/{item_id:any}", response_model=schemas.SimilarResponse)
def similar(item_id: ItemId, service: ServiceDependency, k: Count = 10, by: By = "auto") -> Answer:
    """Return items with a similar embedding of the text ("text"), or with similar factors of its raters ("taste")."""
    _check_exists(item_id, service)
    return _similar(item_id, service, k, by)


def _similar(item: str, service: Service, k: int, by: Literal["auto", "text", "taste"]) -> Answer:
    recommender = service.engine.first
    count = min(k, len(recommender.catalogue.items))
    try:
        found = recommender.similar(f"id:{item}", count, by)
    except MetarecError as error:
        return problem(422, ["query", "by"], str(error), "value_error")
    return Answer(
        {"item": service.item(item), "similar": [service.item(one.id) | {"cosine": one.score} for one in found]}
    )


def _check_exists(item_id: str, service: Service, place: tuple[str, str] = ("path", "item_id")) -> None:
    if not service.engine.first.items.titles.has_id(item_id):
        raise NotFound(f"no item has the id {shortened(item_id)}", *place)
