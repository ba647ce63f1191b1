"""From a run to recommendations: adapt to a user once, then rank the catalogue as often as needed.

What a user keeps after adapting is small (see `metarec_jax.meta.factored`), so thousands of states fit in memory. All
that is computed runs in a few compiled programs: one for each support length, for a single user and for a whole chunk.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metarec_jax import catalogue as catalogues
from metarec_jax import parameters, runs
from metarec_jax.catalogue import Catalogue
from metarec_jax.config import Config
from metarec_jax.data.describe import describe
from metarec_jax.data.episodes import statistics_of
from metarec_jax.errors import MetarecError
from metarec_jax.learner.fixed import Fixed, multiply
from metarec_jax.learner.inputs import Features
from metarec_jax.learner.kinds import floats_per_row
from metarec_jax.meta.batch import kernels_met, over_users, products_of
from metarec_jax.meta.factored import gram_of
from metarec_jax.meta.finite import unusable_names
from metarec_jax.meta.partition import path_names
from metarec_jax.meta.user import (
    Model,
    Task,
    Trainable,
    adapt_user,
    apply_user,
    context_of,
    summarised,
    variance_user,
)
from metarec_jax.models import abstract_trainable, make_model
from metarec_jax.progress import QUIET
from metarec_jax.serving import explain as explaining
from metarec_jax.serving.explain import Explanation, Influence, Word
from metarec_jax.serving.history import CheckedHistory, History, Rated, check_history
from metarec_jax.serving.interview import Question, choose, uncertain
from metarec_jax.serving.titles import Match, TitleIndex
from metarec_jax.types import Episodes, Params, Prepared, Rows, Tables

if TYPE_CHECKING:
    from metarec_jax.encoder import Encoder

__all__ = [
    "Explanation",
    "History",
    "Influence",
    "Question",
    "Rated",
    "Recommendation",
    "Recommender",
    "UserState",
    "Word",
]

_SIZES = (1, 16, 128, 1024)
"""Users of a call: a call for fewer is filled up, so that there are few programs to compile."""
_FLOATS_PER_CALL = 1 << 25
"""Numbers that all users of a call may have between them at any time."""
_FLOATS_AT_ONCE = 1 << 20
"""Numbers in the widest layer of what is computed at the same time: what a processor's caches hold."""
_ADAPTED_AT_ONCE = 32
"""Users whose inner loops run at the same time."""
_ITEMS_AT_ONCE = 4096
"""Items of a large catalogue that are scored at the same time."""
_MOST_IN_GRAM = 4096
"""Items of the largest catalogue whose inner products with each other are kept: 64 MB."""


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
        seen: int32 [n], rows of all items in the history.
        notes: what there is to say about how the history was read.
    """

    kept: Params
    embedding: np.ndarray
    support: Rows
    seen: np.ndarray
    notes: tuple[str, ...] = ()


class _Known(NamedTuple):
    """What ranking needs of all items whoever asks, computed once.

    Attributes:
        products: path of a kernel of theta -> ``items @ kernel``.
        gram: [items, items], their inner products with each other; None where the catalogue is too large.
    """

    products: Mapping[str, Array]
    gram: Array | None = None


class _Task(NamedTuple):
    """What a compiled program needs of a user: a row of the user table, the support, and what the user keeps."""

    user: Any
    support: Rows
    kept: Params = ()


class Recommender:
    """A trained model, ready to adapt to users and recommend to them.

    Args:
        config: of the run.
        catalogue: its items, with embeddings by the encoder that the run ended with.
        trainable: its parameters, as host arrays.
        encoder: that encoder, where it is at hand; else it is loaded when it is first needed.

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
        self._prepare = functools.partial(jax.jit(self._model.prepare), self._trainable.theta)
        self._average_user = np.asarray(trainable.theta["input"]["user"]["shift"], np.float32)
        self._items = self._prepared(items=np.asarray(catalogue.embeddings, np.float32))
        self._hidden = catalogue.embeddings.shape[1]
        self._statistic = jax.device_put(_statistic(catalogue, np.arange(len(catalogue.items))))
        self._adapt = jax.jit(functools.partial(_adapt, self._model))
        self._score = jax.jit(functools.partial(_score, self._model))
        self._deviation = jax.jit(functools.partial(_deviation, self._model))
        self._rank = jax.jit(functools.partial(_rank, self._model), static_argnames=("k", "at_once"))
        # A call keeps the scores of its users, and of a large catalogue inner products with each support row.
        longest, items = config.episodes.buckets[-1], len(catalogue.items)
        each = items if items <= _MOST_IN_GRAM else items * (1 + longest)
        self._sizes = [size for size in _SIZES if size == 1 or size * each <= _FLOATS_PER_CALL]
        widest = floats_per_row(config.learner, self._model.head.outputs, longest) * min(items, _ITEMS_AT_ONCE)
        self._users_at_once = 1 << (max(_FLOATS_AT_ONCE // widest, 1).bit_length() - 1)
        self._influences = jax.jit(functools.partial(explaining.score_and_influences, self._model))
        self._slopes = jax.jit(functools.partial(explaining.score_slopes, self._model))
        self._pull_back = jax.jit(explaining.pulled_back, static_argnums=(3, 4))

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """The model with the least validation loss of the run in `folder`.

        Raises:
            MetarecError: no run, a run of another version, a damaged file, or parameters that do not fit the config.
        """
        run = runs.open_run(Path(folder))
        catalogue = catalogues.load(run)
        if run.config.encoder.train == "no" and run.parameters.exists():
            hidden = 0 if run.config.learner.user_side == "none" else catalogue.embeddings.shape[1]
            like = abstract_trainable(run.config, catalogue, hidden)
            return cls(run.config, catalogue, parameters.load(like, run.parameters))
        # What is imported here takes as long as all that an answer needs.
        from metarec_jax.assembly import embed, trained_encoder
        from metarec_jax.train import load_trainable

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
        if encoder.config.hidden_size != self._items.shape[1]:
            raise MetarecError(
                f"encoder.path {self.config.encoder.path!r} leads to an encoder of width {encoder.config.hidden_size}, "
                f"but the run's items have embeddings of width {self._items.shape[1]}: "
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
        embeddings = self._user_embeddings(checked, profiles or [""] * len(checked))
        supports = [self._support(history) for history in checked]
        states: dict[int, UserState] = {}
        for users in self._chunks([len(support.item) for support in supports]):
            tables, task = self._tables_and_task([embeddings[u] for u in users], [supports[u] for u in users])
            kept = jax.device_get(self._adapt(self._trainable, tables, task))
            for row, u in enumerate(users):
                of_user = jax.tree.map(lambda leaf, row=row: leaf[row], kept)
                states[u] = UserState(of_user, embeddings[u], supports[u], checked[u].seen, checked[u].notes)
        return [states[u] for u in range(len(checked))]

    def prior(self, profile: str = "") -> UserState:
        """The state of a user of whom nothing but, perhaps, a profile is known."""
        return self.adapt((), profile)

    # Recommending

    def recommend(self, state: UserState, k: int = 10, exclude_seen: bool = True) -> list[Recommendation]:
        """The `k` items with the highest scores, best first; fewer only where no more are left.

        Args:
            state: from `adapt`.
            k: how many, 1 to the size of the catalogue.
            exclude_seen: whether to leave out the items of the user's history.

        Raises:
            MetarecError: an impossible `k`.
        """
        return self.recommend_many([state], k, exclude_seen)[0]

    def recommend_many(
        self, states: Sequence[UserState], k: int = 10, exclude_seen: bool = True
    ) -> list[list[Recommendation]]:
        """`recommend` for many users, a chunk of them in one compiled call."""
        items = self.catalogue.items
        if not 1 <= k <= len(items):
            raise MetarecError(f"k is {k}; it must lie between 1 and {len(items)}, the number of items")
        found: dict[int, list[Recommendation]] = {}
        for users in self._chunks([len(state.support.item) for state in states]):
            chosen = [states[u] for u in users]
            tables, task = self._task_of(chosen)
            seen = np.full((len(task.user), self._most_seen(chosen)), len(items), np.int32)
            for row, state in enumerate(chosen if exclude_seen else ()):
                seen[row, : len(state.seen)] = state.seen
            # The list's length is part of a program's shape, so lengths are rounded up to a few.
            length = min(len(items), max(16, 1 << (k - 1).bit_length()))
            # For one user and few items, what can be known beforehand is no more than what is asked.
            alone = len(task.user) == 1 and len(items) <= _MOST_IN_GRAM
            scores, rows = jax.device_get(
                self._rank(
                    self._trainable,
                    tables,
                    _Known({}) if alone else self._known,
                    task,
                    self._statistic,
                    jax.device_put(seen),
                    k=length,
                    at_once=min(self._users_at_once, len(task.user)),
                )
            )
            self._refuse_nan(scores[: len(users)])
            scores, rows = scores.tolist(), rows.tolist()
            for row, u in enumerate(users):
                pairs = [(s, i) for s, i in zip(scores[row][:k], rows[row]) if s > -math.inf]
                found[u] = [self._recommendation(item, score) for score, item in pairs]
        return [found[u] for u in range(len(states))]

    def score(self, state: UserState, items: Sequence[str | int]) -> Float[np.ndarray, " items"]:
        """Expected ratings (or probabilities of a click) of the items named.

        Args:
            state: from `adapt`.
            items: titles, "id:" and an id, or ids as ints.

        Raises:
            MetarecError: an unknown or ambiguous item.
        """
        rows = np.array([self.find(item).row for item in items], np.int32)
        return self._of_items(self._score, state, self.catalogue.embeddings[rows], _statistic(self.catalogue, rows))

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
        return self._of_items(self._deviation, state, self.catalogue.embeddings[rows], _statistic(self.catalogue, rows))

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
        tables, task = self._tables_and_task([state.embedding], [state.support])
        found = [(np.zeros(0, np.float32), np.zeros((0, len(state.support.item)), np.float32))]
        for part, size in _parts(rows):
            padded = jax.device_put(np.pad(part, (0, size - len(part))).astype(np.int32))
            both = jax.device_get(self._influences(self._trainable, tables, task, padded, self._statistic))
            found.append(jax.tree.map(lambda leaf, part=part: leaf[0, : len(part)], both))
        scores, influences = (np.concatenate(parts) for parts in zip(*found))
        self._refuse_nan(scores)
        self._refuse_nan(influences)
        return scores, influences

    def word_influences(self, state: UserState, rows: np.ndarray) -> list[tuple[Word, ...]]:
        """What the words of the texts of some rows of the catalogue add to their scores, in the order of each text."""
        found: list[tuple[Word, ...]] = []
        for part, size in _parts(rows):
            embeddings, statistic = self.catalogue.embeddings[part], _statistic(self.catalogue, part)
            slopes = self._of_items(self._slopes, state, embeddings, statistic, size=size, prepare=False)
            texts = [self.catalogue.items.texts[row] for row in part]
            found += explaining.word_influences(self.encoder, self.config.encoder, texts, slopes, self._pull_back)
        return found

    def score_text(self, state: UserState, text: str) -> float:
        """Expected rating (or probability of a click) of an item that is not in the catalogue, from its text alone.

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
            known = np.concatenate([known, self.catalogue.beliefs.of_new_items(read)], axis=1)
        return float(self._of_items(self._score, state, embedding, known)[0])

    def interview(self, state: UserState, k: int = 5, skip: Sequence[str | int] = ()) -> list[Question]:
        """The items to ask a user about next, most informative first (see `metarec_jax.serving.interview`).

        Args:
            state: from `adapt` or `prior`: what is known of the user so far. What it has rated is not asked for again.
            k: how many, at least 1; fewer come only where no more items are left.
            skip: items that the user did not know, as for `score`.

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
        allowed = np.ones(len(items), bool)
        allowed[state.seen] = False
        allowed[[self.find(item).row for item in skip]] = False
        about = uncertain(jax.device_get(self._trainable.theta["prior"]), np.asarray(self._statistic), state.support)
        known = count / max(count.max(), 1)
        rows, gains = choose(about, known, count / max(count.sum(), 1), allowed, k)
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

    def _user_embeddings(self, histories: list[CheckedHistory], profiles: Sequence[str]) -> np.ndarray:
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
            texts = [profile.strip() for profile in profiles]
        embeddings = np.tile(self._average_user, (len(texts), 1))
        written = [u for u, text in enumerate(texts) if text]
        if written:
            embeddings[written] = self._encode([texts[u] for u in written])
        return embeddings

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
        )

    def _support(self, history: CheckedHistory) -> Rows:
        """The rows that the inner loop sees, padded to the least bucket that holds them."""
        length = next(b for b in self.config.episodes.buckets if b >= len(history.item))
        real = np.arange(length) < len(history.item)
        item, rating = np.zeros(length, np.int32), np.zeros(length, np.float32)
        item[real], rating[real] = history.item, history.rating
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

    def _tables_and_task(
        self, embeddings: Sequence[np.ndarray], supports: Sequence[Rows], kept: Sequence[Params] = ()
    ) -> tuple[Prepared, _Task]:
        """Arguments of a program, on the device: one user, or a whole chunk, filled up with the first of them."""
        users = len(supports)
        size = next(size for size in self._sizes if size >= users)
        order = [u if u < users else 0 for u in range(size)]

        def stacked(trees: Sequence[Any]) -> Any:
            return jax.tree.map(lambda *leaves: np.stack(leaves), *[trees[u] for u in order])

        task = _Task(
            user=np.arange(size, dtype=np.int32), support=stacked(supports), kept=stacked(kept) if kept else ()
        )
        return Prepared(items=self._items, users=self._prepared(users=stacked(embeddings))), jax.device_put(task)

    @functools.cached_property
    def _known(self) -> _Known:
        """What ranking needs of all items."""
        empty = self._support(CheckedHistory(*(np.zeros(0, t) for t in (np.int32, np.float32, np.int32)), notes=()))
        episodes = jax.tree.map(lambda leaf: leaf[None], Episodes(np.int32(0), empty, query=empty, weight=None))
        tables = Prepared(self._items, self._prepared(users=self._average_user[None]))
        with_gram = len(self.catalogue.items) <= _MOST_IN_GRAM
        know = jax.jit(functools.partial(_know, self._model, with_gram=with_gram))
        return know(self._trainable.theta, tables, jax.device_put(episodes))

    def _most_seen(self, states: Sequence[UserState]) -> int:
        """How many items of a history a call has room for, rounded up to a power of two."""
        most = max(len(state.seen) for state in states)
        return 1 << max(most - 1, 15).bit_length()

    def _prepared(self, *, items: np.ndarray | None = None, users: np.ndarray | None = None) -> Array:
        """Embeddings of items, or of users, as the learner wants them, on the device."""
        none = np.zeros((0, len(self._average_user)), np.float32)
        if users is not None:
            return self._prepare(jax.device_put(Tables(np.zeros((0, self._hidden), np.float32), users))).users
        return self._prepare(jax.device_put(Tables(items, none))).items

    def _task_of(self, states: Sequence[UserState]) -> tuple[Prepared, _Task]:
        return self._tables_and_task(
            [state.embedding for state in states],
            [state.support for state in states],
            [state.kept for state in states],
        )

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
        tables, task = self._task_of([state])
        rows = self._prepared(items=rows) if prepare else jax.device_put(rows)
        found = program(self._trainable, tables, task, rows, jax.device_put(statistic))
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


def _parts(rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Rows that are explained in one call, and how many their number is rounded up to."""
    for start in range(0, len(rows), explaining.PER_CALL):
        part = rows[start : start + explaining.PER_CALL]
        yield part, 1 if len(part) == 1 else explaining.PER_CALL


def _load_encoder(path: str) -> Encoder:
    from metarec_jax import encoder  # which takes as long to import as the rest, and is seldom needed

    return encoder.load(path)


def _statistic(catalogue: Catalogue, rows: np.ndarray) -> Float[np.ndarray, "items columns"]:
    return statistics_of(catalogue.statistics, rows, np.zeros(len(rows)), np.ones(len(rows), bool), own=False)


def _adapt(model: Model, trainable: Trainable, tables: Prepared, task: _Task) -> Params:
    """What each user keeps after the inner loop."""
    episodes = Episodes(task.user, task.support, query=None, weight=None)
    products = products_of(model, trainable.theta, tables, episodes)

    def one(task: Task) -> Params:
        episode = task.episode
        context = context_of(tables, episode.user, episode.support, None, trainable.theta, task.products)
        return adapt_user(model, trainable, context).end

    return over_users(one, Task(episodes, products), at_once=min(len(task.user), _ADAPTED_AT_ONCE))


def _score(
    model: Model,
    trainable: Trainable,
    tables: Prepared,
    task: _Task,
    embeddings: Float[Array, "items hidden"],
    statistic: Float[Array, "items columns"],
) -> Float[Array, "users items"]:
    """Every user's score of every item given; what the items are multiplied with is multiplied once for all users."""
    features = Features(Fixed(embeddings, None, "recommended"), statistic)

    def one(task: _Task) -> Array:
        context = context_of(tables, task.user, task.support)
        return model.head.mean(apply_user(model, trainable, context, task.kept, features))

    return over_users(one, task)


def _deviation(
    model: Model,
    trainable: Trainable,
    tables: Prepared,
    task: _Task,
    embeddings: Float[Array, "items hidden"],
    statistic: Float[Array, "items columns"],
) -> Float[Array, "users items"]:
    """The standard deviation of every user's rating of every item given."""
    features = Features(Fixed(embeddings, None, "recommended"), statistic)
    unit = model.head.unit or 1.0

    def one(task: _Task) -> Array:
        context = context_of(tables, task.user, task.support)
        return unit * jnp.sqrt(variance_user(model, trainable, context, features))

    return over_users(one, task)


def _know(model: Model, theta: Params, tables: Prepared, episodes: Episodes, *, with_gram: bool) -> _Known:
    """What does not depend on who asks; the episode (one is enough) says what a user's rows look like."""
    kernels = dict(zip(path_names(theta), jax.tree.leaves(theta)))
    met = kernels_met(model, theta, tables, episodes)
    products = {path: multiply(tables.items, kernels[path]) for path, names in met.items() if "query" in names}
    dtype = jnp.result_type(*jax.tree.leaves(theta))
    gram = jnp.matmul(tables.items, tables.items.T, preferred_element_type=dtype) if with_gram else None
    return _Known(products, gram)


def _rank(
    model: Model,
    trainable: Trainable,
    tables: Prepared,
    known: _Known,
    task: _Task,
    statistic: Float[Array, "items columns"],
    seen: Int[Array, "users seen"],
    k: int,
    at_once: int,
) -> tuple[Float[Array, "users k"], Array]:
    """The `k` highest scores of each user and the rows of their items; items that were `seen` score minus infinity.

    A few users are scored at a time, and of a large catalogue some items, so that what lies between the layers stays
    in a processor's caches: items are read from memory once.
    """
    items = tables.items.shape[0]
    count = min(items, _ITEMS_AT_ONCE)
    kernels = dict(zip(path_names(trainable.theta), jax.tree.leaves(trainable.theta)))
    dtype = jnp.result_type(*kernels.values())

    def one(task: _Task) -> Array:
        context = summarised(model, trainable.theta, context_of(tables, task.user, task.support))
        # How alike each item is to each of the support, which factored kernels ask for.
        if known.gram is None:
            rows = Fixed(tables.items, task.support.item, "support")
            gram = gram_of(Fixed(tables.items, None, "recommended"), rows, dtype)
        else:
            gram = known.gram[task.support.item].T

        def score(start: Array | int) -> Float[Array, " some"]:
            some = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=count)
            products = [(kernels[path], some(product)) for path, product in known.products.items()]
            rows = Fixed(some(tables.items), None, "recommended", products, {"support": some(gram)})
            return model.head.mean(apply_user(model, trainable, context, task.kept, Features(rows, some(statistic))))

        def put(turn: Array, scores: Array) -> Array:
            start = jnp.minimum(turn * count, items - count)  # the last turn meets some items again
            return jax.lax.dynamic_update_slice_in_dim(scores, score(start), start, axis=0)

        if count == items:
            return score(0)
        return jax.lax.fori_loop(0, -(-items // count), put, jnp.zeros(items, dtype))

    scores = over_users(one, task, at_once=at_once)
    scores = scores.at[jnp.arange(len(seen))[:, None], seen].set(-jnp.inf, mode="drop")
    best, rows = jax.lax.top_k(scores, k)
    return best, rows
