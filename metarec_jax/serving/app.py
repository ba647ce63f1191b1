"""The service over HTTP: routes, and nothing that is not about HTTP.

FastAPI and what it needs are imported here and nowhere else, so that the rest of the package does without them.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.errors import InputError
from metarec_jax.recommender.filters import Filters
from metarec_jax.recommender.state_codec import Seal
from metarec_jax.recommender.user_state import UserState
from metarec_jax.serving import analytics as of_log
from metarec_jax.serving import schemas as s
from metarec_jax.serving.batching import Crowded, Gatherer
from metarec_jax.serving.cache import Remembered
from metarec_jax.serving.demo_users import Person
from metarec_jax.serving.engine import Done, Engine, Full, Job, List, Whose
from metarec_jax.serving.event_log import read
from metarec_jax.serving.feedback import liked_from
from metarec_jax.serving.middleware import Guard
from metarec_jax.serving.prometheus import Meters
from metarec_jax.serving.store import Event, NewItem, ShownList, open_for_reading

PAGE = Path(__file__).parent / "page"
ItemPath = Annotated[str, InPath(min_length=1, max_length=200)]
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": s.Problems, "description": "The token is missing or wrong."},
    404: {"model": s.Problems, "description": "There is no such thing."},
    413: {"model": s.Problems, "description": "Too much was sent."},
    422: {"model": s.Problems, "description": "A field is wrong; `loc` names it."},
    429: {"model": s.Problems, "description": "Too many requests wait already."},
}

FULL: dict[int | str, dict[str, Any]] = {
    409: {"model": s.Problems, "description": "As many items were added as there is room for."}
}


class Missing(InputError):
    """A path that leads to nothing."""


def make_app(
    engine: Engine,
    *,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    people: Mapping[str, Person] | None = None,
    wait: float = 0.003,
    most: int = 64,
    longest: int = 1024,
) -> FastAPI:
    """The service.

    Args:
        engine: the models and the store.
        token: what requests must show; None lets everybody in.
        hosts: names that it may be called by; None allows any.
        people: users of a public data set.
        wait: seconds that the first of several requests waits for others.
        most: requests that are computed together. With 1, one at a time.
        longest: requests that may wait for the models; more are refused.
    """
    store, people = engine.store, people or {}
    seal = Seal(store.key)
    meters: Meters
    gatherer: Gatherer[Job] = Gatherer(
        engine.answer, wait=wait, most=most, longest=longest, measure=lambda jobs, seconds: meters.call(jobs, seconds)
    )

    def write(rows: Sequence[ShownList | Event]) -> list[None]:
        """Lists and events of several requests in one transaction: one wait for the disk."""
        store.add([row for row in rows if isinstance(row, ShownList)], [row for row in rows if isinstance(row, Event)])
        return [None] * len(rows)

    def figures_now() -> dict[str, Any]:
        with contextlib.closing(open_for_reading(store.folder)) as database:
            log = read(database)
        liked = liked_from(engine.first.catalogue.scale)
        return of_log.to_tree(of_log.figures(log, liked, time=True))

    remembered = Remembered(figures_now, store.version, share=1.0)  # what was clicked shows at once
    writer: Gatherer[ShownList | Event] = Gatherer(write, wait=0.0, most=most if most == 1 else 256)
    meters = Meters(lambda: gatherer.waiting, store.counts)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        gatherer.close()
        writer.close()
        store.close()

    app = FastAPI(
        title="metarec",
        summary="Recommendations that adapt to a user at once.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        responses=PROBLEMS,
    )

    app.state.engine = engine

    # What went wrong

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _problems(422, [(e["loc"], e["msg"], e["type"]) for e in error.errors()])

    @app.exception_handler(InputError)
    async def mistaken(request: Request, error: InputError) -> JSONResponse:
        return _problems(422, [(("body", *error.field), str(error), "value_error")])

    @app.exception_handler(Missing)
    async def missing(request: Request, error: Missing) -> JSONResponse:
        return _problems(404, [(("path", *error.field), str(error), "missing")])

    @app.exception_handler(MetarecError)
    async def refused(request: Request, error: MetarecError) -> JSONResponse:
        return _problems(422, [(("body",), str(error), "value_error")])

    @app.exception_handler(Full)
    async def full(request: Request, error: Full) -> JSONResponse:
        return _problems(409, [(("service",), str(error), "full")])

    @app.exception_handler(Crowded)
    async def crowded(request: Request, error: Crowded) -> JSONResponse:
        answer = _problems(429, [(("service",), "too many requests wait already: try again in a second", "crowded")])
        answer.headers["Retry-After"] = "1"
        return answer

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return _problems(error.status_code, [(("path",), str(error.detail), "http")])

    # Who asks

    def whose(asked: s.Whose, forget: Sequence[str] = ()) -> Whose:
        history = [(rating.item, rating.rating) for rating in asked.history]
        if asked.state is not None:
            data = seal.open("state", asked.state)
            if data is None:
                raise InputError("this is no state that this service gave out", "state")
            user, states = engine.read_states(data)
            return Whose(user, states, history, forget)
        if asked.user is not None:
            user = known(asked.user)
            kept = dict(engine.history(user))
            for item, _ in history:
                kept.pop(item, None)
            for n, item in enumerate(forget):
                if kept.pop(item, None) is None:
                    raise InputError(f"{item!r} is not in the user's history", "forget", n)
            return Whose(user, {}, [*kept.items(), *history], (), store.profile(user) or "")
        return Whose(secrets.token_hex(16), {}, history, forget, asked.profile)

    def known(token: str) -> str:
        data = seal.open("user", token)
        user = data.decode() if data is not None else ""
        if data is None or store.profile(user) is None:
            raise InputError("this is no user that this service gave out", "user")
        return user

    async def adapted(who: Whose, arm: str | None = None) -> tuple[str, UserState]:
        """An arm and its state of a user; where none is named, the first of those that the user's lists come from."""
        arm = engine.arms_of(who.user)[0] if arm is None else arm
        done: Done = await gatherer.ask(Job(who, arm=arm))
        return arm, done.states[arm]

    # Recommending

    @app.post("/adapt", response_model=s.AdaptResponse, tags=["recommend"])
    async def adapt(asked: s.AdaptRequest) -> Response:
        """Adapts to a user; the state that comes back is to be handed to the other requests.

        With a `state`, what is in `history` and `forget` comes on top of what it was adapted to.
        """
        job = Job(whose(asked, asked.forget))
        done: Done = await gatherer.ask(job)
        state = next(iter(done.states.values()))
        data = engine.write_states(job.whose.user, done.states)
        return _json({"state": seal.close("state", data), "rated": len(state.history.rows), "notes": list(state.notes)})

    @app.post("/recommend", response_model=s.RecommendResponse, tags=["recommend"])
    async def recommend(asked: s.RecommendRequest) -> Response:
        """The items with the highest scores, best first."""
        filters = Filters(asked.filters.details, asked.filters.between, asked.filters.exclude)
        wanted = List(asked.k, asked.exclude_seen, filters, asked.log)
        done: Done = await gatherer.ask(Job(whose(asked), wanted))
        if done.shown is not None:
            await writer.ask(done.shown)
            for place in done.places:
                meters.shown(place.shown.arm)
        names = list(done.states)
        return _json(
            {
                "list_id": None if done.shown is None else done.shown.id,
                "arm": names[0] if len(names) == 1 else "both",
                "items": [
                    {
                        **item(place.shown.item),
                        "place": place.shown.place,
                        "score": place.shown.score,
                        "deviation": _number(place.deviation),
                        "arm": place.shown.arm,
                    }
                    for place in done.places
                ],
                "notes": list(next(iter(done.states.values())).notes),
            }
        )

    @app.post("/score", response_model=s.ScoreResponse, tags=["recommend"])
    async def score(asked: s.ScoreRequest) -> Response:
        """What the user would give some items of the catalogue, and items that are only described by a text."""
        done: Done = await gatherer.ask(Job(whose(asked), None, asked.items, asked.texts))
        named: list[tuple[str | None, str | None]] = [(i, None) for i in asked.items] + [(None, t) for t in asked.texts]
        return _json(
            {
                "scores": [
                    {"item": i, "text": t, "score": float(mean), "deviation": _number(deviation)}
                    for (i, t), (mean, deviation) in zip(named, done.scores.tolist())
                ]
            }
        )

    @app.post("/explain", response_model=s.ExplainResponse, tags=["recommend"])
    async def explain(asked: s.ExplainRequest) -> Response:
        """Why items have their scores: what each rating adds, and a sentence where that says something.

        Of two models each has reasons of its own: name with `arm` the one that put the items into the list.
        """
        for n, identity in enumerate(asked.items):
            if not engine.first.items.titles.has_id(identity):
                raise InputError(f"no item has the id {identity!r}", "items", n)
        if asked.arm is not None and asked.arm not in engine.arms:
            raise InputError(f"no model is called {asked.arm!r}; there are {', '.join(engine.arms)}", "arm")
        arm, state = await adapted(whose(asked), asked.arm)
        names = [f"id:{identity}" for identity in asked.items]
        found = await gatherer.run(lambda: engine.arms[arm].explain(state, names, words=asked.words))
        return _json(
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

    @app.post("/interview", response_model=s.InterviewResponse, tags=["recommend"])
    async def interview(asked: s.InterviewRequest) -> Response:
        """Items to ask the user about next: those whose ratings would tell most about all the others."""
        for field, named in (("skip", asked.skip), ("among", asked.among)):
            for n, identity in enumerate(named):
                if not engine.first.items.titles.has_id(identity):
                    raise InputError(f"no item has the id {identity!r}", field, n)
        arm, state = await adapted(whose(asked))
        skip, among = ([f"id:{identity}" for identity in named] for named in (asked.skip, asked.among))
        found = await gatherer.run(lambda: engine.arms[arm].interview(state, asked.k, skip, among))
        return _json({"questions": [{**item(one.id), "known": float(one.known), "gain": one.gain} for one in found]})

    # Items

    def item(identity: str) -> dict[str, Any]:
        row = engine.first.items.titles.find_id(identity).row
        catalogue = engine.first.catalogue  # after the row: another thread may be adding items
        items = catalogue.items
        return {
            "id": identity,
            "title": items.titles[row],
            "text": items.texts[row],
            "details": {name: values[row] for name, values in items.details.items()},
            "ratings": int(catalogue.statistics.count[row]),
            "new": row >= engine.trained_items,
        }

    def there(identity: str) -> str:
        if not engine.first.items.titles.has_id(identity):
            raise Missing(f"no item has the id {identity!r}", "item_id")
        return identity

    @app.get("/items", response_model=s.ItemsResponse, tags=["items"])
    def find_items(
        search: Annotated[str, Query(max_length=200)] = "", limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> Response:
        """Items by the beginning of words of their titles, those rated most first; the nearest where none fits."""
        rows = engine.first.items.titles.search(search, limit)
        return _json({"items": [item(engine.first.catalogue.items.ids[row]) for row in rows]})

    @app.get("/items/{item_id:path}", response_model=s.Item, tags=["items"])
    def one_item(item_id: ItemPath) -> Response:
        """An item."""
        return _json(item(there(item_id)))

    @app.post("/items", response_model=s.Item, status_code=201, tags=["items"], responses=FULL)
    async def add_item(asked: s.ItemRequest) -> Response:
        """A new item, from its text alone: it can be recommended at once."""
        new = NewItem(asked.id, asked.title, asked.text, asked.details)
        identity = await gatherer.run(lambda: engine.add_item(new))
        return _json(item(identity), 201)

    @app.get("/similar/{item_id:path}", response_model=s.SimilarResponse, tags=["items"])
    def similar(
        item_id: ItemPath,
        k: Annotated[int, Query(ge=1, le=s.MOST_LIST)] = 10,
        by: Annotated[str, Query(pattern="^(auto|text|taste)$")] = "auto",
    ) -> Response:
        """Items like this one: by "text", what the encoder says of it; by "taste", who likes it."""
        identity = f"id:{there(item_id)}"
        most = min(k, len(engine.first.catalogue.items))
        try:
            found = engine.first.similar(identity, most, by)  # type: ignore[arg-type]
        except MetarecError as error:
            return _problems(422, [(("query", "by"), str(error), "value_error")])
        return _json({"item": item(item_id), "similar": [item(r.id) | {"cosine": r.score} for r in found]})

    # People

    @app.get("/users", response_model=s.UsersResponse, tags=["users"])
    def users() -> Response:
        """Users of the run's data set whom the model was not trained on; none where the data is not public."""
        listed = [{"id": p.id, "profile": p.profile, "ratings": len(p.history)} for p in people.values()]
        return _json({"users": listed})

    @app.get("/users/{user_id}", response_model=s.PublicHistory, tags=["users"])
    def one_user(user_id: Annotated[str, InPath(min_length=1, max_length=200)]) -> Response:
        """What one of them has rated."""
        if user_id not in people:
            raise Missing(f"no user to try is called {user_id!r}", "user_id")
        person = people[user_id]
        rated = [item(i) | {"rating": r} for i, r in person.history if engine.first.items.titles.has_id(i)]
        return _json({"id": person.id, "profile": person.profile, "history": rated})

    @app.post("/users", response_model=s.UserResponse, status_code=201, tags=["users"])
    async def add_user(asked: s.UserRequest) -> Response:
        """A new user, whose history is kept here and grows with ratings from /feedback."""
        history = [(rating.item, rating.rating) for rating in asked.history]
        user = secrets.token_hex(16)
        await gatherer.ask(Job(Whose(user, {}, history, (), asked.profile)))  # which finds any mistake
        await writer.run(lambda: store.add_user(user, asked.profile, history))
        await learn(item for item, _ in history)
        return _json({"user": seal.close("user", user.encode())}, 201)

    # Learning from use

    async def learn(rated: Iterable[str]) -> None:
        """Lets added items learn from what is on disk now. Where too much waits, that is no reason to refuse what was
        kept: they learn before the next requests are answered."""
        if engine.hear(rated):
            with contextlib.suppress(Crowded):
                await gatherer.run(engine.learn_heard)

    @app.post("/feedback", response_model=s.FeedbackResponse, status_code=201, tags=["feedback"])
    async def feedback(asked: s.FeedbackRequest) -> Response:
        """What a user did. Once this is answered, it is on disk."""
        user = None if asked.user is None else known(asked.user)
        arm = "none"
        if not engine.first.items.titles.has_id(asked.item):
            raise InputError(f"no item has the id {asked.item!r}", "item")
        if asked.list_id is not None:
            seen = store.shown_in(asked.list_id)
            if seen is None:
                raise InputError("there was no such list", "list_id")
            if user is not None and user != seen[0]:
                raise InputError("that list was somebody else's", "user")
            user = seen[0]
            if asked.item not in seen[1]:
                raise InputError("the item was not in that list", "item")
            arm = seen[1][asked.item]
        scale = engine.first.catalogue.scale
        if asked.rating is not None and not scale.low <= asked.rating <= scale.high:
            raise InputError(f"ratings lie between {scale.low:g} and {scale.high:g}", "rating")
        value = 1.0 if asked.rating is None else asked.rating
        await writer.ask(Event(user or "", asked.item, asked.kind, value, asked.list_id))
        if asked.kind in ("rating", "forget"):
            await learn([asked.item])
        meters.event(asked.kind, arm)
        return _json({"kept": True}, 201)

    @app.get("/figures", tags=["feedback"])
    def figures() -> Response:
        """CTR, precision, nDCG of clicks and ratings of each arm with intervals over users; and over time.

        The log is read again when something was written to it, and not whenever somebody asks.
        """
        return _json(remembered.get())

    # The service itself

    @app.get("/about", tags=["service"])
    def about() -> dict[str, Any]:
        """What is served: models, scale, details of items."""
        recommender = engine.first
        scale = recommender.catalogue.scale
        return {
            "models": {name: arm.codec.digest for name, arm in engine.arms.items()},
            "mode": engine.mode,
            "explore": engine.exploring.share,
            "items": len(recommender.catalogue.items),
            "scale": {"kind": scale.kind, "low": scale.low, "high": scale.high, "levels": list(scale.levels)},
            "details": recommender.items.details.words(),
            "reads_profiles": recommender.config.learner.user_side == "profile",
            "asks": recommender.catalogue.beliefs is not None,
        }

    @app.get("/healthz", tags=["service"])
    async def healthz() -> dict[str, str]:
        """Whether the service is up."""
        return {"status": "ok"}

    @app.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    def metrics() -> Response:
        """Counters for Prometheus."""
        return PlainTextResponse(meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(Guard, token=token, hosts=hosts, free=_page_paths(), meters=meters)  # type: ignore[arg-type]
    return app


def _page_paths() -> frozenset[str]:
    """Paths of the page's files."""
    files = [path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()]
    return frozenset({"/healthz", "/", *(f"/{file}" for file in files)})


def _json(tree: Any, status: int = 200) -> Response:
    """`tree`, which is known to fit its model: nothing is checked again on the way out."""
    return Response(json.dumps(tree, ensure_ascii=False), status, media_type="application/json")


def _problems(status: int, found: Sequence[tuple[Sequence[str | int], str, str]]) -> JSONResponse:
    """An answer that says what is wrong, and repeats nothing of what was sent that is no text."""
    detail = [{"loc": [_plain(part) for part in loc], "msg": _plain(msg), "type": kind} for loc, msg, kind in found]
    return JSONResponse({"detail": detail}, status)


def _plain(part: Any) -> Any:
    return part if isinstance(part, int) else str(part).encode("utf-8", "replace").decode()


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
