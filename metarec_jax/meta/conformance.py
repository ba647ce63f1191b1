"""What every rule and every learner keeps: purity, independence of tasks and padding, and a true meta-gradient."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.meta.gram import Form
from metarec_jax.meta.model import Trainable

HUGE = 1e30
"""What padded slots hold, so that it shows in every number that depends on them."""
EXACT = 1e-11
"""Relative difference of two ways to compute the same sums in float64."""
STEP, DIFFERENCES = 1e-5, 1e-7
"""Step of finite differences, and their relative error by the five-point rule."""
ROUNDINGS = 10
"""Roundings of the sum of losses in a finite difference."""


class Case(NamedTuple):
    """A batch of tasks on which a rule or a learner is checked.

    Attributes:
        losses: (form, trainable, tasks) -> query loss of each task after adaptation [tasks].
        trainable: parameters, none of which is zero.
        tasks: a tree with a leading axis of tasks, some of which have padded slots.
        spoiled: the same tasks with `HUGE` numbers in all padded slots.
        trained: patterns of the parameters ("theta/...", "phi/...") whose meta-gradient must not be zero.
        factors: whether low-rank changes are compared with full matrices.
    """

    losses: Callable[[Form, Trainable, Any], Array]
    trainable: Trainable
    tasks: Any
    spoiled: Any
    trained: Sequence[str] = (".*",)
    factors: bool = True


def findings(case: Case) -> list[str]:
    """Check a case: purity, independence of tasks and padding, and the meta-gradient.

    Args:
        case: the case, in float64.

    Returns:
        A line for each property that does not hold, with its remedy.
    """
    one = jax.tree.map(lambda leaf: leaf[:1], case.tasks)
    programs = [_program(case.losses, case.trainable, one) for _ in range(2)]
    if programs[0] != programs[1]:
        return [
            "tracing it twice gives two programs: it draws or counts outside JAX, or changes a variable of its own. "
            "Keep what changes in the state, and draw with a key"
        ]

    def slope(form: Form) -> Callable[..., Any]:
        def total(trainable: Trainable, tasks: Any) -> tuple[Array, Array]:
            losses = case.losses(form, trainable, tasks)
            return jnp.sum(losses), losses

        return jax.jit(lambda trainable, tasks: jax.value_and_grad(total, has_aux=True)(trainable, tasks))

    function = slope("auto")
    (_, losses), gradient = function(case.trainable, case.tasks)
    named = named_leaves(gradient)
    invalid = [name for name, leaf in named.items() if not np.isfinite(leaf).all()]
    if not np.isfinite(losses).all() or invalid:
        where = f"the meta-gradient by {some(invalid)} is" if invalid else "the query loss is"
        return [
            f"{where} not finite. An inner gradient that is exactly zero is the usual cause: the derivative of a root "
            "is infinite there. Add a constant under the root (optax: eps_root=1e-8, or eps_in_sqrt=True)"
        ]
    found = []
    alone = [
        function(case.trainable, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], case.tasks))
        for i in range(len(losses))
    ]
    summed = jax.tree.map(lambda *leaves: sum(leaves), *(gradient for _, gradient in alone))
    apart = np.concatenate([each[0][1] for each in alone])
    if far := _far({"the query loss": losses, **named}, {"the query loss": apart, **named_leaves(summed)}, EXACT):
        found.append(f"{far} of tasks together is not that of each task alone: compute nothing across tasks")
    _, spoiled = padded = function(case.trainable, case.spoiled)
    if far := _far(
        {"the query loss": padded[0][1], **named_leaves(spoiled)}, {"the query loss": losses, **named}, EXACT
    ):
        found.append(
            f"{far} depends on what is in padded slots: multiply by the mask, with `jnp.where` where a number "
            "may be large"
        )
    if _leaks(case):
        found.append("the loss of the first task depends on another task: compute nothing across tasks")
    differences = _differences(case)
    directions = {name: np.sum(leaf * _direction(leaf)) for name, leaf in named.items()}
    rounding = ROUNDINGS * float(jnp.finfo(losses.dtype).eps * np.abs(losses).sum()) / STEP
    if far := _far(directions, differences, DIFFERENCES, rounding):
        found.append(
            f"the meta-gradient by {far} is not the derivative of the loss: look for `stop_gradient`, a derivative of "
            "your own, a loss with a kink, or steps that have not converged to the root"
        )
    silent = [
        name for name, leaf in named.items() if not leaf.any() and any(re.fullmatch(p, name) for p in case.trained)
    ]
    if silent:
        found.append(
            f"the meta-gradient by {some(silent)} is zero, so that the outer loop does not train it: a step has to "
            "depend on it (a solution on its start, a rule on what it learns)"
        )
    if case.factors:
        (_, dense), of_dense = slope("dense")(case.trainable, case.tasks)
        (_, factored), of_factored = slope("factored")(case.trainable, case.tasks)
        far = _far(
            {"the query loss": factored, **named_leaves(of_factored)},
            {"the query loss": dense, **named_leaves(of_dense)},
            EXACT,
        )
        if far:
            found.append(
                f"{far} with matrices stored as low-rank changes is not that with full matrices: a rule that does more "
                "with a gradient than multiply it needs elementwise=True"
            )
    return found


def refuse(what: str, broken: Sequence[str]) -> None:
    """Raise an error where a property does not hold.

    Args:
        what: what was checked.
        broken: lines of `findings`.

    Raises:
        MetarecError: there is a line.
    """
    if broken:
        raise MetarecError(f"{what} does not keep what is needed of it:\n" + "\n".join(f"- {line}" for line in broken))


def _program(losses: Callable[..., Any], trainable: Trainable, tasks: Any) -> tuple[str, bytes]:
    traced = jax.make_jaxpr(lambda trainable, tasks: losses("dense", trainable, tasks))(trainable, tasks)
    consts = b"".join(np.asarray(const).tobytes() for const in traced.consts if not _is_key(const))
    return re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr)), consts


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _leaks(case: Case) -> bool:
    """Whether the loss of the first task has a derivative by another task."""
    leaves, structure = jax.tree.flatten(case.tasks)
    floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def first(moving: list[Array]) -> Array:
        own = iter(moving)
        whole = [next(own) if moves else leaf for moves, leaf in zip(floats, leaves)]
        return case.losses("auto", case.trainable, structure.unflatten(whole))[0]

    gradient = jax.jit(jax.grad(first))([leaf for moves, leaf in zip(floats, leaves) if moves])
    return any(np.asarray(leaf)[1:].any() for leaf in gradient)


def _direction(leaf: Any) -> np.ndarray:
    """A direction in which a leaf is moved, of norm 1."""
    drawn = np.asarray(np.random.default_rng(2).normal(size=np.shape(leaf)))
    return np.asarray(drawn / max(float(np.linalg.norm(drawn)), 1.0))


def _differences(case: Case) -> dict[str, Any]:
    """Derivative of the sum of losses along one direction of each leaf, by the five-point rule."""
    flat, unflatten = ravel_pytree(case.trainable)
    leaves, structure = jax.tree.flatten(case.trainable)
    moves = []
    for number in range(len(leaves)):
        one = [_direction(leaf) if number == i else np.zeros(leaf.shape) for i, leaf in enumerate(leaves)]
        moves.append(ravel_pytree(structure.unflatten(one))[0])
    ways = STEP * jnp.stack(moves)[:, None] * jnp.array([2.0, 1, -1, -2])[None, :, None]

    @jax.jit
    def values() -> Array:
        one = jax.vmap(lambda move: jnp.sum(case.losses("auto", unflatten(flat + move), case.tasks)))
        return jax.vmap(one)(ways) @ jnp.array([-1.0, 8, -8, 1]) / (12 * STEP)

    return dict(zip(named_leaves(case.trainable), np.asarray(values())))


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by their paths, as arrays of NumPy."""
    return {name: np.asarray(leaf) for name, leaf in zip(path_names(tree), jax.tree.leaves(tree))}


def _far(found: dict[str, Any], wanted: dict[str, Any], tolerance: float, rounding: float = 0.0) -> str:
    """The names of numbers that differ by more than `rounding`, measured against the largest of their array, or a
    thousandth of all; "" for none."""
    sizes = {name: np.abs(leaf).max(initial=0) for name, leaf in wanted.items()}
    floor = 1e-3 * max(sizes.values())
    return some(
        [
            name
            for name, leaf in found.items()
            if not np.abs(leaf - wanted[name]).max(initial=0) <= tolerance * max(sizes[name], floor) + rounding
        ]
    )


def some(names: Sequence[str]) -> str:
    """The first names of several."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
