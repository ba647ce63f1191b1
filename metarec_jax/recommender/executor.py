"""Execution of compiled programs for any number of users, in calls of few shapes (`CallShapes`).

The programs compute on the standard scale (`metarec_jax.core.scale`), and what is returned is in the data's unit.

There is one program for each support length and each batch size in use. Results of one call are read while the next
one runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.forks import refuse_fork
from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Params, Rows
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.recommender import programs
from metarec_jax.recommender.call_shapes import EXPLAINED_PER_CALL, CallShapes, Limits, explained_parts, one_ahead
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.recommender.item_table import ItemTable, ItemTensors
from metarec_jax.recommender.programs import ItemRows, UserTask
from metarec_jax.recommender.user_state import UserState


class Executor:
    """Adapts users and scores items.

    Args:
        config: config of the run.
        scale: the rating scale.
        model: the functions.
        trainable: theta and phi, on the device.
        table: the items.
        limits: limits on parallel computations.
        digest: identifier of the model, which its states hold.

    Attributes:
        model, trainable, scale, digest: as given.
        average_user: float32 [hidden], the embedding of a user without text.
        programs: the compiled programs by name.
    """

    def __init__(
        self,
        config: Config,
        scale: Scale,
        model: Model,
        trainable: Trainable,
        table: ItemTable,
        limits: Limits,
        digest: str = "",
    ):
        self.model, self.trainable, self.digest = model, trainable, digest
        self.average_user = np.asarray(trainable.theta["input"]["user"]["shift"], np.float32)
        self._table = table
        self._items_at_once = limits.items_at_once
        self._shapes = CallShapes(config.episodes, model, table, limits)
        self.scale = scale
        self._adapted_shapes: dict[int, Params] = {}
        told = f"{to_json(config)}\n{scale}\n{limits}"
        self.programs = programs.traced(model, scale, told, limits.users_adapted_at_once, limits.items_at_once)

    # Adapt

    def adapt(
        self, histories: Sequence[CheckedHistory], embeddings: Sequence[Float[np.ndarray, " hidden"]]
    ) -> list[UserState]:
        """Adapt to users in batches.

        Args:
            histories: histories of the users.
            embeddings: embeddings of the users' texts.

        Returns:
            The states, in the order of `histories`.
        """
        refuse_fork()

        def call(users: list[int]) -> tuple[Rows, Params]:
            supports = self._shapes.supports([histories[u] for u in users])
            task, items = self._with_items(self._shapes.task(np.stack([embeddings[u] for u in users]), supports))
            return supports, self.programs["adapt"](self.trainable, items, task)

        states: dict[int, UserState] = {}
        lengths = [self._shapes.bucket(len(history.rows)) for history in histories]
        for users, (supports, adapted) in one_ahead(self._shapes.batches(lengths), call):
            both = supports, jax.device_get(adapted)
            for row, u in enumerate(users):
                support, own = jax.tree.map(lambda leaf, row=row: leaf[row], both)
                states[u] = UserState(histories[u], embeddings[u], support, own, self.digest)
        return [states[u] for u in range(len(histories))]

    def restore(self, history: CheckedHistory, embedding: Float[np.ndarray, " hidden"], adapted: Params) -> UserState:
        """Make the state of a user whose adapted parameters are known.

        Args:
            history: the history to which the parameters were adapted.
            embedding: float32 [hidden], embedding of the user's text.
            adapted: from `UserState.adapted`.

        Returns:
            The state.
        """
        support = jax.tree.map(lambda leaf: leaf[0], self._shapes.supports([history]))
        return UserState(history, embedding, support, adapted, self.digest)

    def adapted_shapes(self, length: int) -> Params:
        """Shapes and dtypes of the adapted parameters of a user with a history of `length` ratings."""
        bucket = self._shapes.bucket(length)
        if bucket not in self._adapted_shapes:
            supports = self._shapes.supports([self._shapes.blank(bucket)])
            task, items = self._with_items(self._shapes.task(self.average_user[None], supports))
            adapted = jax.eval_shape(self.programs["adapt"], self.trainable, items, task)
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), adapted)
            self._adapted_shapes[bucket] = shapes
        return self._adapted_shapes[bucket]

    def warm(self, most: int) -> int:
        """Compile the programs that adapt and rank up to `most` users at once, and that explain scores for one.

        Returns:
            The number of programs.
        """
        most = min(most, self._shapes.sizes[-1])
        sizes = sorted({size for size in self._shapes.sizes if size <= most} | {self._shapes.size(most)})
        explained = (1, EXPLAINED_PER_CALL)
        if self._table.on_device:  # precompute products, which calls for single users then also use
            self._table.tensors(single_user=False)
        for length in self._shapes.buckets:
            history = self._shapes.blank(min(length, self._table.count), self.scale.standardised().low)
            for size in sizes:
                states = self.adapt([history] * size, [self.average_user] * size)
                for _ in self.score_all_with_deviation(states if self._table.on_device else []):
                    pass
            (state,) = self.adapt([history], [self.average_user])
            for items in explained:
                self.influences(state, np.zeros(items, np.int32))
        return (2 * len(sizes) + len(explained)) * len(self._shapes.buckets)

    def blank_states(self) -> list[UserState]:
        """A state for each padded length of a support, to compile programs with."""
        low = self.scale.standardised().low
        blank = [self._shapes.blank(min(length, self._table.count), low) for length in self._shapes.buckets]
        return self.adapt(blank, [self.average_user] * len(blank))

    # Score

    def score_all(self, states: Sequence[UserState]) -> Iterator[tuple[int, Float[np.ndarray, " items"]]]:
        """Score every item of the catalogue for each user, in batches of users.

        Args:
            states: states of the users.

        Yields:
            Position in `states`, each once and in any order, and the scores.

        Raises:
            MetarecError: predictions are NaN or infinite.
        """
        return self._over_catalogue("score_all", states)

    def score_all_with_deviation(
        self, states: Sequence[UserState]
    ) -> Iterator[tuple[int, Float[np.ndarray, "two items"]]]:
        """As `score_all`, with a second row: the standard deviation of the rating; NaN where the model has none.

        With a head that predicts levels it is the standard deviation of the predicted distribution; with a predictive
        variance (`gives_deviation`) it is the root of that.
        """
        return self._over_catalogue("score_all_with_deviation", states)

    def _over_catalogue(self, name: str, states: Sequence[UserState]) -> Iterator[tuple[int, np.ndarray]]:
        count = self._table.count

        def call(users: list[int]) -> Any:
            task, items = self._task([states[u] for u in users])
            if not self._table.on_device:
                return self._by_blocks(name, task, items)
            at_once = min(self._shapes.users_at_once, len(task.embedding))
            return self.programs[name](self.trainable, items, task, at_once=at_once)

        # Off the device, the scores of several users and all items may not fit into memory.
        alone = ([user] for user in range(len(states)))
        parts = self._shapes.batches([len(s.support.item) for s in states]) if self._table.on_device else alone
        for users, scored in one_ahead(parts, call):
            found = jax.device_get(scored)[: len(users), ..., :count]
            found = found.reshape(len(users), -1, count)  # [users, 1 or 2, items]: scores, deviations
            _check_finite(found[:, 0])
            if not self.scale.is_standard:
                found = np.concatenate([self.scale.original(found[:, :1]), found[:, 1:] * self.scale.unit], axis=1)
            yield from zip(users, found[:, 0] if name == "score_all" else found)

    def _by_blocks(self, name: str, task: UserTask, items: ItemTensors) -> Float[np.ndarray, ...]:
        """What the program `name` gives for a table that is not on the device: read and score a block at a time."""
        program = self.programs["score" if name == "score_all" else "score_with_deviation"]
        parts = []
        for start in range(0, self._table.count, self._items_at_once):
            rows = np.arange(start, start + self._items_at_once)
            own = np.minimum(rows, self._table.count - 1)  # the last block repeats the last row
            parts.append(jax.device_get(program(self.trainable, items, task, self.item_rows(own))))
        return np.concatenate(parts, axis=-1)

    def item_rows(self, rows: Int[np.ndarray, " items"]) -> ItemRows:
        """Rows of the catalogue as an argument of `score_of_many`, for several calls."""
        return self._rows(self._table.embeddings[rows], self._table.statistic[rows])

    def score_of_many(self, states: Sequence[UserState], items: ItemRows) -> Float[np.ndarray, "users items"]:
        """Score the same items for many users.

        Args:
            states: states of the users.
            items: from `item_rows`.

        Returns:
            Expected ratings, or probabilities of a click.

        Raises:
            MetarecError: predictions are NaN or infinite.
        """
        found = np.zeros((len(states), len(items.statistic)), np.float32)
        for users in self._shapes.batches([len(state.support.item) for state in states]):
            task, own = self._task([states[u] for u in users])
            scored = self.programs["score"](self.trainable, own, task, items)
            found[users] = jax.device_get(scored)[: len(users)]
        _check_finite(found)
        return self.scale.original(found)

    def score_rows_with_deviation(self, state: UserState, rows: np.ndarray) -> Float[np.ndarray, "two items"]:
        """Score rows of the catalogue for one user, with standard deviations as of `score_all_with_deviation`.

        Args:
            state: state of the user.
            rows: int [items].

        Returns:
            Scores, and standard deviations.
        """
        embeddings, statistic = self._table.embeddings[rows], self._table.statistic[rows]
        mean, deviation = self._of_items("score_with_deviation", state, embeddings, statistic)
        return np.stack([self.scale.original(mean), deviation * self.scale.unit])

    def score(
        self,
        state: UserState,
        embeddings: Float[np.ndarray, "items hidden"],
        statistic: Float[np.ndarray, "items columns"],
    ) -> Float[np.ndarray, " items"]:
        """Score items, in the catalogue or not, for one user.

        Args:
            state: state of the user.
            embeddings: float32 [items, hidden], from the encoder.
            statistic: float32 [items, columns].

        Returns:
            Expected ratings, or probabilities of a click.

        Raises:
            MetarecError: predictions are NaN or infinite.
        """
        return self.scale.original(self._of_items("score", state, embeddings, statistic))

    @property
    def gives_deviation(self) -> bool:
        """Whether the model has a predictive variance: with the updater "ridge" and the head "rating"."""
        return self.model.updater.variance is not None and self.model.head.unit is not None

    def score_rows(self, state: UserState, rows: np.ndarray) -> Float[np.ndarray, " items"]:
        """Score rows of the catalogue for one user.

        Args:
            state: state of the user.
            rows: int32 [items].

        Returns:
            Expected ratings, or probabilities of a click.
        """
        return self.score(state, self._table.embeddings[rows], self._table.statistic[rows])

    # Explain

    def influences(
        self, state: UserState, rows: np.ndarray
    ) -> tuple[Float[np.ndarray, " items"], Float[np.ndarray, "items support"]]:
        """Score items for one user, and differentiate each score by the weight of each row of the padded support.

        Args:
            state: state of the user.
            rows: int32 [items], rows of the catalogue.

        Returns:
            Scores, and derivatives.
        """
        self.check_states([state])
        whose = self._shapes.task(*jax.tree.map(lambda leaf: leaf[None], (state.embedding, state.support)))
        found = [(np.zeros(0, np.float32), np.zeros((0, len(state.support.item)), np.float32))]
        for part, size in explained_parts(rows):
            padded = np.pad(part, (0, size - len(part))).astype(np.int32)
            items, support, own = self._table.tensors_of(whose.support, padded, single_user=True)
            task = whose._replace(support=support)
            both = jax.device_get(self.programs["influences"](self.trainable, items, task, own))
            found.append(jax.tree.map(lambda leaf, part=part: leaf[0, : len(part)], both))
        scores, influences = (np.concatenate(parts) for parts in zip(*found))
        _check_finite(scores)
        _check_finite(influences)
        return self.scale.original(scores), influences * self.scale.unit

    def embedding_gradients(self, state: UserState, rows: np.ndarray) -> Float[np.ndarray, "items hidden"]:
        """Compute the gradient of one user's score of each item by the embedding of the item's text.

        Args:
            state: state of the user.
            rows: int32 [items], rows of the catalogue.

        Returns:
            Gradients.
        """
        embeddings, statistic = self._table.embeddings, self._table.statistic
        found = [np.zeros((0, embeddings.shape[1]), np.float32)]
        for part, size in explained_parts(rows):
            found.append(
                self._of_items("embedding_gradients", state, embeddings[part], statistic[part], size, prepare=False)
            )
        return np.concatenate(found) * self.scale.unit

    # Arguments

    def check_states(self, states: Sequence[UserState]) -> None:
        """Refuse states of other models, and to compute in a forked process.

        Raises:
            MetarecError: a state was adapted by another model, or knows items that this one does not have.
        """
        refuse_fork()
        for state in states:
            if state.run != self.digest or np.max(state.history.rows, initial=-1) >= self._table.count:
                raise MetarecError(
                    "the state of a user belongs to another run, or to a copy of this one with further items: adapt to "
                    "the user's ratings with this recommender"
                )

    def _task(self, states: Sequence[UserState]) -> tuple[UserTask, ItemTensors]:
        """The arguments of a program for some users: the users, and items that hold those of their supports."""
        self.check_states(states)
        each = [(state.embedding, state.support, state.adapted) for state in states]
        return self._with_items(self._shapes.task(*jax.tree.map(lambda *leaves: np.stack(leaves), *each)))

    def _with_items(self, task: UserTask) -> tuple[UserTask, ItemTensors]:
        items, support, _ = self._table.tensors_of(task.support, single_user=len(task.embedding) == 1)
        return task._replace(support=support), items

    def _rows(self, embeddings: np.ndarray, statistic: np.ndarray) -> ItemRows:
        """Items as an argument of a program."""
        return ItemRows(self.programs["prepare"](self.trainable.theta, embeddings), statistic)

    def _of_items(
        self,
        name: str,
        state: UserState,
        embeddings: np.ndarray,
        statistic: np.ndarray,
        size: int = 0,
        *,
        prepare: bool = True,
    ) -> np.ndarray:
        """Run a program for one user and some items, padded to `size`, or to a power of two if `size` is 0."""
        count = len(embeddings)
        spare = (size or 1 << max(count - 1, 0).bit_length()) - count
        embeddings, statistic = (
            np.pad(array, ((0, spare), (0, 0))).astype(np.float32) for array in (embeddings, statistic)
        )
        rows = self._rows(embeddings, statistic) if prepare else ItemRows(embeddings, statistic)
        task, items = self._task([state])
        scored = jax.device_get(self.programs[name](self.trainable, items, task, rows))[0]
        found = scored[:, :count] if name == "score_with_deviation" else scored[:count]
        _check_finite(found[0] if name == "score_with_deviation" else found)
        return found


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise MetarecError(
            "the model's predictions for this user are NaN or infinite: its inner steps diverge; "
            "train it again with a lower --updater.rate"
        )
