"""The validation loss of an epoch, and the parameters that are kept.

A learner with item factors starts from their closed form, which is fitted to all training ratings. The outer loop moves
all parameters away from it, and with few users partly by noise. So the kept parameters are a mean of those before
training and the trained ones (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", section 3), with a weight
that was chosen on validation users (docs/factors.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array

from metarec_jax.core.global_arrays import host, put
from metarec_jax.core.over_users import over_users
from metarec_jax.core.types import BatchRows, Episodes, Prepared, Tables
from metarec_jax.learner.ranking import list_loss
from metarec_jax.meta.batch import gathered, prepare_rows
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.meta.outer import TrainState, meta_loss, predict
from metarec_jax.train.episode_feed import padded
from metarec_jax.train.experiment import Part
from metarec_jax.train.sharding import replicate, shard_users
from metarec_jax.train.text_batches import TextBatches


class Validation:
    """The validation loss of a part as a function of trained parameters, compiled once for each length bucket.

    It is the mean query loss; for queries with candidates, 1 - nDCG of the lists of the catalogue.

    Args:
        model: the functions.
        mesh: the devices.
        part: episodes and their tables.
        texts: texts of the part, if the encoder is trained: each call encodes them with its encoder.
        by_batch: whether the tables stay on the host, from which each batch reads its rows. Lists read the whole table,
            which is then on the devices all the same.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        part: Part,
        texts: TextBatches | None = None,
        *,
        by_batch: bool = False,
    ) -> None:
        lists = part.source.candidates is not None
        self._mesh, self._texts, self._by_batch = mesh, texts, by_batch and not lists
        self._tables = part.tables if self._by_batch else replicate(mesh, part.tables)
        batches = [padded(part.source[i], mesh) for i in range(len(part.source))]
        self._batches = batches if self._by_batch else [shard_users(mesh, batch) for batch in batches]
        self._prepare, self._losses = _validating(model, lists)

    def __call__(self, trainable: Trainable) -> float:
        """The loss."""
        return _mean(*self.losses(trainable))

    def losses(self, trainable: Trainable) -> tuple[np.ndarray, np.ndarray]:
        """The sum and the number of losses of each batch; of lists, of each user.

        Args:
            trainable: the parameters.

        Returns:
            float [n] each.
        """
        raw: Tables = self._tables if self._texts is None else self._texts.tables(trainable.encoder)
        trainable = trainable._replace(encoder=None)
        if self._by_batch:
            given = ((gathered(raw, batch), batch) for batch in self._batches)
            found = [host(self._losses(trainable, *shard_users(self._mesh, one))) for one in given]
        else:
            tables = self._prepare(trainable.theta, raw)
            found = host([self._losses(trainable, tables, batch) for batch in self._batches])
        lost, number = (np.concatenate([np.atleast_1d(part) for part in parts]) for parts in zip(*found))
        return lost.astype(np.float64), number.astype(np.float64)


class Evaluation:
    """Evaluates a training state after an epoch: the validation loss of the parameters that are kept of it.

    Where parameters before training are a candidate, so is the standard error of the difference from them
    (``validation_doubt``), paired by users: with few users, the best of many epochs is better by chance.

    Args:
        validate: the validation loss.
        start: makes the parameters before training.
        mixing: weight of the trained parameters in their mean with those before training, which is kept.
        first_counts: whether the parameters before training are a candidate.
    """

    def __init__(
        self, validate: Validation, start: Callable[[], Trainable], *, mixing: float, first_counts: bool
    ) -> None:
        self._validate, self._mixing, self._first_counts = validate, mixing, first_counts
        self._start = functools.cache(lambda: host(start()))
        self._before: np.ndarray | None = None

    def __call__(self, state: TrainState) -> dict[str, float]:
        """The figures of a state."""
        lost, number = self._validate.losses(self.kept(state))
        figures = {"validation_loss": _mean(lost, number)}
        if self._first_counts:
            if self._before is None:
                begun = int(host(state.step)) == 0
                self._before = lost if begun else self._validate.losses(self._placed_start(state.trainable))[0]
            gain = (lost - self._before)[number > 0]
            figures["validation_doubt"] = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
        return figures

    def kept(self, state: TrainState) -> Trainable:
        """The parameters that are kept of a state, on the devices."""
        trained = state.trainable
        return trained if self._mixing == 1 else _mean_of(self._placed_start(trained), trained, self._mixing)

    def _placed_start(self, like: Trainable) -> Trainable:
        return put(self._start(), jax.tree.map(lambda leaf: leaf.sharding, like))


@jax.jit
def _mean_of(start: Trainable, trained: Trainable, mixing: ArrayLike) -> Trainable:
    return jax.tree.map(lambda before, after: before + mixing * (after - before), start, trained)


def _mean(lost: np.ndarray, number: np.ndarray) -> float:
    return float(lost.sum() / max(number.sum(), 1.0))


@functools.lru_cache(maxsize=8)
def _validating(model: Model, lists: bool) -> tuple[Any, Any]:
    """Jitted `Model.prepare`, and the sum and number of losses of a batch (of lists, of each of its users).

    Equal models share compiled functions.
    """

    def of_rows(trainable: Trainable, tables: Prepared | BatchRows, episodes: Episodes) -> tuple[Array, Array]:
        losses = meta_loss(model, trainable, prepare_rows(model, trainable.theta, tables), episodes)[1]
        return losses.query, losses.rows

    def of_lists(trainable: Trainable, tables: Prepared, episodes: Episodes) -> tuple[Array, Array]:
        query = episodes.query
        outputs = predict(model, trainable, tables, episodes)
        mask = query.mask * episodes.weight[:, None]
        return over_users(lambda user: list_loss(model.head, *user), (outputs, query.rating, mask))

    return jax.jit(model.prepare), jax.jit(of_lists if lists else of_rows)
