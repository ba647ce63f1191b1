"""The objects that all routes share, and the steps that several routes take."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request

from metarec_jax.recommender.errors import InputError
from metarec_jax.recommender.state_codec import Seal
from metarec_jax.recommender.user_state import UserState
from metarec_jax.serving import analytics, event_log
from metarec_jax.serving.batching import Batcher, QueueFull
from metarec_jax.serving.cache import VersionedCache
from metarec_jax.serving.demo_users import Person
from metarec_jax.serving.engine import Done, Engine, Job, Whose
from metarec_jax.serving.prometheus import ServiceMetrics
from metarec_jax.serving.schemas import UserFields
from metarec_jax.serving.store import Event, ShownList, open_for_reading

WRITES_AT_ONCE = 256
"""Largest number of lists and events in one transaction, where requests are computed together."""


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
        self.figures = VersionedCache(self._figures, self.store.version)

    def close(self) -> None:
        """Finish what is running and close the store."""
        self.computations.close()
        self.writes.close()
        self.store.close()

    # Users

    def user_of(self, fields: UserFields, forget: Sequence[str] = ()) -> Whose:
        """Return the user of a request, with the history that the models adapt to.

        Args:
            fields: the request.
            forget: ids of items whose ratings are removed from the history.

        Returns:
            The user.

        Raises:
            InputError: the state or the user token is not one of this service, or `forget` has an item without a
            rating.
        """
        history = [(rating.item, rating.rating) for rating in fields.history]
        if fields.state is not None:
            data = self.seal.open("state", fields.state)
            if data is None:
                raise InputError("the state is not one that this service returned: adapt to the history again", "state")
            user, states = self.engine.read_states(data)
            return Whose(user, states, history, forget)
        if fields.user is not None:
            user = self.stored_user(fields.user)
            stored = dict(self.engine.history(user))
            for item, _ in history:
                stored.pop(item, None)
            for n, item in enumerate(forget):
                if stored.pop(item, None) is None:
                    raise InputError(f"{item!r} is not in the user's history", "forget", n)
            return Whose(user, {}, [*stored.items(), *history], (), self.store.profile(user) or "")
        return Whose(new_user(), {}, history, forget, fields.profile)

    def stored_user(self, token: str) -> str:
        """Return the name of the stored user whose token this is.

        Raises:
            InputError: the token is not one of this service, or its user is not in the store.
        """
        data = self.seal.open("user", token)
        user = "" if data is None else data.decode()
        if data is None or self.store.profile(user) is None:
            raise InputError("the user is not one that this service returned: make one with POST /users", "user")
        return user

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
                raise InputError(f"no item has the id {item!r}", *field, n)

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
        }

    async def learn(self, rated: Iterable[str]) -> None:
        """Update the added items among `rated` from the ratings in the store.

        If the queue is full, they are updated before the next requests are computed: the ratings are stored already,
        so the request that brought them is not refused.
        """
        if self.engine.hear(rated):
            with contextlib.suppress(QueueFull):
                await self.computations.run(self.engine.learn_heard)

    # The store

    def _write(self, rows: Sequence[ShownList | Event]) -> list[None]:
        """Write the lists and events of several requests in one transaction, which waits for the disk once."""
        lists = [row for row in rows if isinstance(row, ShownList)]
        self.store.add(lists, [row for row in rows if isinstance(row, Event)])
        return [None] * len(rows)

    def _figures(self) -> dict[str, Any]:
        with contextlib.closing(open_for_reading(self.store.folder)) as database:
            log = event_log.read(database)
        return analytics.to_tree(analytics.figures(log, self.engine.first.catalogue.scale, time=True))


def new_user() -> str:
    """Return the name of a new user."""
    return secrets.token_hex(16)


async def get_service(request: Request) -> Service:
    """Return the service of the application (a FastAPI dependency; not async, it would run in a thread)."""
    return request.app.state.service


ServiceDependency = Annotated[Service, Depends(get_service)]
