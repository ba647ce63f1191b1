"""Recommendation with a trained run: adapt to a user once, then rank the catalogue any number of times.

The adapted parameters of a user are small (see `metarec_jax.meta.gram`), so thousands of states fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from jaxtyping import Float

from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config
from metarec_jax.core.arguments import (
    function,
    instance,
    item,
    list_of,
    optional,
    path,
    takes,
    text,
    truth,
    whole,
)
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.forks import refuse_fork
from metarec_jax.core.params import unusable_names
from metarec_jax.meta.model import Trainable
from metarec_jax.recommender import active_learning, attribution
from metarec_jax.recommender.active_learning import Question
from metarec_jax.recommender.argument_kinds import HISTORIES, ITEMS, STATE, details, rater, some_bytes
from metarec_jax.recommender.attribution import Explanation, Influence, Word
from metarec_jax.recommender.call_shapes import Limits
from metarec_jax.recommender.cold_items import ColdItem, ColdItems
from metarec_jax.recommender.errors import located
from metarec_jax.recommender.executor import Executor
from metarec_jax.recommender.filters import ALL, Filters, as_filters
from metarec_jax.recommender.history import CheckedHistory, History, Rated, check_history, rows_to_remove
from metarec_jax.recommender.item_table import ItemTable
from metarec_jax.recommender.items import ItemIndex, Recommendation, StatisticRows, top_k
from metarec_jax.recommender.load_run import load_run
from metarec_jax.recommender.retrieval.candidates import Candidates
from metarec_jax.recommender.state_codec import StateCodec, model_digest
from metarec_jax.recommender.text_encoder import TextEncoder, UserEncoder, warn
from metarec_jax.recommender.title_search import Match
from metarec_jax.recommender.user_state import UserState
from metarec_jax.train import run_folder
from metarec_jax.train.catalogue import Catalogue, corrected
from metarec_jax.train.model import make_model

if TYPE_CHECKING:
    from metarec_jax.encoder import Encoder

__all__ = [
    "Explanation",
    "Filters",
    "History",
    "Influence",
    "Limits",
    "Question",
    "Rated",
    "Recommendation",
    "Recommender",
    "UserState",
    "Word",
]


class Recommender:
    """A trained model that adapts to users and recommends items to them.

    Args:
        config: config of the run.
        catalogue: items of the run, with embeddings from the encoder at the end of training.
        trainable: parameters of the run, as host arrays.
        encoder: the encoder; None loads it at the first use.
        report: called once with each distinct note on texts, such as that they were truncated; a Python warning by
            default.
        limits: limits on parallel computations.

    Attributes:
        config: as given.
        items: the catalogue and its indexes.
        executor: adapts to users with checked histories, and scores items for them.
        candidates: proposes the items that the model ranks where there are too many to rank all.
        texts: encodes texts.
        users: encodes users' texts.
        cold_items: adds items, and learns from their ratings.
        codec: encodes states, and provides the digest of the model.

    Raises:
        MetarecError: a parameter is not finite.

    For example::

        recommender = Recommender.load("runs/demo")
        user = recommender.adapt({"Toy Story (1995)": 5, "Heat (1995)": 2})
        recommender.recommend(user, k=3)
    """

    _origin: tuple[Path, str] | None = None
    """The run folder that `load` read."""

    @takes(
        config=instance(Config, what="the config of a run; `Recommender.load` reads a run folder"),
        catalogue=instance(Catalogue, what="the catalogue of a run; `Recommender.load` reads a run folder"),
        trainable=instance(Trainable, what="the parameters of a run; `Recommender.load` reads a run folder"),
        report=function,
        limits=instance(Limits, what="`Limits`"),
    )
    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        trainable: Trainable,
        encoder: Encoder | None = None,
        *,
        report: Callable[[str], None] = warn,
        limits: Limits = Limits(),  # noqa: B008 - it does not change
    ):
        refuse_fork()
        if names := unusable_names(trainable):
            raise MetarecError(f"{names[0]} of the run's parameters is infinite or NaN: train the run again")
        self.config = config
        # Without an outer gradient the order has no effect, and a loop that is not unrolled loads five times as fast.
        model = make_model(config, catalogue.scale)._replace(unroll=1, order="second")
        catalogue = corrected(catalogue, trainable.factors)
        trainable = jax.device_put(trainable._replace(encoder=None, factors=None))
        table = ItemTable(
            model,
            trainable.theta,
            catalogue.embeddings,
            StatisticRows(catalogue.statistics),
            len(trainable.theta["input"]["user"]["shift"]),
            f"{to_json(config)}\n{catalogue.scale}",
            limits.gram_items,
            limits.device_floats,
        )
        self.items = ItemIndex(catalogue, table)
        digest = model_digest(config, catalogue.items.ids, trainable)
        self.executor = Executor(config, catalogue.scale, model, trainable, table, limits, digest)
        self.candidates = Candidates(table, self.executor, limits)
        self.texts = TextEncoder(config.encoder, catalogue.embeddings.shape[1], encoder, report)
        self.users = UserEncoder(
            config.learner.user_side, self.executor.average_user, config.episodes.max_support, self.texts
        )
        self.cold_items = ColdItems(config, self.items, self.texts, trainable.theta)
        self.codec = StateCodec(self.items, self.executor)

    @classmethod
    @takes(folder=path, encoder_path=text, report=function)
    def load(cls, folder: str | Path, *, encoder_path: str = "", report: Callable[[str], None] = warn) -> Recommender:
        """Load the model with the least validation loss of a run.

        Args:
            folder: of the run.
            encoder_path: where the encoder is now; "" is where the run's config says.
            report: as for the class.

        Returns:
            The recommender.

        Raises:
            MetarecError: there is no run, the run is of another version, a file is damaged, or the parameters do not
                fit the config.
        """
        refuse_fork()
        found = cls(*load_run(Path(folder), encoder_path, report), report=report)
        found.texts.check = run_folder.open_run(Path(folder)).check_inputs
        # Absolute, since another process may have another working directory.
        found._origin = (Path(folder).absolute(), encoder_path)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the run folder, which the other process loads."""
        if self._origin is None or len(self.items) > self.items.trained:
            raise MetarecError(
                "only a recommender from `Recommender.load`, without added items, can be sent to another process: load "
                "it there, and add the items there"
            )
        return _load, self._origin

    @property
    def catalogue(self) -> Catalogue:
        """The items, including added ones."""
        return self.items.catalogue

    # Adapt

    @takes(profile=text)
    def adapt(self, history: History | Any = (), profile: str = "") -> UserState:
        """Adapt to one user.

        Args:
            history: items and ratings, oldest first: pairs, a mapping or a pandas series from one to the other, or a
                table with the columns item_id (or title) and rating. For a run of clicks also a list of items. Empty
                for a new user.
            profile: the user's text, for a run with ``learner.user_side`` "profile"; "" for the average user.

        Returns:
            The state of the user.

        Raises:
            MetarecError: an item is unknown, ambiguous or rated twice, a rating is not on the scale, or a profile is
                given to a run that does not read profiles.
        """
        return self.adapt_many([history], [profile])[0]

    @takes(histories=HISTORIES, profiles=optional(list_of(text, "strings")))
    def adapt_many(
        self, histories: Sequence[History | CheckedHistory], profiles: Sequence[str] | None = None
    ) -> list[UserState]:
        """Adapt to many users in batches.

        Args:
            histories: histories of the users, each as for `adapt`, or checked already.
            profiles: profiles of the users, or None.

        Returns:
            The states, in the order of `histories`.

        Raises:
            MetarecError: as for `adapt`; the message names the user if there is more than one.
        """
        if profiles is not None and len(profiles) != len(histories):
            raise MetarecError(f"there are {len(profiles)} profiles for {len(histories)} histories: give one for each")
        checked = []
        for place, history in enumerate(histories, start=1):
            try:
                checked.append(check_history(history, self.find, self.catalogue.scale))
            except MetarecError as error:
                where = f"history {place} of {len(histories)}: " if len(histories) > 1 else ""
                raise MetarecError(f"{where}{error}") from error
        return self._adapt(checked, profiles or [""] * len(checked))

    @takes(state=STATE, forget=ITEMS)
    def update(self, state: UserState, ratings: History = (), forget: Sequence[str | int] = ()) -> UserState:
        """Adapt again to a user after ratings were added, changed or removed.

        The result is that of `adapt` with the whole history. Titles and profile are not read again; all inner steps are
        repeated, since each depends on every row of the support (see docs/serving.md).

        Args:
            state: state of the user.
            ratings: as for `adapt`; the new rating of an item replaces the old one, and becomes the latest.
            forget: items whose ratings are removed.

        Returns:
            The new state.

        Raises:
            MetarecError: as for `adapt`, or an item to forget is not in the history.
        """
        self.executor.check_states([state])
        new = check_history(ratings, self.find, self.catalogue.scale)
        removed = rows_to_remove(state.history, forget, self.find)
        return self._adapt([state.history.changed(new, removed)], [""], [state.embedding])[0]

    def _adapt(
        self,
        histories: Sequence[CheckedHistory],
        profiles: Sequence[str],
        known: Sequence[np.ndarray | None] | None = None,
    ) -> list[UserState]:
        return self.executor.adapt(histories, self.users.encode(self.catalogue, histories, profiles, known))

    @takes(state=STATE)
    def to_bytes(self, state: UserState) -> bytes:
        """Encode a user's state as some kilobytes, which `from_bytes` reads.

        They hold the history, the embedding of the user's text (not the text) and the adapted parameters; large
        adapted parameters are left out, and `from_bytes` adapts again.
        """
        self.executor.check_states([state])
        return self.codec.encode(state)

    @takes(data=some_bytes)
    def from_bytes(self, data: bytes) -> UserState:
        """Decode a state that `to_bytes` encoded.

        Raises:
            MetarecError: the bytes are not a state, the state belongs to another run, or an item no longer exists.
        """
        history, embedding, adapted = self.codec.decode(data)
        if adapted is None:
            return self._adapt([history], [""], [embedding])[0]
        return self.executor.restore(history, embedding, adapted)

    # Recommend

    @takes(state=STATE, k=whole, exclude_seen=truth, filters=as_filters, full=truth)
    def recommend(
        self,
        state: UserState,
        k: int = 10,
        exclude_seen: bool = True,
        filters: Filters = ALL,
        *,
        full: bool = False,
    ) -> list[Recommendation]:
        """Find the `k` items with the highest scores.

        With more than 16,384 items and at most 1,024 places the model ranks 4,096 candidates, which the linear part of
        the model proposes (`Limits.whole_items` and `Limits.candidates`; see docs/retrieval.md). Otherwise it ranks all
        items.

        Args:
            state: state of the user.
            k: list length, 1 to the number of items.
            exclude_seen: whether items of the user's history are left out.
            filters: conditions on the items of the list.
            full: whether the model ranks all items, however many there are.

        Returns:
            The items, best first; fewer than `k` only where fewer are left.

        Raises:
            MetarecError: `k` is out of range, or a filter does not fit the catalogue.
        """
        return self.recommend_many([state], k, exclude_seen, filters, full=full)[0]

    @takes(
        states=list_of(STATE, "states, which `adapt` returns"),
        k=whole,
        exclude_seen=truth,
        filters=as_filters,
        full=truth,
    )
    def recommend_many(
        self,
        states: Sequence[UserState],
        k: int = 10,
        exclude_seen: bool = True,
        filters: Filters = ALL,
        *,
        full: bool = False,
    ) -> list[list[Recommendation]]:
        """Recommend items to many users in batches.

        Args:
            states: states of the users.
            k, exclude_seen, filters, full: as for `recommend`.

        Returns:
            The items of each user, as from `recommend`.
        """
        self.items.check_k(k)
        self.executor.check_states(states)
        allowed = None if filters == ALL else self.items.allowed(filters)
        found: dict[int, list[Recommendation]] = {}
        if self.candidates.needed(k) and not full:
            proposed = self.candidates.rows(states, allowed, exclude_seen=exclude_seen)
            for user, rows in enumerate(proposed):
                scores = self.executor.score_rows(states[user], rows)
                best = top_k(scores, k, np.ones(len(rows), bool))
                found[user] = self.items.recommendations(rows[best], scores[best])
        else:
            for user, scores in self.executor.score_all(states):
                rows = top_k(scores, k, self.items.candidates(states[user].history.rows, allowed, exclude_seen))
                found[user] = self.items.recommendations(rows, scores[rows])
        return [found[user] for user in range(len(states))]

    @takes(item=item, k=whole, by=text, filters=as_filters)
    def similar(
        self, item: str | int, k: int = 10, by: Literal["auto", "text", "taste"] = "auto", filters: Filters = ALL
    ) -> list[Recommendation]:
        """Find the `k` items most similar to one item; scores are cosines.

        Args:
            item: title, "id:" and an id, or an id as an int.
            k: list length, 1 to the number of items.
            by: "text" compares the embeddings of the items' texts, "taste" the item factors; "auto" is "taste" where
                the run has item factors.
            filters: conditions on the items found.

        Returns:
            The items, most similar first.

        Raises:
            MetarecError: an item is unknown or ambiguous, `k` is out of range, or the run has no item factors.
        """
        rows, cosine = self.items.similar(self.find(item).row, k, by, filters)
        return self.items.recommendations(rows, cosine[rows])

    # Score

    @takes(state=STATE, items=ITEMS)
    def score(self, state: UserState, items: Sequence[str | int]) -> Float[np.ndarray, " items"]:
        """Predict ratings (or probabilities of a click) of items of the catalogue.

        Args:
            state: state of the user.
            items: titles, "id:" and an id, or ids as ints.

        Returns:
            Expected ratings, or probabilities.

        Raises:
            MetarecError: an unknown or ambiguous item.
        """
        return self.executor.score_rows(state, self.items.rows(items))

    @takes(state=STATE, text=text)
    def score_text(self, state: UserState, text: str) -> float:
        """Predict the rating (or probability of a click) of an item that is not in the catalogue, from its text alone.

        Args:
            state: state of the user.
            text: text of the item.

        Returns:
            Expected rating, or probability.

        Raises:
            MetarecError: the text is empty.
        """
        return float(self.executor.score(state, *self.cold_items.read([ColdItem(text)]))[0])

    @property
    def gives_uncertainty(self) -> bool:
        """Whether `uncertainty` is available: for a model with the updater "ridge" and the head "rating"."""
        return self.executor.gives_deviation

    @takes(state=STATE, items=ITEMS)
    def uncertainty(self, state: UserState, items: Sequence[str | int]) -> Float[np.ndarray, " items"]:
        """Predict standard deviations of the user's ratings of items around `score`.

        They are square roots of the predictive variance of Bayesian linear regression (see
        `metarec_jax.meta.updaters.ridge`): the output layer's variance given the support, plus the noise of ratings.

        Args:
            state: state of the user.
            items: titles, "id:" and an id, or ids as ints.

        Returns:
            Standard deviations, in ratings.

        Raises:
            MetarecError: an item is unknown or ambiguous, or the model has no predictive variance.
        """
        if not self.gives_uncertainty:
            raise MetarecError(
                f"updater.kind {self.config.updater.kind!r} with learner.head {self.config.learner.head!r} predicts no "
                "uncertainty: train with --updater.kind ridge --updater.adapted 'output/.*' --learner.head rating"
            )
        return self.executor.score_rows_with_deviation(state, self.items.rows(items))[1]

    @takes(state=STATE, items=ITEMS, words=truth)
    def explain(self, state: UserState, items: Sequence[str | int], *, words: bool = False) -> list[Explanation]:
        """Explain scores: the influence of each rating on each score, and a sentence that names the main reasons.

        Args:
            state: state of the user.
            items: titles, "id:" and an id, or ids as ints.
            words: whether to compute the influence of the words of the items' texts too, which loads the encoder.

        Returns:
            An explanation for each item.

        Raises:
            MetarecError: an unknown or ambiguous item.
        """
        rows = self.items.rows(items)
        return attribution.explain(self.executor, self.texts, self.catalogue, state, rows, words=words)

    @takes(state=STATE, k=whole, skip=ITEMS, among=ITEMS)
    def interview(
        self, state: UserState, k: int = 5, skip: Sequence[str | int] = (), among: Sequence[str | int] = ()
    ) -> list[Question]:
        """Choose the items to ask a user about next (see `metarec_jax.recommender.active_learning`).

        Args:
            state: state of the user; rated items are not asked about.
            k: number of questions, at least 1; fewer are returned only where fewer items are left.
            skip: items that the user does not know, as for `score`.
            among: items that the user knows, as for `score`. If given, only these are asked about, and questions are
                chosen to reduce the variance of their ratings.

        Returns:
            The questions, most informative first.

        Raises:
            MetarecError: `k` is below 1, an item is unknown, or the run has no item factors.
        """
        self.executor.check_states([state])
        with located("skip"):
            skipped = self.items.rows(skip)
        with located("among"):
            known = self.items.rows(among)
        return active_learning.questions(self.items, self.executor.trainable.theta, state, k, skipped, known)

    # Items

    @takes(text=text, id=text, title=text, details=optional(details))
    def add_item(
        self,
        text: str,
        *,
        id: str = "",
        title: str = "",
        details: Mapping[str, str] | None = None,
        vector: Sequence[float] | np.ndarray | None = None,
    ) -> str:
        """Add an item without ratings to the catalogue, from its text; it can be recommended immediately.

        The run folder does not change: the item exists only as long as this object.

        Args:
            text: text of the item, which the encoder reads.
            id: id of the item; "" generates one.
            title: title of the item; "" takes the beginning of the text.
            details: details of the item, by the catalogue's names of details ("genres", "year").
            vector: vector of the item (such as an embedding of an image), for a run with vectors (`--data.vectors`).

        Returns:
            The id.

        Raises:
            InputError: the text is empty, the id exists already, the catalogue does not have a detail, or the vector
                does not fit the others; the field is the name of the argument.
        """
        return self.cold_items.add(ColdItem(text, id, title, dict(details or {})), vector)

    @takes(item=item, raters=list_of(rater, "pairs (history, rating)"))
    def learn_item(self, item: str | int, raters: Sequence[tuple[History, float]]) -> None:
        """Update an added item from its first ratings, without training.

        The item's mean and factors, which were predicted from its text, are updated by the ratings in closed form,
        given the tastes of the raters (see `metarec_jax.factors.update`); in a run without item factors the ratings
        are counted. States of users who were adapted to before do not change.

        Args:
            item: an item that `add_item` added, as for `score`.
            raters: for each user who has rated the item so far, the user's other ratings and the rating of this item.
                They replace those of earlier calls. Tastes are estimated from items in training, so the result does not
                depend on the order in which several new items are updated.

        Raises:
            MetarecError: the item was not added, a history or rating is not valid, or the run was trained under
                differential privacy.
        """
        self.cold_items.learn({item: raters})

    @takes(item=item)
    def find(self, item: str | int) -> Match:
        """Look up the row of an item by title, by "id:" and id, or by id as an int.

        Raises:
            MetarecError: there is no such item, or the title fits several.
        """
        return self.items.find(item)

    @takes(item=item)
    def title(self, item: str | int) -> str:
        """The title of an item, given as for `score`."""
        return self.catalogue.items.titles[self.find(item).row]


def _load(folder: Path, encoder_path: str) -> Recommender:
    return Recommender.load(folder, encoder_path=encoder_path)
