"""Routes of the users: test users of a public data set, and users whose history the service stores."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from metarec_jax.recommender.errors import shortened
from metarec_jax.serving import schemas
from metarec_jax.serving.answers import Answer
from metarec_jax.serving.engine import Job, Whose
from metarec_jax.serving.errors import NotFound
from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.service import ServiceDependency, new_user

router = APIRouter(route_class=TokenRoute, tags=["users"])


@router.get("/users", response_model=schemas.UsersResponse)
def users(service: ServiceDependency) -> Answer:
    """Return the test users of the run's data set; none if the data set is not public."""
    listed = [{"id": p.id, "profile": p.profile, "ratings": len(p.history)} for p in service.people.values()]
    return Answer({"users": listed})


@router.get("/users/{user_id}", response_model=schemas.PublicHistory)
def one_user(user_id: Annotated[str, Path(min_length=1)], service: ServiceDependency) -> Answer:
    """Return the ratings of a test user."""
    if user_id not in service.people:
        raise NotFound(f"no test user has the id {shortened(user_id)}", "path", "user_id")
    person, has_id = service.people[user_id], service.engine.first.items.titles.has_id
    rated = [service.item(item) | {"rating": rating} for item, rating in person.history if has_id(item)]
    return Answer({"id": person.id, "profile": person.profile, "history": rated})


@router.post("/users", response_model=schemas.UserResponse, status_code=201)
async def add_user(request: schemas.UserRequest, service: ServiceDependency) -> Answer:
    """Add a user whose history the service stores; ratings from /feedback are added to it."""
    history = [(rating.item, rating.rating) for rating in request.history]
    user = new_user()
    await service.computations.submit(Job(Whose(user, {}, history, (), request.profile)))  # finds any mistake
    await service.writes.run(lambda: service.store.add_user(user, request.profile, history))
    await service.learn(item for item, _ in history)
    return Answer({"user": service.seal.close("user", user.encode())}, 201)
