"""Routes that compute something for a user: adapt, recommend, score, explain, interview."""

from __future__ import annotations

import math

from fastapi import APIRouter

from metarec_jax.recommender.errors import InputError
from metarec_jax.recommender.filters import Filters
from metarec_jax.serving import schemas
from metarec_jax.serving.answers import Answer
from metarec_jax.serving.engine import Done, Job, List
from metarec_jax.serving.middleware import TokenRoute
from metarec_jax.serving.service import ServiceDependency

router = APIRouter(route_class=TokenRoute, tags=["recommend"])


@router.post("/adapt", response_model=schemas.AdaptResponse)
async def adapt(request: schemas.AdaptRequest, service: ServiceDependency) -> Answer:
    """Adapt to a user and return the state, which later requests send instead of the history.

    With a `state`, `history` and `forget` change the history that it was adapted to.
    """
    job = Job(await service.user_of(request, request.forget))
    done: Done = await service.computations.submit(job)
    state = next(iter(done.states.values()))
    sealed = service.seal.close("state", service.engine.write_states(job.whose.user, done.states))
    return Answer({"state": sealed, "rated": len(state.history.rows), "notes": list(state.notes)})


@router.post("/recommend", response_model=schemas.RecommendResponse)
async def recommend(request: schemas.RecommendRequest, service: ServiceDependency) -> Answer:
    """Return the items with the highest scores, highest first."""
    filters = Filters(request.filters.details, request.filters.between, request.filters.exclude)
    wanted = List(request.k, request.exclude_seen, filters, request.log)
    done: Done = await service.computations.submit(Job(await service.user_of(request), wanted))
    if done.shown is not None:
        await service.writes.submit(done.shown)
        for place in done.places:
            service.metrics.shown(place.shown.arm)
    arms = list(done.states)
    return Answer(
        {
            "list_id": None if done.shown is None else done.shown.id,
            "arm": arms[0] if len(arms) == 1 else "both",
            "items": [
                {
                    **service.item(place.shown.item),
                    "place": place.shown.place,
                    "score": place.shown.score,
                    "deviation": _finite(place.deviation),
                    "arm": place.shown.arm,
                }
                for place in done.places
            ],
            "notes": list(next(iter(done.states.values())).notes),
        }
    )


@router.post("/score", response_model=schemas.ScoreResponse)
async def score(request: schemas.ScoreRequest, service: ServiceDependency) -> Answer:
    """Return the predicted ratings of items of the catalogue and of items that are given by a text."""
    done: Done = await service.computations.submit(
        Job(await service.user_of(request), None, request.items, request.texts)
    )
    scored = [{"item": item, "text": None} for item in request.items]
    scored += [{"item": None, "text": text} for text in request.texts]
    return Answer(
        {
            "scores": [
                {**one, "score": mean, "deviation": _finite(deviation)}
                for one, (mean, deviation) in zip(scored, done.scores.tolist())
            ]
        }
    )


@router.post("/explain", response_model=schemas.ExplainResponse)
async def explain(request: schemas.ExplainRequest, service: ServiceDependency) -> Answer:
    """Return the contribution of each rating of the history to the scores of items, and a sentence.

    With two models, `arm` names the one that chose the items: each has reasons of its own.
    """
    engine = service.engine
    service.check_ids(request.items, "items")
    if request.arm is not None and request.arm not in engine.arms:
        raise InputError(f"no model is called {request.arm!r}; there are {', '.join(engine.arms)}", "arm")
    arm, state = await service.adapted(await service.user_of(request), request.arm)
    names = [f"id:{item}" for item in request.items]
    found = await service.computations.run(lambda: engine.arms[arm].explain(state, names, words=request.words))
    return Answer(
        {
            "explanations": [
                {
                    "item": one.id,
                    "title": one.title,
                    "arm": arm,
                    "score": one.score,
                    "sentence": one.sentence,
                    "because": [reason._asdict() for reason in one.because],
                    "influences": [reason._asdict() for reason in one.influences],
                    "words": None if one.words is None else [word._asdict() for word in one.words],
                }
                for one in found
            ]
        }
    )


@router.post("/interview", response_model=schemas.InterviewResponse)
async def interview(request: schemas.InterviewRequest, service: ServiceDependency) -> Answer:
    """Return the items whose ratings by the user would tell most about the ratings of all other items."""
    service.check_ids(request.skip, "skip")
    service.check_ids(request.among, "among")
    arm, state = await service.adapted(await service.user_of(request))
    skip, among = ([f"id:{item}" for item in items] for items in (request.skip, request.among))
    recommender = service.engine.arms[arm]
    found = await service.computations.run(lambda: recommender.interview(state, request.k, skip, among))
    return Answer(
        {"questions": [{**service.item(one.id), "known": float(one.known), "gain": one.gain} for one in found]}
    )


def _finite(value: float) -> float | None:
    """Return None for NaN and infinities, which JSON does not have."""
    return float(value) if math.isfinite(value) else None
