"""A model as functions, its parameters, and the inputs and outcome of one user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array

from metarec_jax.core.types import BatchRows, Episodes, Params, Prepared, Tables
from metarec_jax.learner.heads import Head
from metarec_jax.learner.inputs import Context, Features
from metarec_jax.learner.ranking import QueryLoss
from metarec_jax.meta import inner
from metarec_jax.meta.gram import Form, Plan
from metarec_jax.meta.updaters import Updater

Products = Mapping[str, Mapping[str, Array]]
"""Name of rows -> path of a kernel of theta -> ``rows @ kernel``."""
UNROLL = 5
"""Number of inner steps per iteration of the compiled loop: a few per cent faster than 1, at equal compile time."""


def _as_they_are(theta: Params, tables: Tables) -> Prepared:
    return Prepared(*tables)


class Model(NamedTuple):
    """The functions of a model; its parameters are in `Trainable`.

    Attributes:
        apply: the learner: (theta, user, rows) -> outputs of the rows.
        head: interpretation of the outputs.
        updater: the rule of the inner loop.
        adapted: patterns of the parameters that it changes.
        steps: number of inner steps.
        order: whether the outer gradient flows through the inner gradients (see `metarec_jax.meta.inner.adapt`).
        form: how adapted matrices are stored (see `metarec_jax.meta.gram`).
        unroll: inner steps in one iteration of the compiled loop. More allow more fusion, but take longer to compile.
        backward: how the outer gradient passes through the inner steps (see `metarec_jax.meta.inner.adapt`).
        kernel: users of a block of the Pallas kernel that computes the meta-gradient (see `metarec_jax.meta.kernel`);
            0 leaves it to XLA.
        prepare: (theta, tables) -> tables in the form that `apply` reads; computed once for each distinct row.
        summarise: (theta, user) -> summary of the support, for ``Context.summary``; its result is None where parameters
            that it depends on are None in theta. None for a learner that does not read the support.
        taste: (theta, user) -> posterior of the user's taste, for ``Context.taste``; None as for `summarise`.
        floats_per_row: (length of the support) -> largest number of floats that scoring one row needs at a time.
        query_loss: (outputs, ratings, mask) -> loss of each query row, for the outer loop; None takes the head's loss.
    """

    apply: Callable[[Params, Context, Features], Array]
    head: Head
    updater: Updater
    adapted: tuple[str, ...]
    steps: int
    order: inner.Order
    form: Form = "auto"
    unroll: int = 1
    backward: inner.Backward = "stored"
    kernel: int = 0
    prepare: Callable[[Params, Tables], Prepared] = _as_they_are
    summarise: Callable[[Params, Context], Any] | None = None
    taste: Callable[[Params, Context], Any] | None = None
    query_loss: QueryLoss | None = None
    floats_per_row: Callable[[int], int] = lambda support: 1


class Trainable(NamedTuple):
    """Parameters that the outer loop trains.

    Attributes:
        theta: parameters of the learner.
        phi: parameters of the updater.
        encoder: parameters of the encoder; None if it is frozen.
        factors: float [rows, rank], correction of the item factors (`metarec_jax.factors.correction`); None where
            there is none.
    """

    theta: Params
    phi: Params
    encoder: Params = None
    factors: Params = None


class Shared(NamedTuple):
    """Inputs that all users of a batch share.

    Attributes:
        trainable: theta and phi.
        tables: embeddings, prepared (``model.prepare``); None where each task has its own rows of them.
        key: key of the outer step; None disables dropout.
        plan: how adapted parameters are stored; with None, it is determined for each user.
    """

    trainable: Trainable
    tables: Prepared | Any
    key: Array | None = None
    plan: Plan | None = None


class Task(NamedTuple):
    """Inputs of one user.

    Attributes:
        episode: the episode.
        products: products of its rows with kernels, precomputed for all users together.
        rows: its rows of the tables; None gathers them by the ids of the episode.
    """

    episode: Episodes
    products: Products | None = None
    rows: BatchRows | None = None


class Outcome(NamedTuple):
    """Outcome of one user, or with a leading axis of the users of a batch.

    Attributes:
        query: sum of the query loss after adapting.
        rows: number of query rows in the sum.
        stopped: int32, the first inner step whose support loss was not finite; ``steps`` if only the query loss was
            not finite, ``steps + 1`` if all losses were finite.
    """

    query: Array
    rows: Array
    stopped: Array
