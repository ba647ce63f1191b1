"""Answer the requests of a service in batches, without HTTP: adapt, rank, and record the lists that are shown.

All of it runs in one thread (see `metarec_jax.serving.batching`), so nothing needs a lock; other threads may only look
up items.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.errors import InputError, located
from metarec_jax.recommender.filters import ALL, Filters
from metarec_jax.recommender.history import EMPTY, CheckedHistory, check_history, rows_to_remove
from metarec_jax.recommender.items import ItemIndex, top_k
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.recommender.user_state import UserState
from metarec_jax.serving.ab_test import Arm, Exploring, Mode, arm_of, explored, interleaved
from metarec_jax.serving.added_items import MAX_ADDED, AddedItems
from metarec_jax.serving.rows import Shown, ShownList
from metarec_jax.serving.store import Store

_HEADER = struct.Struct("<H")


class Whose(NamedTuple):
    """The user of a request.

    Attributes:
        user: an identifier that stays the same for one user.
        states: encoded states of the user by name of the arm; empty for a user without one.
        history: (item id, rating) pairs, in addition to those of the states.
        forget: ids of items whose ratings are removed.
        profile: the user's text.
    """

    user: str
    states: Mapping[str, bytes] = {}
    history: Sequence[tuple[str, float]] = ()
    forget: Sequence[str] = ()
    profile: str = ""


class List(NamedTuple):
    """A request for a list: `Recommender.recommend`'s arguments, and whether the list is recorded."""

    k: int
    exclude_seen: bool = True
    filters: Filters = ALL
    log: bool = True


class Job(NamedTuple):
    """A request of one user. The user is always adapted to.

    Attributes:
        whose: the user.
        list: the list to rank; None for none.
        items: ids of items to score; None for none.
        texts: texts of items to score that are not in the catalogue.
        arm: the model to use; None for those that the user's lists come from.
    """

    whose: Whose
    list: List | None = None
    items: Sequence[str] | None = None
    texts: Sequence[str] = ()
    arm: str | None = None


class Place(NamedTuple):
    """A place of a list, and the standard deviation of its score (NaN where the model has none)."""

    shown: Shown
    deviation: float


class Done(NamedTuple):
    """The answer to a job.

    Attributes:
        states: states of the user, by name of the arm.
        places: positions of the list.
        shown: the record of the list, to be stored before the list is shown; None where it is not recorded.
        scores: float [items + texts, 2], score and standard deviation.
    """

    states: dict[str, UserState]
    places: list[Place]
    shown: ShownList | None
    scores: np.ndarray


class Engine:
    """The models of a service.

    Args:
        arms: one model, or two to compare, which have the same items.
        store: the database; items that are in it are added to the models.
        mode: how two models share the users.
        share: share of the users that get the second model, with `mode` "ab".
        exploring: how lists are randomised.
        seed: seed of the random lists; None for a different one each time.
        max_added: items that can be added, at most.

    Attributes:
        added: items of the store that the models were not trained with.

    Raises:
        MetarecError: the models do not have the same items or rating scale, or the mode does not fit their number.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        store: Store,
        *,
        mode: Mode = "single",
        share: float = 0.5,
        exploring: Exploring = Exploring(),  # noqa: B008 - it does not change
        seed: int | None = None,
        max_added: int = MAX_ADDED,
    ):
        if (mode == "single") != (len(arms) == 1):
            raise MetarecError(f"the mode is {mode!r}, but there are {len(arms)} models: compare two, or serve one")
        if any(arm.recommender.catalogue.items.ids != arms[0].recommender.catalogue.items.ids for arm in arms):
            raise MetarecError("the two runs do not have the same items, so their lists cannot be compared")
        if any(arm.recommender.catalogue.scale != arms[0].recommender.catalogue.scale for arm in arms):
            raise MetarecError("the two runs do not have the same rating scale, so their users cannot be shared")
        self.arms = {arm.name: arm.recommender for arm in arms}
        self.store, self.mode, self.share, self.exploring = store, mode, share, exploring
        self.trained_items = self.first.items.trained
        self._rng = np.random.default_rng(seed)
        for recommender in self.arms.values():
            recommender.items.titles.prepare()  # other threads search them
        self.added = AddedItems(self.arms, store, max_added)

    @property
    def first(self) -> Recommender:
        """The first model; all have the same items."""
        return next(iter(self.arms.values()))

    def arms_of(self, user: str) -> tuple[str, ...]:
        """Names of the arms that a user's lists come from."""
        names = tuple(self.arms)
        return names if self.mode != "ab" else (names[arm_of(user, len(names), self.share)],)

    def _arms_for(self, job: Job) -> tuple[str, ...]:
        return self.arms_of(job.whose.user) if job.arm is None else (job.arm,)

    def warm(self, most: int) -> int:
        """Compile the programs for up to `most` requests at once.

        Returns:
            The number of programs.
        """
        for recommender in self.arms.values():
            if recommender.candidates.needed(1):
                recommender.candidates.warm()
        return sum(recommender.executor.warm(most) for recommender in self.arms.values())

    # States

    def write_states(self, user: str, states: Mapping[str, UserState]) -> bytes:
        """Encode a user's states.

        Args:
            user: the user's identifier.
            states: states by name of the arm.

        Returns:
            The bytes.
        """
        parts = {name: self.arms[name].to_bytes(state) for name, state in states.items()}
        header = json.dumps([user, [[name, len(part)] for name, part in parts.items()]]).encode()
        return b"".join([_HEADER.pack(len(header)), header, *parts.values()])

    def read_states(self, data: bytes) -> tuple[str, dict[str, bytes]]:
        """The user's identifier and the encoded state for each arm.

        Args:
            data: from `write_states`; its seal was checked.
        """
        start = _HEADER.size
        (length,) = _HEADER.unpack(data[:start])
        user, parts = json.loads(data[start : start + length])
        start += length
        found = {}
        for name, size in parts:
            found[name] = data[start : start + size]
            start += size
        return user, found

    # Requests

    def answer(self, jobs: Sequence[Job]) -> list[Done | Exception]:
        """Answer jobs, all of them in one batch for each model.

        Args:
            jobs: the requests.

        Returns:
            The answer to each job, or the error of a job that has a mistake.
        """
        self.added.learn_noted()
        failed: dict[int, Exception] = {}
        states: list[dict[str, UserState]] = [{} for _ in jobs]
        scores: list[dict[str, np.ndarray]] = [{} for _ in jobs]
        for arm, recommender in self.arms.items():
            mine = [n for n, job in enumerate(jobs) if arm in self._arms_for(job) and n not in failed]
            for n, state in self._adapt(arm, {n: jobs[n].whose for n in mine}, failed).items():
                states[n][arm] = state
            asked = [n for n in mine if n not in failed and self._ranks_all(recommender, jobs[n])]
            try:
                for n, found in recommender.executor.score_all_with_deviation([states[n][arm] for n in asked]):
                    scores[asked[n]][arm] = found
            except MetarecError as error:
                failed |= dict.fromkeys(asked, error)
        masks: dict[str, np.ndarray | None] = {}
        answers: list[Done | Exception] = []
        for n, job in enumerate(jobs):
            if n in failed:
                answers.append(failed[n])
                continue
            try:
                answers.append(self._answer(job, states[n], scores[n], masks))
            except MetarecError as error:
                answers.append(error)
        return answers

    def history(self, user: str) -> list[tuple[str, float]]:
        """A stored user's ratings that fit the models (see `AddedItems.history`)."""
        return self.added.history(user)

    # Parts of an answer

    def _adapt(self, arm: str, asked: Mapping[int, Whose], failed: dict[int, Exception]) -> dict[int, UserState]:
        """States by number of the job; the error of a job with a mistake is put into `failed`."""
        recommender = self.arms[arm]
        found: dict[int, UserState] = {}
        anew: dict[int, tuple[CheckedHistory, np.ndarray | None]] = {}
        for n, whose in asked.items():
            try:
                state = self._state_or_history(arm, whose)
            except MetarecError as error:
                failed[n] = error
                continue
            if isinstance(state, UserState):
                found[n] = state
            else:
                anew[n] = state
        histories, known = [history for history, _ in anew.values()], [embedding for _, embedding in anew.values()]
        profiles = [asked[n].profile for n in anew]
        embeddings = recommender.users.encode(recommender.catalogue, histories, profiles, known)
        return found | dict(zip(anew, recommender.executor.adapt(histories, embeddings)))

    def _state_or_history(self, arm: str, whose: Whose) -> UserState | tuple[CheckedHistory, np.ndarray | None]:
        """The state of a request that changes nothing, or a history to adapt to and the known embedding of the user's
        text."""
        recommender = self.arms[arm]
        find = recommender.items.titles.find_id
        with located("profile"):
            recommender.users.check_profile(whose.profile)
        with located("history"):
            new = check_history(whose.history, find, recommender.catalogue.scale)
        before, embedding = EMPTY, None
        if data := whose.states.get(arm):
            with located("state"):
                before, embedding, adapted = recommender.codec.decode(data)
            if adapted is not None and not whose.history and not whose.forget:
                return recommender.executor.restore(before, embedding, adapted)
        elif whose.states:
            raise InputError("the state is of a user whom another model served: adapt to the history again", "state")
        with located("forget"):
            removed = rows_to_remove(before, whose.forget, find)
        return before.changed(new, removed), embedding

    def _pool(self, wanted: List) -> int:
        """Number of items that a list is made of."""
        return max(self.exploring.pool, wanted.k)

    def _ranks_all(self, recommender: Recommender, job: Job) -> bool:
        """Whether the scores of all items are computed, for all jobs together."""
        if job.list is None:
            return job.items is not None and not recommender.candidates.needed(1)
        return not recommender.candidates.needed(self._pool(job.list))

    def _answer(
        self,
        job: Job,
        states: dict[str, UserState],
        scores: dict[str, np.ndarray],
        masks: dict[str, np.ndarray | None],
    ) -> Done:
        """The answer to a job, given states and [2, items] scores and deviations by arm, where they were computed;
        `masks` caches filters."""
        places: list[Place] = []
        shown = None
        if job.list is not None:
            places, shown = self._ranked(job.whose, job.list, states, scores, masks)
        asked = np.zeros((0, 2), np.float32)
        if job.items is not None:
            name = next(iter(states))
            recommender = self.arms[name]
            with located("items"):
                rows = recommender.items.rows_of_ids(job.items)
            of_texts = np.full((len(job.texts), 2), np.nan, np.float32)
            for n, text in enumerate(job.texts):
                with located("texts", n):
                    of_texts[n, 0] = recommender.score_text(states[name], text)
            of_items = scores[name][:, rows] if name in scores else _scored(recommender, states[name], rows)
            asked = np.concatenate([of_items.T, of_texts])
        return Done(states, places, shown, asked)

    def _ranked(
        self,
        whose: Whose,
        wanted: List,
        states: dict[str, UserState],
        scores: dict[str, np.ndarray],
        masks: dict[str, np.ndarray | None],
    ) -> tuple[list[Place], ShownList | None]:
        """The list that is asked for, and its record."""
        filters = json.dumps(wanted.filters._asdict(), sort_keys=True)
        pool = self._pool(wanted)
        orders: dict[str, np.ndarray] = {}
        found: dict[str, np.ndarray] = {}  # scores and deviations of the rows of `orders`
        for name, state in states.items():
            recommender = self.arms[name]
            if filters not in masks:
                with located("filters"):
                    masks[filters] = None if wanted.filters == ALL else _allowed(recommender.items, wanted.filters)
            allowed, seen = masks[filters], wanted.exclude_seen
            if name in scores:
                orders[name] = top_k(
                    scores[name][0], pool, recommender.items.candidates(state.history.rows, allowed, seen)
                )
                found[name] = scores[name][:, orders[name]]
            else:
                (rows,) = recommender.candidates.rows([state], allowed, exclude_seen=seen)
                proposed = _scored(recommender, state, rows)
                best = top_k(proposed[0], pool, np.ones(len(rows), bool))
                orders[name], found[name] = rows[best], proposed[:, best]
        names = tuple(orders)
        ids = self.first.catalogue.items.ids
        if self.mode == "interleave" and len(names) == 2:
            listed = [[ids[row] for row in orders[name]] for name in names]
            by_id = [dict(zip(ids_of, found[name][0].tolist())) for ids_of, name in zip(listed, names)]
            shown = interleaved((listed[0], listed[1]), (by_id[0], by_id[1]), (names[0], names[1]), wanted.k, self._rng)
            explore, arm = 0.0, "both"
        else:
            arm, explore = names[0], self.exploring.share if wanted.log else 0.0
            exploring = self.exploring._replace(share=explore)
            shown = explored(orders[arm], found[arm][0], wanted.k, exploring, arm, ids, self._rng)
        deviations = {
            (name, ids[row]): deviation
            for name in names
            for row, deviation in zip(orders[name], found[name][1].tolist())
        }
        places = [Place(place, deviations[place.arm, place.item]) for place in shown]
        if not wanted.log:
            return places, None
        rows, ratings, _ = states[names[0]].history
        history = [(ids[row], float(rating)) for row, rating in zip(rows.tolist(), ratings)]
        model = "+".join(self.arms[name].codec.digest for name in names)
        identity = secrets.token_urlsafe(16)
        asked = json.dumps({**json.loads(filters), "exclude_seen": wanted.exclude_seen})
        pool = len(orders[names[0]])
        return places, ShownList(identity, whose.user, arm, model, self.mode, history, asked, pool, explore, shown)


def _scored(recommender: Recommender, state: UserState, rows: np.ndarray) -> Float[np.ndarray, "two rows"]:
    """Scores and deviations of some rows."""
    if not len(rows):
        return np.zeros((2, 0), np.float32)
    return recommender.executor.score_rows_with_deviation(state, rows)


def _allowed(items: ItemIndex, filters: Filters) -> Bool[np.ndarray, " items"]:
    """Which items meet the conditions of `filters`, whose excluded items are named by id alone."""
    allowed = items.allowed(filters._replace(exclude=()))
    with located("exclude"):
        allowed[items.rows_of_ids(filters.exclude)] = False
    return allowed
