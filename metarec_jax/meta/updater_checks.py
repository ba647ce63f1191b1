"""Checks of an updater of one's own, on a small regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from metarec_jax.core.over_users import over_users
from metarec_jax.core.params import partition
from metarec_jax.core.types import Params
from metarec_jax.meta.conformance import HUGE, Case, findings, named_leaves, refuse, some
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.problem import Problem, Tasks, adapt, meta_loss
from metarec_jax.meta.updaters import Inputs, Updater
from metarec_jax.meta.user import masked_mean

CONVERGED = 2000
"""Inner steps of a rule that is differentiated at the point that its steps converge to."""
PROPERTIES = (
    "structures, shapes and data types are kept",
    "the traced program is the same each time",
    "a gradient of zero leaves the parameters alone",
    "all losses and gradients are finite",
    "the support loss falls",
    "tasks together give what each gives alone",
    "padding changes nothing",
    "the loss of a task does not depend on another task",
    "the meta-gradient equals finite differences",
    "the meta-gradient is not zero",
    "low-rank changes give what full matrices give",
)
"""What `check_updater` checks, in this order."""


def check_updater(updater: Updater, *, adapted: Sequence[str] = (".*",), steps: int = 3) -> tuple[str, ...]:
    """Check a rule of one's own on a small regression with three tasks, in double precision.

    The learner is ``tanh(x @ hidden/kernel + hidden/bias) @ output/kernel + output/bias`` with half the squared error.
    One input is zero in every row, as that of a dead unit is, so that some inner gradients are exactly zero.

    Args:
        updater: the rule.
        adapted: patterns of the parameters that it adapts; ("output/.*",) for a rule that solves for a linear layer.
        steps: number of inner steps; a rule with a `root` takes 2,000.

    Returns:
        The properties that were checked, and hold.

    Raises:
        MetarecError: a property does not hold; the message lists each with its remedy.
    """
    with jax.enable_x64(True):
        problem = Problem(
            _regression, updater, CONVERGED if updater.root else steps, tuple(adapted), rows=("x",), mask=_mask
        )
        theta, tasks, spoiled = _drawn()
        parts, _ = partition(theta, problem.adapted, option="adapted")
        refuse("the updater", _wrong_types(updater, parts))
        trainable = Trainable(theta, _moved(updater.init(parts), 0.1))
        fresh = Trainable(theta, updater.init(parts))
        broken = _moves_without_gradient(updater, parts) + _descent(problem, fresh, tasks)
        case = Case(
            lambda form, trainable, tasks: _losses(problem._replace(form=form), trainable, tasks),
            trainable,
            tasks,
            spoiled,
            factors=not updater.elementwise,
        )
        refuse("the updater", broken + findings(case))
    return PROPERTIES[: None if case.factors else -1]


def _regression(params: Params, rows: Any) -> Array:
    hidden = jnp.tanh(rows["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    outputs = hidden @ params["output"]["kernel"] + params["output"]["bias"][None]
    return masked_mean((outputs[:, 0] - rows["y"]) ** 2 / 2, rows["mask"])


def _mask(rows: Any) -> Array:
    return rows["mask"]


def _drawn() -> tuple[Params, Tasks, Tasks]:
    """Parameters, tasks with 3 to 1 rows of 4 padded to 4, and the same with nonsense in padded slots."""
    rng = np.random.default_rng(0)
    theta = {
        "hidden": {"kernel": rng.normal(size=(8, 3)) / 2, "bias": rng.normal(size=3) / 2},
        "output": {"kernel": rng.normal(size=(3, 1)), "bias": rng.normal(size=1)},
    }

    def rows(spoil: bool) -> dict[str, Array]:
        mask = np.arange(4) < np.array([4, 3, 2])[:, None]
        x, y = rng.normal(size=(3, 4, 8)), rng.normal(size=(3, 4)) * 2
        x[..., 0] = 0
        x, y = (np.where(mask[..., None], x, HUGE if spoil else 0), np.where(mask, y, -HUGE if spoil else 0))
        return {"x": jnp.asarray(x), "y": jnp.asarray(y), "mask": jnp.asarray(mask, float)}

    state = rng.bit_generator.state
    tasks = Tasks(rows(False), rows(False))
    rng.bit_generator.state = state
    return jax.tree.map(jnp.asarray, theta), tasks, Tasks(rows(True), rows(True))


def _losses(problem: Problem, trainable: Trainable, tasks: Tasks) -> Array:
    return over_users(lambda task: meta_loss(problem, trainable, jax.tree.map(lambda leaf: leaf[None], task))[0], tasks)


def _moved(tree: Params, size: float) -> Params:
    """The tree with a number drawn at random added to each of its own."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + size * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree)


def _stepped(updater: Updater, phi: Params, adapted: Params) -> tuple[Params, Params, Params]:
    """The state at the start, and parameters and state after a step with a gradient of zero, without support rows."""

    def inputs() -> Inputs:
        left, slope = (
            jax.tree.map(lambda leaf, side=side: jnp.ones((4, leaf.shape[side])) if leaf.ndim == 2 else None, adapted)
            for side in (0, 1)
        )
        return Inputs(left, jnp.zeros(4), slope)

    state = updater.start(phi, adapted, inputs)
    still = jax.tree.map(jnp.zeros_like, adapted)
    return state, *updater.step(phi, state, adapted, still, jnp.zeros((), jnp.int32))


def _wrong_types(updater: Updater, adapted: Params) -> list[str]:
    """Whether phi has the precision of the parameters, and a step keeps structures, shapes and data types."""

    def types(tree: Params) -> Any:
        return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)

    phi = updater.init(adapted)
    wrong = [name for name, leaf in named_leaves(phi).items() if leaf.dtype != np.float64]
    if wrong:
        return [
            f"phi has {some(wrong)} in another precision than the parameters: make it with their `dtype`, as "
            "`jnp.result_type(*jax.tree.leaves(adapted))` is"
        ]
    state, moved, carried = _stepped(updater, phi, adapted)
    return [
        f"a step changes the structure, a shape or a data type of {name}: return what it was given, since steps are a "
        "loop of fixed types"
        for name, before, after in (("the parameters", adapted, moved), ("the state", state, carried))
        if types(before) != types(after)
    ]


def _moves_without_gradient(updater: Updater, adapted: Params) -> list[str]:
    _, moved, _ = _stepped(updater, updater.init(adapted), adapted)
    ways = named_leaves(jax.tree.map(jnp.subtract, moved, adapted))
    moves = [name for name, way in ways.items() if np.abs(way).max() > 1e-14]
    if not moves:
        return []
    return [
        f"a step with a gradient of zero changes {some(moves)}: a task without rows has to keep the parameters that "
        "the outer loop trains"
    ]


def _descent(problem: Problem, trainable: Trainable, tasks: Tasks) -> list[str]:
    """Whether the support loss of the first task falls before phi is trained."""
    support = jax.tree.map(lambda leaf: leaf[0], tasks.support)
    adapted = jax.jit(lambda: adapt(problem, trainable, support).params)()
    before, after = problem.loss(trainable.theta, support), problem.loss(adapted, support)
    if after < before or not np.isfinite(after):
        return []
    return [
        f"the support loss rises in {problem.steps} steps, from {before:.4g} to {after:.4g}: lower the rate, or look "
        "for a sign (`optax_rule` subtracts: it takes `optax.scale_by_adam()`, not `optax.adam(...)`)"
    ]
