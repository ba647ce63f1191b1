"""The objects that all routes share, and the steps that several routes take."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.errors import InputError, shortened
from metarec_jax.recommender.state_codec import Seal
from metarec_jax.recommender.user_state import UserState
from metarec_jax.serving import analytics, event_log
from metarec_jax.serving.batching import Batcher, QueueFull
from metarec_jax.serving.cache import VersionedCache
from metarec_jax.serving.database import open_for_reading
from metarec_jax.serving.demo_users import Person
from metarec_jax.serving.engine import Done, Engine, Job, Whose
from metarec_jax.serving.prometheus import ServiceMetrics
from metarec_jax.serving.rows import Event, NewItem, ShownList
from metarec_jax.serving.schemas import Problem, UserFields

WRITES_AT_ONCE = 256
"""Largest number of lists and events in one transaction, where requests are computed together."""
PROBE_SECONDS = 1.0
"""Time that /healthz waits for a store that failed before."""


class Service:
    """Engine, store, queues, seal and counters of one service.

    Args:
        engine: the models and the store.
        token: what requests must send as ``Authorization: Bearer TOKEN``; None serves every request.
        people: users of a public data set, by id.
        wait: seconds that the first of several requests waits for others.
        max_batch: largest number of requests that are computed together; 1 computes one at a time.
        max_waiting: largest number of requests that wait for the models; more are refused.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        token: str | None,
        people: Mapping[str, Person],
        wait: float,
        max_batch: int,
        max_waiting: int,
    ):
        self.engine, self.store, self.token, self.people = engine, engine.store, token, people
        self.seal = Seal(self.store.key)
        self.metrics = ServiceMetrics(lambda: self.computations.waiting, self.store.counts)
        self.computations: Batcher[Job] = Batcher(
            engine.answer, wait=wait, max_batch=max_batch, max_waiting=max_waiting, on_batch=self.metrics.batch
        )
        self.writes: Batcher[ShownList | Event] = Batcher(
            self._write, wait=0.0, max_batch=1 if max_batch == 1 else WRITES_AT_ONCE
        )
        self._adding = asyncio.Lock()  # ids and the number of items are checked before an item is stored
        self._figuring = asyncio.Lock()
        self._reported = ""
        self.figures = VersionedCache(self._figures, self.store.version)

    def close(self) -> None:
        """Finish what is running and close the store."""
        self.computations.close()
        self.writes.close()
        self.store.close()

    # Users

    async def user_of(self, fields: UserFields, forget: Sequence[str] = ()) -> Whose:
        """Return the user of a request, with the history that the models adapt to.

        Args:
            fields: the request.
            forget: ids of items whose ratings are removed from the history.

        Returns:
            The user.

        Raises:
            InputError: the state or the user token is not one of this service, or `forget` has an item without a
                rating.
            StoreError: the user's history cannot be read.
        """
        history = [(rating.item, rating.rating) for rating in fields.history]
        if fields.state is not None:
            data = self.seal.open("state", fields.state)
            if data is None:
                raise InputError("the state is not one that this service returned: adapt to the history again", "state")
            user, states = self.engine.read_states(data)
            return Whose(user, states, history, forget)
        if (token := fields.user) is not None:
            user, profile, ratings = await self.read(lambda: self._stored(token))
            stored = dict(ratings)
            for item, _ in history:
                stored.pop(item, None)
            for n, item in enumerate(forget):
                if stored.pop(item, None) is None:
                    raise InputError(f"{shortened(item)} is not in the user's history", "forget", n)
            return Whose(user, {}, [*stored.items(), *history], (), profile)
        return Whose(new_user(), {}, history, forget, fields.profile)

    def _stored(self, token: str) -> tuple[str, str, list[tuple[str, float]]]:
        """Name, profile and ratings of a stored user."""
        user, profile = self.stored_user(token)
        return user, profile, self.engine.history(user)

    def stored_user(self, token: str) -> tuple[str, str]:
        """Return the name and the profile of the stored user whose token this is. Reads the store.

        Raises:
            InputError: the token is not one of this service, or its user is not in the store.
        """
        data = self.seal.open("user", token)
        user = "" if data is None else data.decode()
        profile = None if data is None else self.store.profile(user)
        if profile is None:
            raise InputError("the user is not one that this service returned: make one with POST /users", "user")
        return user, profile

    @staticmethod
    async def read(function: Callable[[], Any]) -> Any:
        """Return the result of a function that reads the store, in a thread: other requests do not wait for it."""
        return await asyncio.to_thread(function)

    async def adapted(self, user: Whose, arm: str | None = None) -> tuple[str, UserState]:
        """Return the name of a model and the user's state for it.

        Args:
            user: the user.
            arm: name of the model; None takes the first of those that the user's lists come from.

        Returns:
            Name of the model, and state of the user.

        Raises:
            MetarecError: the request has a mistake.
            QueueFull: too many requests are waiting.
        """
        arm = self.engine.arms_of(user.user)[0] if arm is None else arm
        done: Done = await self.computations.submit(Job(user, arm=arm))
        return arm, done.states[arm]

    # Items

    def check_ids(self, items: Sequence[str], *field: str) -> None:
        """Check that items exist.

        Args:
            items: ids.
            field: names that lead to the list in the request.

        Raises:
            InputError: an id is not in the catalogue.
        """
        for n, item in enumerate(items):
            if not self.engine.first.items.titles.has_id(item):
                raise InputError(f"no item has the id {shortened(item)}", *field, n)

    def item(self, identity: str) -> dict[str, Any]:
        """Return the fields of `schemas.Item` of the item with an id."""
        row = self.engine.first.items.titles.find_id(identity).row
        catalogue = self.engine.first.catalogue  # read after the row, because another thread can be adding items
        items = catalogue.items
        return {
            "id": identity,
            "title": items.titles[row],
            "text": items.texts[row],
            "details": {name: values[row] for name, values in items.details.items()},
            "ratings": int(catalogue.statistics.count[row]),
            "new": row >= self.engine.trained_items,
            "picture": items.picture(row) is not None,
        }

    def picture(self, identity: str) -> bytes | None:
        """Return a small copy of the picture of the item with an id, as a JPEG; None if it has none."""
        first = self.engine.first
        return first.catalogue.items.picture(first.items.titles.find_id(identity).row)

    async def add_item(self, new: NewItem) -> str:
        """Add an item. The models have it once it is on disk.

        The models wait for the reading of its text, and not for the disk.

        Args:
            new: the item; an empty id is generated.

        Returns:
            Its id.

        Raises:
            InputError: the item has a mistake.
            Full: too many items were added already.
            QueueFull: too many requests are waiting.
            StoreError: it cannot be stored.
            Unavailable: the encoder cannot be used.
        """
        added = self.engine.added
        async with self._adding:
            readings = await self.computations.run(lambda: added.read(new))
            identity = await self.writes.run(lambda: added.store(new, readings))
            await self.computations.run(added.follow, always=True)
        return identity

    async def learn(self, rated: Iterable[str]) -> None:
        """Update the added items among `rated` from the ratings in the store.

        If the queue is full, they are updated before the next requests are computed: the ratings are stored already,
        so the request that brought them is not refused.
        """
        if self.engine.added.note_rated(rated):
            with contextlib.suppress(QueueFull):
                await self.computations.run(self.engine.added.learn_noted)

    # Health

    async def problems(self) -> list[Problem]:
        """Return what keeps the service from answering some requests; empty if nothing does.

        After a failure of the store, it is tried again.
        """
        if self.store.trouble:
            with contextlib.suppress(MetarecError, QueueFull, TimeoutError):
                await asyncio.wait_for(self.writes.run(self.store.probe), PROBE_SECONDS)
        found = []
        if (trouble := self.store.trouble) is not None:
            message = f"{trouble.cause.wrong}: {trouble.cause.remedy}"
            found.append(Problem(loc=["service", "store"], msg=message, type="store"))
        if await self.read(lambda: any(arm.texts.folder_is_gone() for arm in self.engine.arms.values())):
            message = "the folder of the encoder is gone, so new texts may not be read: put it back"
            found.append(Problem(loc=["service", "encoder"], msg=message, type="unavailable"))
        return found

    def report(self, error: MetarecError) -> None:
        """Print an error for whoever runs the service, unless it is the one that was printed last."""
        if str(error) != self._reported:
            self._reported = str(error)
            print(f"metarec: {error}", file=sys.stderr, flush=True)

    # The store

    def _write(self, rows: Sequence[ShownList | Event]) -> list[None]:
        """Write the lists and events of several requests in one transaction, which waits for the disk once."""
        lists = [row for row in rows if isinstance(row, ShownList)]
        self.store.add(lists, [row for row in rows if isinstance(row, Event)])
        return [None] * len(rows)

    async def read_figures(self) -> dict[str, Any]:
        """Return the figures of the log. Requests for them wait for each other here, and not in threads."""
        async with self._figuring:
            return await self.read(self.figures.get)

    def _figures(self) -> dict[str, Any]:
        self.store.check_in_place()
        with open_for_reading(self.store.folder) as database:
            log = event_log.read(database)
        return analytics.to_tree(analytics.figures(log, self.engine.first.catalogue.scale, time=True))


def new_user() -> str:
    """Return the name of a new user."""
    return secrets.token_hex(16)


async def get_service(request: Request) -> Service:
    """Return the service of the application (a FastAPI dependency; not async, it would run in a thread)."""
    return request.app.state.service


ServiceDependency = Annotated[Service, Depends(get_service)]
