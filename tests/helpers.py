"""What tests of several rooms share: one way to compare numbers, and models small enough to check by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.core.kinds import LEARNERS, UPDATERS
from metarec_jax.core.params import combine, partition
from metarec_jax.core.scale import CLICKS, STARS
from metarec_jax.core.types import Episodes, Interactions, Items, Params, Prepared, Rows, Users
from metarec_jax.learner import mlp
from metarec_jax.learner.contract import make_head
from metarec_jax.learner.heads import Head
from metarec_jax.meta.learner_checks import draw_episodes
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.meta.updaters import make_updater
from metarec_jax.meta.user import inputs_of

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}
"""Of two ways to compute the same sums of tens of numbers: about a hundred roundings of each precision (in float64
some more, since equal has to mean equal there and still leaves five digits to a wrong answer in float32)."""


LEARNER_SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "mlp": ({}, {}),
    "transformer": ({"layers": 1, "width": 4}, {"heads": 2}),
    "recurrent": ({"layers": 1, "width": 4}, {}),
}
"""Of tiny learners that read the support."""


def assert_close(
    got: Params, want: Params, *, tolerance: float | None = None, because: str = "", terms: Params | None = None
) -> None:
    """Two pytrees have the same structure, shapes and dtypes, and numbers that differ by rounding.

    A difference is measured against the largest number of its array, and numbers far below those of the whole tree
    (sums that cancel) against a thousandth of the tree's largest.

    Args:
        got, want: pytrees of arrays.
        tolerance: relative; by precision (`TOLERANCE`) where None.
        because: why it is this tolerance, which has to be said of one that is given.
        terms: a pytree like `want` of what the terms of its sums add up to without their signs, where terms may cancel:
            a sum is known to the rounding of its terms, however small it is itself.
    """
    _explained(because, tolerance)
    got_paths, got_structure = jax.tree_util.tree_flatten_with_path(got)
    want_leaves, want_structure = jax.tree_util.tree_flatten(want)
    assert got_structure == want_structure
    sizes = [_size(leaf) for leaf in (want_leaves if terms is None else want_structure.flatten_up_to(terms))]
    largest = max(sizes, default=0.0)
    for (path, left), right, size in zip(got_paths, want_leaves, sizes):
        left, right = np.asarray(left), np.asarray(right)
        name = jax.tree_util.keystr(path)
        assert left.shape == right.shape, name
        assert left.dtype == right.dtype, name
        assert np.isfinite(right).all(), name
        relative = TOLERANCE.get(right.dtype, 0.0) if tolerance is None else tolerance
        limit = relative * max(size, 1e-3 * largest)
        np.testing.assert_allclose(left, right, rtol=0, atol=limit, err_msg=name)


def assert_each_close(
    got: Any, want: Any, *, tolerance: float | None = None, floor: float = 0.0, because: str = "", name: Any = ""
) -> None:
    """Numbers are those of a reference, each by itself, however small it is beside the others.

    Args:
        got: numbers, or an array of them, which is of the shape of `want` unless this is a single number.
        want: the reference, in any precision.
        tolerance: relative; where None 0 beside a floor, else by the precision of `got` (`TOLERANCE`).
        floor: a difference that is allowed whatever the number.
        because: why it is this tolerance, or this floor, which has to be said of one that is given.
        name: of the numbers, for the message.
    """
    _explained(because, tolerance, floor or None)
    got, want = np.asarray(got), np.asarray(want, np.float64)
    assert want.ndim == 0 or got.shape == want.shape
    assert np.isfinite(want).all()
    relative = (0.0 if floor else TOLERANCE[got.dtype]) if tolerance is None else tolerance
    limit = np.maximum(relative * np.abs(want), floor)
    over = ~(np.abs(got - want) <= limit)
    assert not over.any(), f"{name} {got[over]} are not {np.broadcast_to(want, got.shape)[over]} to {limit.max():.2g}"


def _explained(because: str, *limits: float | None) -> None:
    given = [limit for limit in limits if limit is not None]
    assert bool(given) == bool(because), "a tolerance that is given needs a reason, and no other does"


def assert_equal(got: Params, want: Params) -> None:
    """Two pytrees are equal bit by bit."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right), strict=True)


def assert_says(message: str, *parts: str) -> None:
    """A message contains each of these parts."""
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in {message!r}"


def _size(leaf: Params) -> float:
    leaf = np.asarray(leaf)
    return float(np.abs(leaf).max()) if leaf.size else 0.0


def learner_config(kind: str, **fields: Any) -> LearnerConfig:
    """The choices of a small learner; fields that its kind does not have are left out."""
    own = LEARNERS.get(kind)
    small = {"hidden": 8, "layers": 2, "width": 8} | fields
    return own(**{name: value for name, value in small.items() if name in own.__dataclass_fields__})


class Tiny(NamedTuple):
    """A model with a few dozen parameters, and a batch for it; every number is drawn at random, none is zero."""

    model: Model
    trainable: Trainable
    tables: Prepared
    episodes: Episodes


def tiny(
    *,
    learner: str = "mlp",
    head: str = "ordinal",
    dtype: type = np.float64,
    users: int = 3,
    support: int = 4,
    query: int = 3,
    embedding: int = 3,
    hidden: int = 4,
    context: int = 0,
    prior: bool = True,
    dropout: float = 0.0,
    adapted: tuple[str, ...] = ("hidden/.*", "output/.*"),
    form: str = "auto",
    backward: str = "stored",
    seed: int = 0,
    **updater: object,
) -> Tiny:
    """A model and a batch in which every slot of every user has a table row of its own.

    User 0's support and query are full; later users have ever more padded slots, down to one real row.

    Args:
        learner: "mlp", "transformer" or "recurrent".
        head: "rating", "classes", "ordinal" or "click".
        dtype: of every float.
        users, support, query: sizes of the batch.
        embedding, hidden, context: sizes of the model.
        prior: whether outputs start from item statistics.
        dropout: share of hidden features.
        adapted: patterns of adapted parameters.
        form: how the inner loop is computed.
        backward: how the outer gradient passes through inner steps.
        seed: the draw.
        **updater: fields of `UpdaterConfig`; two steps of rate 0.3 where not given.
    """
    rng = np.random.default_rng(seed)
    made = make_head(head, levels=(1.0, 2.0, 3.0, 4.0, 5.0), low=1.0, high=5.0)
    rule = UPDATERS.get(str(updater.pop("kind", "gradient")))
    config = rule(**{"steps": 2, "rate": 0.3, "adapted": adapted} | updater)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape)

    click = head == "click"
    drawn, episodes = draw_episodes(rng, users=users, support=support, query=query, width=embedding, click=click)
    tables, low, high = Prepared(*drawn), *((0.1, 0.9) if click else (1.0, 5.0))
    episodes = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float64 else leaf, episodes)
    module = sys.modules[LEARNERS.get(learner).__module__]
    sizes, reading = LEARNER_SIZES[learner]
    theta = module.init(
        jax.random.key(seed),
        made,
        **sizes,
        hidden=hidden,
        context=context,
        item_embeddings=tables.items.astype(np.float32),
        user_embeddings=tables.users.astype(np.float32),
        mean_rating=(low + high) / 2,
    )

    def moved(leaf: np.ndarray) -> jax.Array:
        return jnp.asarray(leaf + 0.3 * normal(*leaf.shape), dtype)

    theta = jax.tree.map(moved, theta)
    updater_ = make_updater(config, made.curvature)
    phi = jax.tree.map(moved, updater_.init(partition(theta, adapted)[0]))
    model = Model(
        prepare=mlp.prepare,
        apply=lambda p, context, rows: module.apply(p, made, context, rows, prior=prior, dropout=dropout, **reading),
        summarise=None if learner == "mlp" else lambda p, context: module.summarise(p, made, context, **reading),
        head=made,
        updater=updater_,
        adapted=adapted,
        steps=config.steps,
        order=config.order,
        form=form,
        backward=backward,
    )
    tables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tables)
    episodes = jax.tree.map(jnp.asarray, episodes)
    return Tiny(model, Trainable(theta, phi), tables, episodes)


def written_out(tiny: Tiny, trainable: Trainable, tables: Prepared) -> jax.Array:
    """The meta loss of `tiny`'s batch as one would write it without a compiler: the reference of many tests.

    User by user, step by step, on plain arrays that hold a user's real rows only.
    """
    model, head = tiny.model, tiny.model.head
    adapted, shared = partition(trainable.theta, model.adapted)
    total, count = 0.0, 0
    for u in np.flatnonzero(tiny.episodes.weight):
        episode = jax.tree.map(lambda leaf, u=u: np.asarray(leaf)[u], tiny.episodes)
        support, query = (
            Rows(*(jnp.asarray(field[rows.mask > 0]) for field in rows)) for rows in (episode.support, episode.query)
        )
        seen, asked = (mlp.Features(tables.items[rows.item], rows.statistic) for rows in (support, query))
        context = mlp.Context(tables.users[episode.user], seen, support.rating, support.mask)

        def support_loss(now: Params, context=context, rating=support.rating) -> jax.Array:
            return jnp.mean(head.loss(model.apply(combine(now, shared), context, context.support), rating))

        inputs = inputs_of(model, trainable.theta, context)
        now, state = adapted, model.updater.start(trainable.phi, adapted, lambda inputs=inputs: inputs)
        for step in range(model.steps):
            gradient = jax.grad(support_loss)(now)
            if model.order == "first":
                gradient = jax.lax.stop_gradient(gradient)
            now, state = model.updater.step(trainable.phi, state, now, gradient, jnp.asarray(step))
        total += jnp.sum(head.loss(model.apply(combine(now, shared), context, asked), query.rating))
        count += len(query.rating)
    return total / count


def finite_differences(function: Callable[[Params], jax.Array], at: Params, step: float = 1e-4) -> Params:
    """The gradient of `function` by the five-point rule, whose error is of order step^4."""

    @jax.jit
    def compute(at: Params) -> Params:
        flat, unflatten = ravel_pytree(at)
        moves = step * np.eye(len(flat))[:, None] * np.array([2, 1, -1, -2])[:, None]
        values = jax.vmap(jax.vmap(lambda move: function(unflatten(flat + move))))(moves)
        return unflatten(values @ np.array([-1, 8, -8, 1]) / (12 * step))

    return compute(at)


def user_of(episodes: Episodes, index: int) -> Episodes:
    """One user's episode, without the users axis."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), episodes)


def interactions(
    user: list[int] | np.ndarray,
    item: list[int] | np.ndarray,
    rating: list[float] | np.ndarray,
    time: list[int] | np.ndarray | None = None,
    *,
    users: int | None = None,
    items: int | None = None,
    kind: str = "rating",
) -> Interactions:
    """A data set of invented items, from columns."""
    user, item = np.asarray(user, np.int32), np.asarray(item, np.int32)
    n_users = int(user.max(initial=-1)) + 1 if users is None else users
    n_items = int(item.max(initial=-1)) + 1 if items is None else items
    names = tuple(f"Item {i}" for i in range(n_items))
    return Interactions(
        user=user,
        item=item,
        rating=np.asarray(rating, np.float32),
        time=np.zeros(len(user), np.int64) if time is None else np.asarray(time, np.int64),
        users=Users(tuple(f"u{i}" for i in range(n_users))),
        items=Items(ids=names, titles=names, texts=names),
        scale=CLICKS if kind == "click" else STARS,
        source="invented",
    )


def random_interactions(
    rng: np.random.Generator, *, users: int, items: int, least: int, most: int, kind: str = "rating"
) -> Interactions:
    """Users with `least` to `most` ratings of different items, in rows of random order, with some times equal."""
    user, item = [], []
    for row, count in enumerate(rng.integers(least, most + 1, users)):
        user += [row] * count
        item += list(rng.permutation(items)[:count])
    order = rng.permutation(len(user))
    rating = rng.integers(0, 2, len(user)) if kind == "click" else rng.integers(1, 6, len(user))
    time = rng.integers(0, most, len(user))
    return interactions(np.array(user)[order], np.array(item)[order], rating, time, users=users, items=items, kind=kind)


def head_of(kind: str) -> Head:
    """The head called `kind`, for ratings of 1 to 5 or clicks."""
    return make_head(kind, levels=(1.0, 2.0, 3.0, 4.0, 5.0), low=1.0, high=5.0)
