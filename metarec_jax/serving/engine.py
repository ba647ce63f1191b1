"""What a service does with requests, many at once and without HTTP: adapt, rank, and keep what was shown.

Everything here runs in one thread (see `metarec_jax.serving.batching`), so nothing needs a lock; but what only looks an
item up, and `Engine.hear`, may run in others.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.config.run import covers_all
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.filters import ALL, Filters
from metarec_jax.recommender.history import CheckedHistory, Rated
from metarec_jax.recommender.recommender import Recommender, UserState, best
from metarec_jax.serving.ab_test import Arm, Exploring, Mode, arm_of, explored, interleaved
from metarec_jax.serving.store import NewItem, Shown, ShownList, Store

_HEADER = struct.Struct("<H")
MOST_RATERS = 200
"""Users that an item learns from while serving, the latest: a new training knows more of an item with more ratings."""
MOST_ADDED = 10_000
"""Items that can be added before a new training: each is read by the encoder again whenever the service starts."""
LEARNED_AT_ONCE = 16
"""Items that learn before requests are answered; more of them wait for the next ones, so that no request waits long."""


class Mistake(MetarecError):
    """A mistake in a request, and the field that it is in."""

    def __init__(self, message: str, *field: str | int):
        super().__init__(message)
        self.field = field


class Full(MetarecError):
    """No more can be kept until the model is trained anew."""


class Whose(NamedTuple):
    """Whose request it is.

    Attributes:
        user: a name that stays the same for one user.
        states: bytes of the user's state for each of some arms, by name; empty where there is none yet.
        history: (item, rating) pairs; on top of the states, where there are any.
        forget: items whose ratings are taken back.
        profile: the user's text.
    """

    user: str
    states: Mapping[str, bytes] = {}
    history: Sequence[tuple[str, float]] = ()
    forget: Sequence[str] = ()
    profile: str = ""


class List(NamedTuple):
    """A list that is asked for."""

    k: int
    exclude_seen: bool = True
    filters: Filters = ALL
    log: bool = True


class Job(NamedTuple):
    """Something to do for one user: with a `list` to rank, with `items` to score, else to adapt only; with the models
    that the user's lists come from, or with the one that `arm` names."""

    whose: Whose
    list: List | None = None
    items: Sequence[str] | None = None
    texts: Sequence[str] = ()
    arm: str | None = None


class Place(NamedTuple):
    """A place of a list, and how sure its score is (NaN where that is not known)."""

    shown: Shown
    deviation: float


class Done(NamedTuple):
    """What came of a job.

    Attributes:
        states: by the name of the arm.
        places: of the list.
        shown: to be kept, before the list is shown; None where it is not to be.
        scores: of items, then of texts: [n, 2], score and deviation.
    """

    states: dict[str, UserState]
    places: list[Place]
    shown: ShownList | None
    scores: np.ndarray


class Engine:
    """The models of a service.

    Args:
        arms: one model, or two that are compared; of the same items.
        store: what is kept; items that were added before are there at once.
        mode: how two models share the users.
        share: of the users that get the second model, with `mode` "ab".
        exploring: how lists are randomised.
        seed: of the draws; None draws anew each time.

    Raises:
        MetarecError: the models do not have the same items, or the mode does not fit them.
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
    ):
        if (mode == "single") != (len(arms) == 1):
            raise MetarecError(f"the mode is {mode!r}, but there are {len(arms)} models: compare two, or serve one")
        if any(arm.recommender.catalogue.items.ids != arms[0].recommender.catalogue.items.ids for arm in arms):
            raise MetarecError("the two runs do not have the same items, so their lists cannot be compared")
        if any(arm.recommender.catalogue.scale != arms[0].recommender.catalogue.scale for arm in arms):
            raise MetarecError("the two runs do not have the same rating scale, so their users cannot be shared")
        self.arms = {arm.name: arm.recommender for arm in arms}
        self.store, self.mode, self.share, self.exploring = store, mode, share, exploring
        self.trained_items = len(arms[0].recommender.catalogue.items)
        self._rng = np.random.default_rng(seed)
        for recommender in self.arms.values():
            recommender.titles.prepare()  # they are searched in other threads
        self._heard: dict[str, None] = {}  # added items that somebody has rated since they learned
        # All are put in before any learns: who rated one may have rated another. What the models were trained with
        # meanwhile (on the log of this store) is known, and not new.
        for item in [self._put(item) for item in store.items() if not self.first.titles.has_id(item.id)]:
            self.learn(item)

    @property
    def first(self) -> Recommender:
        """The first model, which knows the items as well as any."""
        return next(iter(self.arms.values()))

    def arms_of(self, user: str) -> tuple[str, ...]:
        """Names of the arms that a user's lists come from."""
        names = tuple(self.arms)
        return names if self.mode != "ab" else (names[arm_of(user, len(names), self.share)],)

    def _arms_for(self, job: Job) -> tuple[str, ...]:
        return self.arms_of(job.whose.user) if job.arm is None else (job.arm,)

    def warm(self, most: int) -> int:
        """Compiles what requests need, for up to `most` of them at once; returns how many programs there are."""
        programs = 0
        for recommender in self.arms.values():
            programs += recommender.warm(most)
        return programs

    # States

    def write_states(self, user: str, states: Mapping[str, UserState]) -> bytes:
        """A user's states as bytes."""
        parts = {name: self.arms[name].to_bytes(state) for name, state in states.items()}
        header = json.dumps([user, [[name, len(part)] for name, part in parts.items()]]).encode()
        return b"".join([_HEADER.pack(len(header)), header, *parts.values()])

    def read_states(self, data: bytes) -> tuple[str, dict[str, bytes]]:
        """Who, and bytes of the state for each arm: of bytes that `write_states` made, as their seal has shown."""
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
        """What comes of jobs: adapting and ranking are done for all of them at once; one's mistake is its own."""
        self.learn_heard()
        failed: dict[int, Exception] = {}
        states: list[dict[str, UserState]] = [{} for _ in jobs]
        judged: list[dict[str, np.ndarray]] = [{} for _ in jobs]
        for arm, recommender in self.arms.items():
            mine = [n for n, job in enumerate(jobs) if arm in self._arms_for(job) and n not in failed]
            for n, state in self._adapted(arm, recommender, {n: jobs[n].whose for n in mine}, failed).items():
                states[n][arm] = state
            asked = [n for n in mine if n not in failed and (jobs[n].list or jobs[n].items is not None)]
            try:
                for n, both in recommender.judgements_of_all([states[n][arm] for n in asked]):
                    judged[asked[n]][arm] = both
            except MetarecError as error:
                failed |= dict.fromkeys(asked, error)
        masks: dict[str, np.ndarray] = {}
        answers: list[Done | Exception] = []
        for n, job in enumerate(jobs):
            if n in failed:
                answers.append(failed[n])
                continue
            try:
                answers.append(self._finished(job, states[n], judged[n], masks))
            except MetarecError as error:
                answers.append(error)
        return answers

    def add_item(self, item: NewItem) -> str:
        """Puts an item into the catalogue and keeps it; returns its id.

        Raises:
            Mistake: the item cannot be taken in; the message says why.
            Full: too many were added already.
        """
        recommender = self.first
        if len(recommender.catalogue.items) - self.trained_items >= MOST_ADDED:
            raise Full(f"{MOST_ADDED:,} items were added already: train the model anew, on the log, to add more")
        if item.id and recommender.titles.has_id(item.id):
            raise Mistake(f"there is an item with the id {item.id!r} already: choose another one", "id")
        for name in item.details:
            if name not in recommender.catalogue.items.details:
                known = ", ".join(recommender.catalogue.items.details) or "none at all"
                raise Mistake(f"items have no detail {name!r}; they have {known}", "details", name)
        if not item.text.strip():
            raise Mistake("the text is empty, so the encoder has nothing to read: write some", "text")
        identity = self._put(item)
        row = recommender.titles.find_id(identity).row
        self.store.add_item(NewItem(identity, recommender.catalogue.items.titles[row], item.text, dict(item.details)))
        return identity

    def adds(self, item: str) -> bool:
        """Whether an item was added while serving, and so learns from ratings."""
        recommender = self.first
        return recommender.titles.has_id(item) and recommender.titles.find_id(item).row >= self.trained_items

    def history(self, user: str) -> list[tuple[str, float]]:
        """What a user has rated, of the items that there are: a store can outlive some that a run was trained with."""
        return [(item, rating) for item, rating in self.store.history(user) if self.first.titles.has_id(item)]

    def hear(self, items: Iterable[str]) -> bool:
        """Notes that somebody has rated some items or taken ratings back; whether any of them is to learn from that."""
        added = [item for item in items if self.adds(item)]
        self._heard |= dict.fromkeys(added)
        return bool(added)

    def learn_heard(self) -> None:
        """Lets items learn that were rated since the last call: once each, however many ratings there were."""
        for _ in range(min(len(self._heard), LEARNED_AT_ONCE)):
            self.learn(self._heard.popitem()[0])

    def learn(self, item: str) -> None:
        """Lets an item that was added learn from what users have said of it so far."""
        raters = self.store.raters(item, MOST_RATERS)
        histories = [[(f"id:{i}", r) for i, r in self.history(user) if i != item] for user, _ in raters]
        for recommender in self.arms.values():
            if not covers_all(recommender.config):
                recommender.learn_item(f"id:{item}", [(h, rating) for h, (_, rating) in zip(histories, raters)])

    def _put(self, item: NewItem) -> str:
        identity = item.id
        for recommender in self.arms.values():
            known = recommender.catalogue.items.details
            details = {name: value for name, value in item.details.items() if name in known}  # an older run had others
            identity = recommender.add_item(item.text, id=identity, title=item.title, details=details)
        return identity

    # How it is done

    def _adapted(
        self, arm: str, recommender: Recommender, asked: Mapping[int, Whose], failed: dict[int, Exception]
    ) -> dict[int, UserState]:
        """States by the number of the job; whose request has a mistake goes into `failed`."""
        found: dict[int, UserState] = {}
        anew: dict[int, tuple[CheckedHistory, np.ndarray | None, str]] = {}
        for n, whose in asked.items():
            try:
                state = self._read(arm, recommender, whose)
            except MetarecError as error:
                failed[n] = error
                continue
            if isinstance(state, UserState):
                found[n] = state
            else:
                anew[n] = state
        read = {n: profile for n, (_, embedding, profile) in anew.items() if embedding is None}
        texts = dict(zip(read, recommender.read_profiles(list(read.values()))))
        embeddings = [texts[n] if embedding is None else embedding for n, (_, embedding, _) in anew.items()]
        adapted = recommender.adapt_read([history for history, *_ in anew.values()], embeddings)
        return found | dict(zip(anew, adapted))

    def _read(
        self, arm: str, recommender: Recommender, whose: Whose
    ) -> UserState | tuple[CheckedHistory, np.ndarray | None, str]:
        """A state that is there already; or a history to adapt to, with the user's text or its embedding."""
        if whose.profile and recommender.config.learner.user_side != "profile":
            raise Mistake("this service's model reads no profiles: leave it out", "profile")
        rated = self._checked(recommender, whose.history)
        embedding = kept = None
        if data := whose.states.get(arm):
            try:
                history, embedding, kept = recommender.read_bytes(data)
            except MetarecError as error:
                raise Mistake(str(error), "state") from error
            if kept is not None and not rated and not whose.forget:
                return recommender.state_of(history, embedding, kept)
            before = history.seen, history.ratings
        elif whose.states:
            raise Mistake("the state is of a user whom another model served: adapt to the history again", "state")
        else:
            before = np.zeros(0, np.int32), np.zeros(0, np.float32)
        forget = [self._row(recommender, item, "forget", n) for n, item in enumerate(whose.forget)]
        for n, row in enumerate(forget):
            if row not in before[0]:
                raise Mistake(f"{whose.forget[n]!r} is not in the user's history", "forget", n)
        return recommender.history_with(before, rated, forget), embedding, whose.profile

    def _checked(self, recommender: Recommender, history: Sequence[tuple[str, float]]) -> list[Rated]:
        """The history with rows in place of ids."""
        scale = recommender.catalogue.scale
        rated: dict[int, Rated] = {}
        for n, (item, rating) in enumerate(history):
            row = self._row(recommender, item, "history", n, "item")
            if row in rated:
                raise Mistake(f"the item {item!r} is there twice: it has one rating", "history", n, "item")
            if not scale.low <= rating <= scale.high or (scale.kind == "click" and rating not in (0, 1)):
                allowed = "1 or 0" if scale.kind == "click" else f"between {scale.low:g} and {scale.high:g}"
                raise Mistake(f"the rating is {rating:g}; ratings are {allowed}", "history", n, "rating")
            rated[row] = Rated(row, rating)
        return list(rated.values())

    @staticmethod
    def _row(recommender: Recommender, item: str, *field: str | int) -> int:
        if not recommender.titles.has_id(item):
            raise Mistake(f"no item has the id {item!r}", *field)
        return recommender.titles.find_id(item).row

    def _finished(
        self, job: Job, states: dict[str, UserState], judged: dict[str, np.ndarray], masks: dict[str, np.ndarray]
    ) -> Done:
        places: list[Place] = []
        shown = None
        if job.list is not None:
            places, shown = self._listed(job.whose, job.list, states, judged, masks)
        scores = np.zeros((0, 2), np.float32)
        if job.items is not None:
            name, both = next(iter(judged.items()))
            recommender = self.arms[name]
            rows = [self._row(recommender, item, "items", n) for n, item in enumerate(job.items)]
            of_texts = []
            for n, text in enumerate(job.texts):
                if not text.strip():
                    raise Mistake("the text is empty", "texts", n)
                of_texts.append((recommender.score_text(states[name], text), np.nan))
            scores = np.concatenate([both[:, rows].T, np.array(of_texts, np.float32).reshape(-1, 2)])
        return Done(states, places, shown, scores)

    def _listed(
        self,
        whose: Whose,
        wanted: List,
        states: dict[str, UserState],
        judged: dict[str, np.ndarray],
        masks: dict[str, np.ndarray],
    ) -> tuple[list[Place], ShownList | None]:
        filters = _written(wanted.filters)
        pool = max(self.exploring.pool, wanted.k)
        orders: dict[str, np.ndarray] = {}
        for name, state in states.items():
            recommender = self.arms[name]
            if filters not in masks:
                masks[filters] = self._allowed(recommender, wanted.filters)
            candidates = recommender.candidates(state, masks[filters], wanted.exclude_seen)
            orders[name] = best(judged[name][0], pool, candidates)
        names = tuple(orders)
        ids = self.first.catalogue.items.ids
        if self.mode == "interleave" and len(names) == 2:
            listed = [[ids[row] for row in orders[name]] for name in names]
            scores = [{ids[row]: float(judged[name][0, row]) for row in orders[name]} for name in names]
            shown = interleaved(
                (listed[0], listed[1]), (scores[0], scores[1]), (names[0], names[1]), wanted.k, self._rng
            )
            explore, arm = 0.0, "both"
        else:
            arm, explore = names[0], self.exploring.share if wanted.log else 0.0
            exploring = self.exploring._replace(share=explore)
            shown = explored(orders[arm], judged[arm][0], wanted.k, exploring, arm, ids, self._rng)
        find = self.first.titles.find_id
        places = [Place(place, float(judged[place.arm][1, find(place.item).row])) for place in shown]
        if not wanted.log:
            return places, None
        state = states[names[0]]
        history = [(ids[row], float(rating)) for row, rating in zip(state.seen.tolist(), state.ratings)]
        model = "+".join(self.arms[name].digest for name in names)
        identity = secrets.token_urlsafe(16)
        asked = json.dumps({**json.loads(filters), "exclude_seen": wanted.exclude_seen})
        kept = ShownList(
            identity, whose.user, arm, model, self.mode, history, asked, len(orders[names[0]]), explore, shown
        )
        return places, kept

    def _allowed(self, recommender: Recommender, filters: Filters) -> np.ndarray:
        for n, item in enumerate(filters.exclude):
            self._row(recommender, str(item), "filters", "exclude", n)
        known = recommender.catalogue.items.details
        for field, names in (("details", filters.details), ("between", filters.between)):
            for name in names:
                if name not in known:
                    listed = ", ".join(known) or "none at all"
                    raise Mistake(f"items have no detail {name!r}; they have {listed}", "filters", field, name)
        for name, (low, high) in filters.between.items():
            if low > high:
                raise Mistake("the first may not be the larger", "filters", "between", name)
        return recommender.allowed(filters._replace(exclude=[f"id:{item}" for item in filters.exclude]))


def _written(filters: Filters) -> str:
    return json.dumps(filters._asdict(), sort_keys=True)
