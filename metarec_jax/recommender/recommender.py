"""From a run to recommendations: adapt to a user once, then rank the catalogue as often as needed.

What a user keeps after adapting is small (see `metarec_jax.meta.gram`), so thousands of states fit in memory. All
that is computed runs in a few compiled programs: one for each support length, for a single user and for a whole chunk.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config, covers_all
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.exported_programs import Traced
from metarec_jax.core.params import unusable_names
from metarec_jax.core.progress import QUIET
from metarec_jax.core.types import Items, Params, Rows
from metarec_jax.data.describe import describe
from metarec_jax.data.episodes import statistics_of
from metarec_jax.data.splits import Statistics
from metarec_jax.factors.item_factors import FACTORS
from metarec_jax.factors.update import Missing, after_ratings, missing, path_of, taste_of
from metarec_jax.meta.user import Trainable
from metarec_jax.recommender import attribution as explaining
from metarec_jax.recommender import programs
from metarec_jax.recommender.active_learning import Question, choose, uncertain
from metarec_jax.recommender.attribution import Explanation, Influence, Word
from metarec_jax.recommender.filters import ALL, DetailIndex, Filters
from metarec_jax.recommender.history import CheckedHistory, History, Rated, check_history, history_of
from metarec_jax.recommender.item_table import MOST_IN_GRAM, Shelf
from metarec_jax.recommender.programs import ITEMS_AT_ONCE, Asked, UserTask
from metarec_jax.recommender.state_codec import Packed, digest_of, pack, unpack
from metarec_jax.recommender.title_search import Match, TitleIndex
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import parameters, run_folder
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.model import abstract_trainable, make_model

if TYPE_CHECKING:
    from metarec_jax.encoder import Encoder

__all__ = [
    "Explanation",
    "Filters",
    "History",
    "Influence",
    "Question",
    "Rated",
    "Recommendation",
    "Recommender",
    "UserState",
    "Word",
]

_SIZES = (1, 4, 16, 64, 256)
"""Users of a call: a call for fewer is filled up, so that there are few programs to compile. Where there are more, the
results of one call are read while the next one runs."""
_FLOATS_PER_CALL = 1 << 25
"""Numbers that all users of a call may have between them at any time."""
_FLOATS_AT_ONCE = 1 << 20
"""Numbers in the widest layer of what is computed at the same time: what a processor's caches hold."""


Part = TypeVar("Part")
Found = TypeVar("Found")


class Recommendation(NamedTuple):
    """An item for a user.

    Attributes:
        id: as the data set writes it.
        title: what people call it.
        score: expected rating, or probability of a click.
        ratings: how many training users rated it.
    """

    id: str
    title: str
    score: float
    ratings: int


@dataclasses.dataclass(frozen=True, eq=False)
class UserState:
    """A user that the model has adapted to.

    Attributes:
        kept: what the inner loop led to, as `metarec_jax.meta.user.apply_user` takes it.
        embedding: float32 [hidden], of the user's text.
        support: the rows that were adapted on, padded.
        seen: int32 [n], rows of all items in the history, oldest first.
        ratings: float32 [n], their ratings.
        notes: what there is to say about how the history was read.
    """

    kept: Params
    embedding: np.ndarray
    support: Rows
    seen: np.ndarray
    ratings: np.ndarray
    notes: tuple[str, ...] = ()


class Recommender:
    """A trained model, ready to adapt to users and recommend to them.

    Args:
        config: of the run.
        catalogue: its items, with embeddings by the encoder that the run ended with.
        trainable: its parameters, as host arrays.
        encoder: that encoder, where it is at hand; else it is loaded when it is first needed.

    Attributes:
        report: told, once for each sentence, that texts were longer than the encoder reads and were cut; a Python
            warning unless it is set.

    Raises:
        MetarecError: a parameter is not finite.

    For example::

        recommender = Recommender.load("runs/demo")
        user = recommender.adapt({"Toy Story (1995)": 5, "Heat (1995)": 2})
        recommender.recommend(user, k=3)
    """

    def __init__(self, config: Config, catalogue: Catalogue, trainable: Trainable, encoder: Encoder | None = None):
        if names := unusable_names(trainable):
            raise MetarecError(f"{names[0]} of the run's parameters is infinite or NaN: train the run again")
        if encoder is not None:
            self.encoder = encoder  # in place of what the cached property would load
        self.config = config
        self.catalogue = catalogue
        self.titles = TitleIndex(catalogue.items, catalogue.statistics.count)
        # No gradient flows here, so the order is the plain one; and a loop that is not unrolled loads in a fifth.
        self._model = make_model(config, catalogue.scale)._replace(unroll=1, order="second")
        self._trainable = jax.device_put(trainable._replace(encoder=None))
        self._average_user = np.asarray(trainable.theta["input"]["user"]["shift"], np.float32)
        self._details = DetailIndex(catalogue.items)
        self._trained_items = len(catalogue.items)
        self.report: Callable[[str], None] = _warn
        self._reported: set[str] = set()
        self._told: dict[int, np.ndarray] = {}  # what was believed of added items before anybody rated them
        self._kept_of: dict[int, tuple[Any, list[tuple[int, ...]]]] = {}
        told = f"{to_json(config)}\n{catalogue.scale}"  # all that the model's functions follow from
        everything = np.arange(len(catalogue.items))
        self._shelf = Shelf(
            self._model,
            self._trainable.theta,
            np.asarray(catalogue.embeddings, np.float32),
            _statistic(catalogue, everything),
            len(self._average_user),
            told,
        )
        self._prepare = Traced(functools.partial(programs.prepare, self._model), told)
        self._adapt = Traced(functools.partial(programs.adapt, self._model), told)
        self._score = Traced(functools.partial(programs.score, self._model), told)
        self._deviation = Traced(functools.partial(programs.deviation, self._model), told)
        self._score_all = Traced(functools.partial(programs.score_all, self._model), told, ["at_once"])
        judge = functools.partial(programs.judge_all, self._model, catalogue.scale)
        self._judge_all = Traced(judge, told, ["at_once"])
        self._influences = Traced(functools.partial(programs.influences, self._model), told)
        self._slopes = Traced(functools.partial(programs.slopes, self._model), told)
        self._pull_back = jax.jit(explaining.pulled_back, static_argnums=(3, 4))
        # A call keeps the scores of its users, and of a large catalogue inner products with each support row.
        longest, items = config.episodes.buckets[-1], len(catalogue.items)
        each = items if items <= MOST_IN_GRAM else items * (1 + longest)
        self._sizes = [size for size in _SIZES if size == 1 or size * each <= _FLOATS_PER_CALL]
        widest = self._model.floats_per_row(longest) * min(items, ITEMS_AT_ONCE)
        self._users_at_once = 1 << (max(_FLOATS_AT_ONCE // widest, 1).bit_length() - 1)

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """The model with the least validation loss of the run in `folder`.

        Raises:
            MetarecError: no run, a run of another version, a damaged file, or parameters that do not fit the config.
        """
        run = run_folder.open_run(Path(folder))
        catalogue = catalogues.load(run)
        if run.config.encoder.train == "no" and run.parameters.exists():
            hidden = 0 if run.config.learner.user_side == "none" else catalogue.embeddings.shape[1]
            like = abstract_trainable(run.config, catalogue, hidden)
            return cls(run.config, catalogue, parameters.load(like, run.parameters))
        # What is imported here takes as long as all that an answer needs.
        from metarec_jax.train.embed import embed, trained_encoder
        from metarec_jax.train.state import load_trainable

        if run.config.encoder.train == "no":
            return cls(run.config, catalogue, load_trainable(run, catalogue))
        start = _load_encoder(run.config.encoder.path)
        trainable = load_trainable(run, catalogue, start.params)
        encoder = trained_encoder(start, trainable.encoder)
        embeddings = embed(encoder, run.config, catalogue.items.texts, QUIET, "")
        return cls(run.config, dataclasses.replace(catalogue, embeddings=embeddings), trainable, encoder)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """What reads texts that the run has no embedding of; loaded when first needed."""
        encoder = _load_encoder(self.config.encoder.path)
        width = self.catalogue.embeddings.shape[1]
        if encoder.config.hidden_size != width:
            raise MetarecError(
                f"encoder.path {self.config.encoder.path!r} leads to an encoder of width {encoder.config.hidden_size}, "
                f"but the run's items have embeddings of width {width}: "
                "use the encoder that the run was trained with"
            )
        return encoder

    # Adapting

    def adapt(self, history: History = (), profile: str = "") -> UserState:
        """Adapts to one user.

        Args:
            history: items and ratings, oldest first, or a mapping from one to the other. Empty: the prior.
            profile: the user's text, for a run with ``learner.user_side`` "profile". "" stands for the average user.

        Raises:
            MetarecError: an unknown or ambiguous item, one that is rated twice, a rating that is not on the scale, or
                a profile for a run that does not read profiles.
        """
        return self.adapt_many([history], [profile])[0]

    def adapt_many(self, histories: Sequence[History], profiles: Sequence[str] | None = None) -> list[UserState]:
        """Adapts to many users, a chunk of them in one compiled call; the states come in the order of `histories`.

        Args:
            histories: as for `adapt`.
            profiles: one a user, or None.

        Raises:
            MetarecError: as for `adapt`; the message names the user by place where there is more than one.
        """
        if profiles is not None and len(profiles) != len(histories):
            raise MetarecError(f"there are {len(profiles)} profiles for {len(histories)} histories: give one for each")
        most = self.config.episodes.max_support
        checked = []
        for place, history in enumerate(histories, start=1):
            try:
                checked.append(check_history(history, self.find, self.catalogue.scale, most))
            except MetarecError as error:
                where = f"history {place} of {len(histories)}: " if len(histories) > 1 else ""
                raise MetarecError(f"{where}{error}") from error
        return self._adapt_checked(checked, self._user_embeddings(checked, profiles or [""] * len(checked)))

    def update(self, state: UserState, ratings: History = (), forget: Sequence[str | int] = ()) -> UserState:
        """The state of the same user with some ratings added, changed or taken back.

        Exactly what `adapt` makes of the whole history. All but the inner steps is kept from before: no title is looked
        up again, and the user's profile is not read again. The inner steps are taken anew, since each depends on every
        row of the support (see docs/serving.md).

        Args:
            state: from `adapt`.
            ratings: as for `adapt`; an item that was rated before takes the new rating, as the latest of the history.
            forget: items whose ratings are taken back.

        Raises:
            MetarecError: as for `adapt`, or an item to forget that is not in the history.
        """
        return self.update_many([state], [ratings], [forget])[0]

    def update_many(
        self, states: Sequence[UserState], ratings: Sequence[History], forget: Sequence[Sequence[str | int]]
    ) -> list[UserState]:
        """`update` for many users, a chunk of them in one compiled call."""
        histories = [self.changed_history(*arguments) for arguments in zip(states, ratings, forget)]
        return self.adapt_read(histories, [state.embedding for state in states])

    def changed_history(self, state: UserState, ratings: History, forget: Sequence[str | int]) -> CheckedHistory:
        """The history of a state with some ratings added, changed or taken back: see `update`."""
        new = check_history(ratings, self.find, self.catalogue.scale, self.config.episodes.max_support)
        dropped = [self.find(item).row for item in forget]
        for item, row in zip(forget, dropped):
            if row not in state.seen:
                raise MetarecError(f"{item!r} is to be forgotten, but it is not in the user's history")
        rated = [Rated(int(row), float(rating)) for row, rating in zip(new.seen, new.ratings)]
        found = self.history_with((state.seen, state.ratings), rated, dropped)
        return found._replace(notes=(*new.notes, *found.notes))

    def history_with(
        self, before: tuple[np.ndarray, np.ndarray], rated: Sequence[Rated], forget: Sequence[int] = ()
    ) -> CheckedHistory:
        """A history with ratings added, changed and taken back, as rows of items that are known to be right.

        Args:
            before: rows of items and their ratings, oldest first.
            rated: what is new; each item is a row here.
            forget: rows whose ratings are taken back.
        """
        new = np.array([row for row, _ in rated], np.int32)
        kept = ~np.isin(before[0], [*forget, *new])
        seen = np.concatenate([before[0][kept], new]).astype(np.int32)
        ratings = np.concatenate([before[1][kept], [rating for _, rating in rated]]).astype(np.float32)
        return history_of(seen, ratings, self.config.episodes.max_support)

    def read_profiles(self, profiles: Sequence[str]) -> list[Float[np.ndarray, " hidden"]]:
        """Embeddings of users' texts; the average user's where a text is empty."""
        embeddings = np.tile(self._average_user, (len(profiles), 1))
        written = [u for u, text in enumerate(profiles) if text.strip()]
        if written:
            embeddings[written] = self._encode([profiles[u].strip() for u in written])
        return list(embeddings)

    def warm(self, most: int) -> int:
        """Compiles what adapting and ranking need for up to `most` users at once, and what explaining to one of them
        does; returns how many programs."""
        most = min(most, self._sizes[-1])
        sizes = sorted({size for size in self._sizes if size <= most} | {self._size(most)})
        explained = (1, explaining.PER_CALL)  # see `_parts`
        self._shelf.take(alone=False)  # so that single users, too, get what is known beforehand
        for length in self.config.episodes.buckets:
            held = min(length, self.config.episodes.max_support, len(self.catalogue.items))
            history = history_of(
                np.arange(held, dtype=np.int32), np.full(held, self.catalogue.scale.low, np.float32), held
            )
            for size in sizes:
                states = self._adapt_checked([history] * size, [self._average_user] * size)
                for _ in self.judgements_of_all(states):
                    pass
            (one,) = self._adapt_checked([history], [self._average_user])
            for items in explained:
                self.influences(one, np.zeros(items, np.int32))
        return (2 * len(sizes) + len(explained)) * len(self.config.episodes.buckets)

    def adapt_read(
        self, histories: Sequence[CheckedHistory], embeddings: Sequence[Float[np.ndarray, " hidden"]]
    ) -> list[UserState]:
        """Adapts to histories that were checked, of users whose texts were read: of descriptions, which follow from the
        history, the text is read anew."""
        if self.config.learner.user_side == "description":
            return self._adapt_checked(histories, self._user_embeddings(histories, [""] * len(histories)))
        return self._adapt_checked(histories, embeddings)

    def _adapt_checked(self, checked: Sequence[CheckedHistory], embeddings: Sequence[np.ndarray]) -> list[UserState]:
        def adapt(users: list[int]) -> tuple[Rows, Params]:
            supports = self._supports([checked[u] for u in users])
            task = self._task(np.stack([embeddings[u] for u in users]), supports)
            return supports, self._adapt(self._trainable, self._shelf.take(alone=len(task.embedding) == 1), task)

        states: dict[int, UserState] = {}
        for users, (supports, kept) in _ahead(self._chunks([self._bucket(len(h.item)) for h in checked]), adapt):
            each = supports, jax.device_get(kept)
            for row, u in enumerate(users):
                support, of_user = jax.tree.map(lambda leaf, row=row: leaf[row], each)
                history = checked[u]
                states[u] = UserState(of_user, embeddings[u], support, history.seen, history.ratings, history.notes)
        return [states[u] for u in range(len(checked))]

    def prior(self, profile: str = "") -> UserState:
        """The state of a user of whom nothing but, perhaps, a profile is known."""
        return self.adapt((), profile)

    # Keeping states

    @functools.cached_property
    def digest(self) -> str:
        """A name of this model: equal for equal choices, items and parameters."""
        items = self.catalogue.items.ids[: self._trained_items]
        return digest_of(self.config, items, jax.device_get(self._trainable))

    def to_bytes(self, state: UserState) -> bytes:
        """A user's state as some kilobytes that can be kept anywhere, and read again by `from_bytes`.

        It holds the history, the embedding of the user's text (not the text) and, where that is small, what the inner
        loop led to; where it is not, reading the state adapts anew.
        """
        ids = self.catalogue.items.ids
        history = [ids[row] for row in state.seen.tolist()]
        return pack(Packed(history, state.ratings, state.embedding, jax.tree.leaves(state.kept)), self.digest)

    def from_bytes(self, data: bytes) -> UserState:
        """The state that `to_bytes` made bytes of.

        Raises:
            MetarecError: these are no bytes of a state, or those of another model's, or an item is no longer there.
        """
        history, embedding, kept = self.read_bytes(data)
        if kept is None:
            return self.adapt_read([history], [embedding])[0]
        return self.state_of(history, embedding, kept)

    def read_bytes(self, data: bytes) -> tuple[CheckedHistory, Float[np.ndarray, " hidden"], Params | None]:
        """What `to_bytes` put in: the history, the embedding of the user's text, and what the inner loop led to; the
        last is None where the state does without.

        Raises:
            MetarecError: as for `from_bytes`.
        """
        packed = unpack(data, self.digest, len(self._average_user), self.catalogue.scale, self._kept_shapes)
        seen = np.array([self.titles.find_id(item).row for item in packed.item], np.int32)
        history = history_of(seen, packed.rating, self.config.episodes.max_support)
        kept = None if packed.kept is None else jax.tree.unflatten(self._kept(len(seen))[0], packed.kept)
        return history, packed.embedding, kept

    def state_of(self, history: CheckedHistory, embedding: Float[np.ndarray, " hidden"], kept: Params) -> UserState:
        """The state that these parts, from `read_bytes`, make up."""
        support = jax.tree.map(lambda leaf: leaf[0], self._supports([history]))
        return UserState(kept, embedding, support, history.seen, history.ratings, history.notes)

    def _kept_shapes(self, history: int) -> list[tuple[int, ...]]:
        return self._kept(history)[1]

    def _kept(self, history: int) -> tuple[Any, list[tuple[int, ...]]]:
        """Structure of what a user with a history of that length keeps, and the shapes of its leaves."""
        length = self._bucket(min(history, self.config.episodes.max_support))
        if length not in self._kept_of:
            support = self._supports([history_of(np.zeros(length, np.int32), np.zeros(length, np.float32), length)])
            task = self._task(self._average_user[None], support)
            kept = jax.eval_shape(self._adapt, self._trainable, self._shelf.take(alone=True), task)
            leaves, structure = jax.tree.flatten(kept)
            self._kept_of[length] = structure, [leaf.shape[1:] for leaf in leaves]
        return self._kept_of[length]

    # Recommending

    def recommend(
        self, state: UserState, k: int = 10, exclude_seen: bool = True, filters: Filters = ALL
    ) -> list[Recommendation]:
        """The `k` items with the highest scores, best first; fewer only where no more are left.

        Args:
            state: from `adapt`.
            k: how many, 1 to the size of the catalogue.
            exclude_seen: whether to leave out the items of the user's history.
            filters: which items may be in the list.

        Raises:
            MetarecError: an impossible `k`, or a filter that does not fit the catalogue.
        """
        return self.recommend_many([state], k, exclude_seen, filters)[0]

    def recommend_many(
        self, states: Sequence[UserState], k: int = 10, exclude_seen: bool = True, filters: Filters = ALL
    ) -> list[list[Recommendation]]:
        """`recommend` for many users, a chunk of them in one compiled call."""
        if not 1 <= k <= len(self.catalogue.items):
            raise MetarecError(f"k is {k}; it must lie between 1 and {len(self.catalogue.items)}, the number of items")
        allowed = None if filters == ALL else self.allowed(filters)
        found: dict[int, list[Recommendation]] = {}
        for user, scores in self.scores_of_all(states):
            rows = best(scores, k, self.candidates(states[user], allowed, exclude_seen))
            found[user] = [self._recommendation(row, float(scores[row])) for row in rows.tolist()]
        return [found[user] for user in range(len(states))]

    @property
    def detail_words(self) -> dict[str, list[str]]:
        """The words of each detail that has few, the most frequent first: what lists can be filtered by."""
        return self._details.words()

    def allowed(self, filters: Filters) -> Bool[np.ndarray, " items"]:
        """Which items pass `filters`.

        Raises:
            MetarecError: an unknown detail or item, or a range that is none.
        """
        passing = self._details.passing(filters)
        passing[[self.find(item).row for item in filters.exclude]] = False
        return passing

    def candidates(
        self, state: UserState, allowed: Bool[np.ndarray, " items"] | None = None, exclude_seen: bool = True
    ) -> Bool[np.ndarray, " items"]:
        """Which items can be in a list for this user: those `allowed` (None: all), without those in the history."""
        wanted = np.ones(len(self.catalogue.items), bool) if allowed is None else allowed.copy()
        wanted[state.seen] &= not exclude_seen
        return wanted

    def scores_of_all(self, states: Sequence[UserState]) -> Iterator[tuple[int, Float[np.ndarray, " items"]]]:
        """Each user's scores of every item of the catalogue, a chunk of users in one compiled call.

        Yields:
            Places in `states`, each once and in any order, and the scores.

        Raises:
            MetarecError: predictions that are not numbers.
        """
        return self._of_all(self._score_all, states)

    def judgements_of_all(self, states: Sequence[UserState]) -> Iterator[tuple[int, Float[np.ndarray, "two items"]]]:
        """The same, and below each score the standard deviation of the rating, as the model sees it; NaN where it sees
        none. With levels it is that of the predicted distribution, with `gives_uncertainty` as in `uncertainty`."""
        return self._of_all(self._judge_all, states)

    def _of_all(self, program: Callable[..., Array], states: Sequence[UserState]) -> Iterator[tuple[int, np.ndarray]]:
        """What `program` gives each user for every item, [..., items]."""
        count = len(self.catalogue.items)

        def score(users: list[int]) -> Array:
            task = self._task_of([states[u] for u in users])
            size = len(task.embedding)
            shelves = self._shelf.take(alone=size == 1)
            return program(self._trainable, shelves, task, at_once=min(self._users_at_once, size))

        for users, scored in _ahead(self._chunks([len(state.support.item) for state in states]), score):
            found = jax.device_get(scored)[: len(users), ..., :count]
            self._refuse_nan(found.reshape(len(users), -1, count)[:, 0])
            yield from zip(users, found)

    def similar(
        self, item: str | int, k: int = 10, by: Literal["auto", "text", "taste"] = "auto", filters: Filters = ALL
    ) -> list[Recommendation]:
        """The `k` items most like one, most alike first; scores are cosines.

        Args:
            item: title, "id:" and an id, or an id as an int.
            k: how many, 1 to the size of the catalogue.
            by: "text" compares what the encoder says of their texts, "taste" who likes them (factors of what is
                believed of items); "auto" is the latter where the run has learned it.
            filters: which items may be in the list.

        Raises:
            MetarecError: an unknown or ambiguous item, an impossible `k`, or tastes that the run has not learned.
        """
        row = self.find(item).row
        if not 1 <= k <= len(self.catalogue.items):
            raise MetarecError(f"k is {k}; it must lie between 1 and {len(self.catalogue.items)}, the number of items")
        catalogue = self.catalogue  # of one moment: items may be added meanwhile
        beliefs = catalogue.statistics.beliefs
        if by == "taste" and beliefs is None:
            raise MetarecError("this run has learned no tastes: compare by text, or train with --factors.rank 32")
        table = catalogue.embeddings if by == "text" or beliefs is None else beliefs[:, FACTORS:]
        length = np.sqrt(np.einsum("ij,ij->i", table, table))
        cosine = table @ table[row] / np.maximum(length * length[row], 1e-12)
        wanted = np.ones(len(table), bool) if filters == ALL else self.allowed(filters)
        wanted[row] = False
        return [self._recommendation(i, float(cosine[i])) for i in best(cosine, k, wanted).tolist()]

    def score(self, state: UserState, items: Sequence[str | int]) -> Float[np.ndarray, " items"]:
        """Expected ratings (or probabilities of a click) of the items named.

        Args:
            state: from `adapt`.
            items: titles, "id:" and an id, or ids as ints.

        Raises:
            MetarecError: an unknown or ambiguous item.
        """
        rows = np.array([self.find(item).row for item in items], np.int32)
        return self._of_items(self._score, state, self._shelf.embeddings[rows], self._shelf.statistic[rows])

    @property
    def gives_uncertainty(self) -> bool:
        """Whether the model knows how uncertain its scores are: one with the updater "ridge" and the head "rating"."""
        return self._model.updater.variance is not None and self._model.head.unit is not None

    def uncertainty(self, state: UserState, items: Sequence[str | int]) -> Float[np.ndarray, " items"]:
        """Standard deviations of the user's ratings of the items named, around `score`, as the model sees them.

        What the user's support leaves open about the output layer, and the noise of ratings: the root of the predictive
        variance of Bayesian linear regression (see `metarec_jax.meta.updaters.ridge`).

        Args:
            state: from `adapt`.
            items: titles, "id:" and an id, or ids as ints.

        Raises:
            MetarecError: an unknown or ambiguous item, or a model that knows of no variance.
        """
        if not self.gives_uncertainty:
            raise MetarecError(
                f"updater.kind {self.config.updater.kind!r} with learner.head {self.config.learner.head!r} knows no "
                "uncertainty: train with --updater.kind ridge --updater.adapted 'output/.*' --learner.head rating"
            )
        rows = np.array([self.find(item).row for item in items], np.int32)
        return self._of_items(self._deviation, state, self._shelf.embeddings[rows], self._shelf.statistic[rows])

    # Explaining

    def explain(self, state: UserState, items: Sequence[str | int], *, words: bool = False) -> list[Explanation]:
        """Why each of the items has its score: what each rating adds to it, and a sentence where that says something.

        Args:
            state: from `adapt`.
            items: titles, "id:" and an id, or ids as ints.
            words: whether also the words of the items' texts are weighed, which loads the encoder.

        Raises:
            MetarecError: an unknown or ambiguous item.
        """
        return explaining.explain(self, state, items, words=words)

    def influences(
        self, state: UserState, rows: np.ndarray
    ) -> tuple[Float[np.ndarray, " items"], Float[np.ndarray, "items support"]]:
        """Scores of some rows of the catalogue, and what each rating of the (padded) support adds to each of them."""
        shelves, task = self._shelf.take(alone=True), self._task_of([state])._replace(kept=())
        found = [(np.zeros(0, np.float32), np.zeros((0, len(state.support.item)), np.float32))]
        for part, size in _parts(rows):
            padded = np.pad(part, (0, size - len(part))).astype(np.int32)
            both = jax.device_get(self._influences(self._trainable, shelves, task, padded))
            found.append(jax.tree.map(lambda leaf, part=part: leaf[0, : len(part)], both))
        scores, influences = (np.concatenate(parts) for parts in zip(*found))
        self._refuse_nan(scores)
        self._refuse_nan(influences)
        return scores, influences

    def word_influences(self, state: UserState, rows: np.ndarray) -> list[tuple[Word, ...]]:
        """What the words of the texts of some rows of the catalogue add to their scores, in the order of each text."""
        found: list[tuple[Word, ...]] = []
        for part, size in _parts(rows):
            embeddings, statistic = self._shelf.embeddings[part], self._shelf.statistic[part]
            slopes = self._of_items(self._slopes, state, embeddings, statistic, size=size, prepare=False)
            texts = [self.catalogue.items.texts[row] for row in part]
            found += explaining.word_influences(self.encoder, self.config.encoder, texts, slopes, self._pull_back)
        return found

    def score_text(self, state: UserState, text: str) -> float:
        """Expected rating (or probability of a click) of an item that is not in the catalogue, from its text alone.

        Raises:
            MetarecError: the text is empty.
        """
        embedding, known = self._read_item(text, {})
        return float(self._of_items(self._score, state, embedding, known)[0])

    # Items

    def add_item(
        self,
        text: str,
        *,
        id: str = "",
        title: str = "",
        details: Mapping[str, str] | None = None,
        vector: Sequence[float] | np.ndarray | None = None,
    ) -> str:
        """Puts an item that nobody has rated into the catalogue, from its text: it can be recommended at once.

        The run folder stays as it is: the item is there as long as this object is.

        Args:
            text: what the encoder reads.
            id: of the item; "" makes one up.
            title: what people call it; "" is the beginning of the text.
            details: what else is known of it, by the catalogue's names of details ("genres", "year").
            vector: of an image of it, say, where the run was trained with vectors (`--data.vectors`).

        Returns:
            The id.

        Raises:
            MetarecError: an empty text, an id that is taken, a detail that the catalogue does not have, or a vector
                that does not fit the others.
        """
        old = self.catalogue.items
        details = dict(details or {})
        for name in details:
            if name not in old.details:
                known = ", ".join(old.details) or "none at all"
                raise MetarecError(f"items have no detail {name!r}; they have {known}")
        if id and self.titles.has_id(id):
            raise MetarecError(f"there is an item with the id {id!r} already: choose another one")
        number = len(old) + 1
        while not id or self.titles.has_id(id):
            id, number = f"new-{number}", number + 1
        row = _checked_vector(vector, old.vectors)
        embedding, known = self._read_item(text, details, row)
        items = Items(
            ids=(*old.ids, id),
            titles=(*old.titles, title.strip() or _beginning(text)),
            texts=(*old.texts, text),
            details={name: (*values, details.get(name, "")) for name, values in old.details.items()},
            vectors=None if old.vectors is None or row is None else np.concatenate([old.vectors, row]),
        )
        statistics = Statistics(*(np.append(a, np.float32(0)) for a in self.catalogue.statistics[:2]))
        if self.catalogue.statistics.beliefs is not None:
            beliefs = np.concatenate([self.catalogue.statistics.beliefs, known[:, 2:]]).astype(np.float32)
            statistics = statistics._replace(beliefs=beliefs)
        self._told[len(old)] = known[0]
        self._shelf.add(embedding[0], known[0])
        self.catalogue = dataclasses.replace(
            self.catalogue, items=items, statistics=statistics, embeddings=self._shelf.embeddings
        )
        self._details.add(items)
        self.titles.add(items, statistics.count)  # the last: who finds the item finds all of it
        return id

    def learn_item(self, item: str | int, raters: Sequence[tuple[History, float]]) -> None:
        """Lets an item that was added learn from its first ratings, without training: its mean, and who likes it.

        What is believed of it starts from its text and is moved by the ratings in closed form, given the tastes of
        those who gave them (see `metarec_jax.factors.update`); in a run without beliefs its ratings are counted.
        Users who were adapted to before keep what they have until they are adapted again.

        Args:
            item: one that `add_item` put in; named as for `score`.
            raters: of everybody who has rated it so far, the other ratings and the rating of this item. What earlier
                calls were given is forgotten. Tastes are told from items that the model was trained with, so that it
                makes no difference which of several new items learns first.

        Raises:
            MetarecError: an item that the model was trained with, a history that is none, a rating that is not on the
                scale, or a run under differential privacy, whose items know of no ratings.
        """
        match = self.find(item)
        row, scale, beliefs = match.row, self.catalogue.scale, self.catalogue.beliefs
        if row < self._trained_items:
            raise MetarecError(
                f"{item!r} was there when the model was trained: only items that were added learn while serving; "
                "train on the new ratings for the others"
            )
        if covers_all(self.config):
            raise MetarecError("this run was trained under differential privacy and counts no ratings of any item")
        given = [(item, rating) for _, rating in raters]
        ratings = np.array([check_history([pair], self.find, scale, 1).ratings[0] for pair in given], np.float32)
        histories = [check_history(history, self.find, scale, 1) for history, _ in raters]
        statistics = self.catalogue.statistics
        total, count = statistics.total.copy(), statistics.count.copy()
        total[row], count[row] = ratings.sum(), len(ratings)
        changed = Statistics(total, count)
        if beliefs is not None and statistics.beliefs is not None:
            table, start = statistics.beliefs.copy(), self._told[row][2:]
            if histories:
                others = [(h.seen < self._trained_items, h) for h in histories]
                path = path_of(self._trainable.theta, beliefs)
                tastes = [taste_of(table[h.seen[old]], h.ratings[old], path) for old, h in others]
                means, doubts = (np.stack(part) for part in zip(*tastes))
                noise = float(np.exp(path["log_noise"]))
                start = after_ratings(start, means, doubts, ratings, noise, self._apart)
            table[row] = start
            changed = changed._replace(beliefs=table)
        self.catalogue = dataclasses.replace(self.catalogue, statistics=changed)
        self._shelf.change(row, _statistic(self.catalogue, np.array([row]))[0])

    @functools.cached_property
    def _apart(self) -> Missing:
        """How far what texts predict is from what ratings showed, of the items that the model was trained with."""
        catalogue, first = self.catalogue, slice(self._trained_items)
        assert catalogue.beliefs is not None
        items, read = catalogue.items, catalogue.embeddings[first]
        if self.config.encoder.train != "no":  # beliefs were learned from what the encoder said before
            read = self._encode(list(items.texts[first]), self._encoder_before)
        details = {name: values[first] for name, values in items.details.items()}
        vectors = None if items.vectors is None else items.vectors[first]
        return missing(catalogue.beliefs, read, details, catalogue.statistics.count[first], vectors)

    def _read_item(
        self, text: str, details: Mapping[str, str], vector: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embedding [1, hidden] and statistic [1, columns] of an item that nobody has rated.

        Raises:
            MetarecError: the text is empty.
        """
        if not text.strip():
            raise MetarecError("the text of the item is empty, so the encoder has nothing to read: write some")
        embedding = self._encode([text])
        known = np.zeros((1, 2), np.float32)
        if self.catalogue.beliefs is not None:
            # Beliefs were learned from what the encoder said before it was trained with the rest.
            read = self._encode([text], self._encoder_before) if self.config.encoder.train != "no" else embedding
            told: dict[str, tuple[str, ...]] = {name: (value,) for name, value in details.items()}
            known = np.concatenate([known, self.catalogue.beliefs.of_new_items(read, told, vector)], axis=1)
        return embedding, known.astype(np.float32)

    def interview(
        self, state: UserState, k: int = 5, skip: Sequence[str | int] = (), among: Sequence[str | int] = ()
    ) -> list[Question]:
        """The items to ask a user about next, most informative first (see `metarec_jax.recommender.active_learning`).

        Args:
            state: from `adapt` or `prior`: what is known of the user so far. What it has rated is not asked for again.
            k: how many, at least 1; fewer come only where no more items are left.
            skip: items that the user did not know, as for `score`.
            among: items that the user is known to know (has bought, or seen), as for `score`. Then no others are asked
                about, and the questions are those that tell most about these, since they are what such a user rates.

        Raises:
            MetarecError: an impossible `k`, an unknown item, or a run without beliefs about items.
        """
        if self.catalogue.beliefs is None:
            raise MetarecError(
                "this run holds no beliefs about items, so it cannot tell what an answer would tell: "
                "train one with --factors.rank 32"
            )
        if k < 1:
            raise MetarecError(f"k is {k}; it must be at least 1")
        items, count = self.catalogue.items, self.catalogue.statistics.count.astype(np.float64)
        known = count / max(count.max(), 1)
        allowed, chance, weight = np.ones(len(items), bool), known, count / max(count.sum(), 1)
        if among:
            there = np.array([self.find(item).row for item in among])
            allowed = np.isin(np.arange(len(items)), there)
            chance, weight = np.ones(len(items)), allowed / allowed.sum()
        allowed[state.seen] = False
        allowed[[self.find(item).row for item in skip]] = False
        about = uncertain(jax.device_get(self._trainable.theta["prior"]), self._shelf.statistic, state.support)
        rows, gains = choose(about, chance, weight, allowed, k)
        return [Question(items.ids[r], items.titles[r], known[r], g, int(r)) for r, g in zip(rows, gains)]

    def find(self, item: str | int) -> Match:
        """The row of an item by title, by "id:" and id, or by id as an int.

        Raises:
            MetarecError: there is none, or the title could be several.
        """
        return self.titles.find(item) if isinstance(item, str) else self.titles.find_id(str(item))

    def title(self, item: str | int) -> str:
        """The title of an item, which is named as for `score`."""
        return self.catalogue.items.titles[self.find(item).row]

    # How it is done

    def _user_embeddings(self, histories: Sequence[CheckedHistory], profiles: Sequence[str]) -> list[np.ndarray]:
        """The embedding of each user's text, float32 [users, hidden]; the average user's, where there is no text."""
        side = self.config.learner.user_side
        if side != "profile" and any(profiles):
            raise MetarecError(
                f"a profile was given, but this run reads none: its learner.user_side is {side!r}; "
                "train one with --learner.user-side profile"
            )
        if side == "description":
            middle = (self.catalogue.scale.low + self.catalogue.scale.high) / 2
            titles = self.catalogue.items.titles
            texts = [describe(titles, h.item, h.rating, middle=middle) if len(h.item) else "" for h in histories]
        else:
            texts = list(profiles)
        return self.read_profiles(texts)

    @functools.cached_property
    def _encoder_before(self) -> Encoder:
        return _load_encoder(self.config.encoder.path)

    def _encode(self, texts: list[str], encoder: Encoder | None = None) -> np.ndarray:
        from metarec_jax.encoder import encode_table

        chosen = self.config.encoder
        return encode_table(
            encoder or self.encoder,
            texts,
            pooling=chosen.pooling,
            max_length=chosen.max_length,
            normalise=chosen.normalise,
            report=self._say,
            # The precision is the model's. The attention is not: what trained with a fused kernel may serve without.
            dtype=chosen.dtype,
        )

    def _say(self, sentence: str) -> None:
        """Tells what there is to say of texts, and the same only once."""
        if sentence not in self._reported:
            self._reported.add(sentence)
            self.report(sentence)

    def _bucket(self, length: int) -> int:
        return next(b for b in self.config.episodes.buckets if b >= length)

    def _supports(self, histories: Sequence[CheckedHistory]) -> Rows:
        """The rows that the inner loop sees of each user, padded to the least bucket that holds them all."""
        count = np.array([len(history.item) for history in histories])
        real = np.arange(self._bucket(int(count.max()))) < count[:, None]
        item, rating = np.zeros(real.shape, np.int32), np.zeros(real.shape, np.float32)
        item[real] = np.concatenate([history.item for history in histories])
        rating[real] = np.concatenate([history.rating for history in histories])
        statistic = statistics_of(self.catalogue.statistics, item, rating, real, own=False)
        return Rows(item=item, rating=rating, mask=real.astype(np.float32), statistic=statistic)

    def _chunks(self, lengths: list[int]) -> Iterator[list[int]]:
        """Users that go into one call: of one support length, and no more than memory allows."""
        of_length: dict[int, list[int]] = defaultdict(list)
        for user, length in enumerate(lengths):
            of_length[length].append(user)
        for users in of_length.values():
            for start in range(0, len(users), self._sizes[-1]):
                yield users[start : start + self._sizes[-1]]

    def _task(self, embeddings: np.ndarray, supports: Rows, kept: Params = ()) -> UserTask:
        """Arguments of a program: users, each a row of every leaf, and the first of them once more until it is full."""
        users = len(embeddings)
        order = [u if u < users else 0 for u in range(self._size(users))]
        return jax.tree.map(lambda leaf: leaf[order], UserTask(embeddings, supports, kept))

    def _size(self, users: int) -> int:
        """Users that a program for at least so many is compiled for."""
        return next(size for size in self._sizes if size >= users)

    def _task_of(self, states: Sequence[UserState]) -> UserTask:
        each = [(state.embedding, state.support, state.kept) for state in states]
        return self._task(*jax.tree.map(lambda *leaves: np.stack(leaves), *each))

    def _of_items(
        self,
        program: Callable[..., Any],
        state: UserState,
        embeddings: np.ndarray,
        statistic: np.ndarray,
        *,
        size: int = 0,
        prepare: bool = True,
    ) -> Any:
        """What `program` (`_score`, say) gives for any items and one user; their number is rounded up (to `size`, where
        it is given), so that few compilations do for all."""
        count = len(embeddings)
        missing = (size or 1 << max(count - 1, 0).bit_length()) - count
        rows, statistic = (
            np.pad(array, ((0, missing), (0, 0))).astype(np.float32) for array in (embeddings, statistic)
        )
        rows = self._prepare(self._trainable.theta, rows) if prepare else rows
        asked, shelves = Asked(rows, statistic), self._shelf.take(alone=True)
        found = program(self._trainable, shelves, self._task_of([state]), asked)
        found = jax.tree.map(lambda leaf: leaf[0, :count], jax.device_get(found))
        for leaf in jax.tree.leaves(found):
            self._refuse_nan(leaf)
        return found

    def _recommendation(self, row: int, score: float) -> Recommendation:
        items = self.catalogue.items
        return Recommendation(items.ids[row], items.titles[row], score, int(self.catalogue.statistics.count[row]))

    def _refuse_nan(self, scores: np.ndarray) -> None:
        if np.isnan(scores).any():
            raise MetarecError(
                "the model's predictions for this user are not numbers: its inner steps diverge; "
                "train it again with a lower --updater.rate"
            )


def _ahead(parts: Iterable[Part], call: Callable[[Part], Found]) -> Iterator[tuple[Part, Found]]:
    """What is called for each part, the next one's call always under way: the device works while Python reads."""
    under_way = None
    for part in parts:
        called = part, call(part)
        if under_way is not None:
            yield under_way
        under_way = called
    if under_way is not None:
        yield under_way


def _parts(rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Rows that are explained in one call, and how many their number is rounded up to."""
    for start in range(0, len(rows), explaining.PER_CALL):
        part = rows[start : start + explaining.PER_CALL]
        yield part, 1 if len(part) == 1 else explaining.PER_CALL


def _checked_vector(vector: Sequence[float] | np.ndarray | None, others: np.ndarray | None) -> np.ndarray | None:
    """The vector of a new item as a row [1, width], of NaN where it has none; None where no item has one."""
    if others is None:
        if vector is not None:
            raise MetarecError("a vector was given, but this run was trained without any: leave it out")
        return None
    if vector is None:
        return np.full((1, others.shape[1]), np.nan, np.float32)
    row = np.asarray(vector, np.float32)
    if row.shape != (others.shape[1],) or not np.isfinite(row).all():
        raise MetarecError(
            f"the item's vector has shape {row.shape}, or numbers that are not finite; "
            f"it must be {others.shape[1]} finite numbers, as those of other items are"
        )
    return row[None]


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=6)  # where a text was given


def _load_encoder(path: str) -> Encoder:
    from metarec_jax import encoder  # which takes as long to import as the rest, and is seldom needed

    return encoder.load(path)


def _statistic(catalogue: Catalogue, rows: np.ndarray) -> Float[np.ndarray, "items columns"]:
    return statistics_of(catalogue.statistics, rows, np.zeros(len(rows)), np.ones(len(rows), bool), own=False)


def best(
    scores: Float[np.ndarray, " items"], k: int, candidates: Bool[np.ndarray, " items"]
) -> Int[np.ndarray, " found"]:
    """Rows of the `k` highest scores among the candidates, highest first; of equal ones the first."""
    rows = np.flatnonzero(candidates)
    of_rows = scores[rows]
    if k < len(rows):
        least = np.partition(of_rows, len(rows) - k)[len(rows) - k]
        rows = rows[of_rows >= least]
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def _beginning(text: str, most: int = 80) -> str:
    """The first sentence or line of a text, cut where it is long."""
    first = re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0].strip().rstrip(".")
    return first if len(first) <= most else first[: most - 1].rstrip() + "…"
