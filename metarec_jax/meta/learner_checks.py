"""Checks of a learner of one's own, on a small batch of episodes drawn at random."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.core.kinds import LEARNERS
from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import combine, partition
from metarec_jax.core.registry import as_kind
from metarec_jax.core.types import Episodes, Params, Rows, Tables
from metarec_jax.learner.contract import Learner, make_head
from metarec_jax.learner.inputs import learned
from metarec_jax.meta.batch import planned
from metarec_jax.meta.conformance import EXACT, HUGE, Case, findings, refuse
from metarec_jax.meta.gram import Form
from metarec_jax.meta.model import Model, Shared, Task, Trainable
from metarec_jax.meta.updaters import Rates
from metarec_jax.meta.updaters.gradient import gradient_descent
from metarec_jax.meta.user import context_of, features_of, lose_user

LEARNER_PROPERTIES = (
    "outputs have the shape [rows, outputs of the head]",
    "the traced program is the same each time",
    "all losses and gradients are finite",
    "users together give what each gives alone",
    "padding changes nothing",
    "the loss of a user does not depend on another user",
    "the meta-gradient equals finite differences",
    "the meta-gradient of adapted parameters is not zero",
    "low-rank changes give what full matrices give",
    "a row is scored alike whatever other rows are scored with it",
)
"""What `check_learner` checks, in this order."""
USERS, SUPPORT, QUERY, HIDDEN = 3, 4, 3, 5


def check_learner(
    learner: LearnerConfig | Learner, *, head: str = "rating", adapted: Sequence[str] = ("output/.*",)
) -> tuple[str, ...]:
    """Check a learner of one's own for recommenders on three users, in double precision, under gradient descent.

    Args:
        learner: options of the learner, with small sizes; or the learner, whose products of float64 are float64.
        head: name of the head that it is checked with.
        adapted: patterns of the parameters that the inner loop adapts.

    Returns:
        The properties that were checked, and hold.

    Raises:
        MetarecError: a property does not hold; the message lists each with its remedy.
    """
    made_head = make_head(head, levels=(1.0, 2.0, 3.0, 4.0, 5.0), low=1.0, high=5.0)
    made = learner if isinstance(learner, Learner) else _in_double(learner).build(made_head)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        tables, episodes = draw_episodes(
            rng, users=USERS, support=SUPPORT, query=QUERY, width=HIDDEN, click=head == "click"
        )
        theta = made.init(
            jax.random.key(0),
            item_embeddings=tables.items.astype(np.float32),
            user_embeddings=tables.users.astype(np.float32),
            mean_rating=0.5 if head == "click" else 3.0,
        )
        theta = jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.3 * rng.normal(size=np.shape(leaf))), theta)
        tables = Tables(*(jnp.asarray(np.vstack([table, np.full((1, HIDDEN), HUGE)])) for table in tables))
        episodes = jax.tree.map(jnp.asarray, episodes)
        updater = gradient_descent(Rates(0.1, "layer"))
        model = Model(
            apply=made.apply,
            head=made_head,
            updater=updater,
            adapted=tuple(adapted),
            steps=2,
            order="second",
            prepare=made.prepare,
            summarise=made.summarise,
            taste=made.taste,
        )
        parts, _ = partition(theta, model.adapted, option="adapted")
        trained, constant = learned(theta) if isinstance(theta, dict) and "input" in theta else (theta, None)

        def losses(form: Form, trainable: Trainable, episodes: Episodes) -> Array:
            if constant is not None:
                trainable = trainable._replace(theta=combine(trainable.theta, constant))
            return _losses(model._replace(form=form), trainable, tables, episodes)

        score = functools.partial(_scored, model, theta, tables, episodes)
        shape = jax.eval_shape(lambda: score(QUERY)).shape
        broken = []
        if shape != (QUERY, made_head.outputs):
            broken = [
                f"apply gives outputs of the shape {shape} for {QUERY} rows: return [rows, {made_head.outputs}], which "
                "the head reads"
            ]
        else:
            last = len(tables.items) - 1
            spoiled = episodes._replace(support=spoil(episodes.support, last), query=spoil(episodes.query, last))
            patterns = [f"theta/({pattern})" for pattern in adapted]
            broken = findings(
                Case(losses, Trainable(trained, updater.init(parts)), episodes, spoiled, trained=patterns)
            )
            together, alone = score(QUERY)[:1], score(1)
            if np.abs(together - alone).max() > EXACT * np.abs(together).max():
                broken.append("apply scores a row differently with other rows beside it: compute each row by itself")
        refuse("the learner", broken)
    return LEARNER_PROPERTIES


def _in_double(config: LearnerConfig) -> Any:
    """Options of the learner's own kind with products in float64, which no training has."""
    config = copy.copy(as_kind(LEARNERS, config) if type(config) is LearnerConfig else config)
    object.__setattr__(config, "compute", "float64")
    return config


def draw_episodes(
    rng: np.random.Generator, *, users: int, support: int, query: int, width: int, click: bool = False
) -> tuple[Tables, Episodes]:
    """Draw a batch in which every slot of every user has a table row of its own.

    User 0's support and query are full; later users have ever more padded slots, down to one real row.

    Args:
        rng: the draw.
        users, support, query: sizes of the batch.
        width: width of the embeddings.
        click: whether ratings are 0 or 1; otherwise they are 1 to 5.

    Returns:
        Embeddings and episodes, float64 arrays of NumPy.
    """
    tables = Tables(items=rng.normal(size=(users * (support + query), width)), users=rng.normal(size=(users, width)))
    low, high = (0.1, 0.9) if click else (1.0, 5.0)

    def rows(first: int, length: int) -> Rows:
        real = np.arange(length) < np.maximum(length - np.arange(users), 1)[:, None]
        count = rng.integers(1, 9, (users, length))
        mean = rng.uniform(low, high, (users, length))
        levels = rng.integers(0, 2, (users, length)) if click else rng.integers(1, 6, (users, length))
        return Rows(
            item=(first + np.arange(users * length).reshape(users, length)).astype(np.int32),
            rating=np.where(real, levels, 0).astype(np.float64),
            mask=real.astype(np.float64),
            statistic=np.stack([mean * count, count], axis=-1) * real[..., None],
        )

    return tables, Episodes(
        user=np.arange(users, dtype=np.int32),
        support=rows(0, support),
        query=rows(users * support, query),
        weight=np.ones(users),
    )


def _losses(model: Model, trainable: Trainable, tables: Tables, episodes: Episodes) -> Array:
    """Query loss of each user."""
    prepared = model.prepare(trainable.theta, tables)
    plan, products = planned(model, trainable.theta, prepared, episodes)
    shared = Shared(trainable, prepared, plan=plan)
    return over_users(lambda task: lose_user(model, shared, task).query, Task(episodes, products))


def spoil(rows: Rows, item: int) -> Rows:
    """Put nonsense into padded slots.

    Args:
        rows: rows of episodes.
        item: row of the table that holds nonsense.

    Returns:
        The rows.
    """
    real = rows.mask > 0
    return Rows(
        item=jnp.where(real, rows.item, item),
        rating=jnp.where(real, rows.rating, -HUGE),
        mask=rows.mask,
        statistic=jnp.where(real[..., None], rows.statistic, HUGE),
    )


def _scored(model: Model, theta: Params, tables: Tables, episodes: Episodes, rows: int) -> Array:
    """Outputs of the first rows of the first user's query, without an inner loop."""
    prepared, episode = model.prepare(theta, tables), jax.tree.map(lambda leaf: leaf[0], episodes)
    context = context_of(prepared, episode.user, episode.support)
    query = jax.tree.map(lambda leaf: leaf[:rows], episode.query)
    return model.apply(theta, context, features_of(prepared, query, "query"))
