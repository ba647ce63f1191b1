"""The inner loop of one task, for any loss of a parameter tree: how parameters are stored, adapted and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import combine, partition
from metarec_jax.core.types import Params
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.meta import inner, mixed_mode
from metarec_jax.meta.gram import Adapted, Form, InnerParameters, Plan
from metarec_jax.meta.left_operands import left_operands, with_slopes
from metarec_jax.meta.updaters import Inputs, Updater


@runtime_checkable
class Loop(Protocol):
    """Options of the inner loop; `metarec_jax.meta.model.Model` and `metarec_jax.meta.problem.Problem` have them."""

    @property
    def updater(self) -> Updater:
        """The rule."""
        ...

    @property
    def adapted(self) -> tuple[str, ...]:
        """Patterns of the parameters that it changes."""
        ...

    @property
    def steps(self) -> int:
        """Number of inner steps."""
        ...

    @property
    def order(self) -> inner.Order:
        """Whether the outer gradient flows through the inner gradients (see `metarec_jax.meta.inner.adapt`)."""
        ...

    @property
    def form(self) -> Form:
        """How adapted matrices are stored (see `metarec_jax.meta.gram`)."""
        ...

    @property
    def unroll(self) -> int:
        """Inner steps in one iteration of the compiled loop."""
        ...

    @property
    def backward(self) -> inner.Backward:
        """How the outer gradient passes through the steps (see `metarec_jax.meta.inner.adapt`)."""
        ...


def plan_task(loop: Loop, theta: Params, apply: Callable[[Params, str], Any], *, query: bool = False) -> Plan:
    """Choose the form of adapted parameters, by an abstract evaluation with instrumented matrices.

    Args:
        loop: options of the inner loop.
        theta: all parameters.
        apply: (theta, "support" or "query") -> what is computed of these rows.
        query: whether `apply` is also evaluated for the query, to list its products.

    Returns:
        The plan; all tasks of a batch have the same shapes, and thus the same plan.

    Raises:
        MetarecError: the form is "factored", and the updater needs full matrices.
    """
    if loop.updater.elementwise and loop.form == "factored":
        raise MetarecError(
            "the form 'factored' was asked for, but the updater changes each element of a matrix on its own, "
            "which factors cannot follow: use the form 'auto'"
        )
    found: list[Plan] = []

    def decide() -> None:
        plan = Plan.of(
            apply,
            *partition(theta, loop.adapted),
            loop.form,
            elementwise=loop.updater.elementwise,
            constant_start=loop.order == "reptile",
            query=query,
        )
        found.append(plan)

    jax.eval_shape(decide)  # abstract: computes nothing
    return found[0]


def split(loop: Loop, theta: Params, plan: Plan, rows: Mapping[str, Fixed]) -> tuple[InnerParameters, Params]:
    """Split parameters into those of the inner loop and those that all tasks share.

    Args:
        loop: options of the inner loop.
        theta: all parameters.
        plan: forms of the adapted ones.
        rows: the fixed rows of the task, by name.

    Returns:
        The adapted parameters in their forms, and the shared part of theta.
    """
    adapted, shared = partition(theta, loop.adapted)
    return InnerParameters(adapted, plan, rows), shared


def adapt_task(
    loop: Loop,
    theta: Params,
    phi: Params,
    loss: Callable[[Params], Array],
    plan: Plan,
    rows: Mapping[str, Fixed],
    inputs: Callable[[], Inputs],
) -> inner.Path:
    """Run the inner loop of one task.

    Args:
        loop: options of the inner loop.
        theta: all parameters.
        phi: learned parameters of the updater.
        loss: theta, as a learner reads it -> loss on the support.
        plan: from `plan_task`.
        rows: the fixed rows of the task, by name.
        inputs: function that computes further inputs for the updater's start.

    Returns:
        The path; its `end` is an `Adapted`, which `adapted_theta` reads.
    """
    parameters, shared = split(loop, theta, plan, rows)
    differentiate = mixed_mode.value_and_grad if loop.backward == "mixed" else jax.value_and_grad
    path = inner.adapt(
        parameters.value_and_gradient(lambda adapted: loss(combine(adapted, shared)), differentiate),
        loop.updater,
        phi,
        parameters.start(),
        steps=loop.steps,
        order=loop.order,
        unroll=loop.unroll,
        backward=loop.backward,
        inputs=lambda: inputs()._replace(forms=plan.forms),
    )
    forms = Plan(plan.forms)
    points = None if path.points is None else Adapted(path.points, forms)
    return path._replace(end=Adapted(path.end, forms), points=points)


def adapted_theta(loop: Loop, theta: Params, adapted: Adapted, rows: Mapping[str, Fixed]) -> Params:
    """The parameters of a task after the inner loop, as a learner reads them.

    Args:
        loop: options of the inner loop.
        theta: all parameters before the inner loop.
        adapted: the end of a path.
        rows: the fixed rows of the task, by name.

    Returns:
        A tree like theta, with objects in place of matrices that are not dense.
    """
    parameters, shared = split(loop, theta, adapted.plan, rows)
    return combine(parameters.kernels(adapted.moved, order=loop.order), shared)


def left_of(loop: Loop, theta: Params, apply: Callable[[Params], Any]) -> Params:
    """Record the left operands of the adapted matrices (see `metarec_jax.meta.left_operands`).

    Args:
        loop: options of the inner loop.
        theta: all parameters.
        apply: function of theta that multiplies them.

    Returns:
        A tree like the adapted parameters.
    """
    adapted, shared = partition(theta, loop.adapted)
    return left_operands(lambda watched: apply(combine(watched, shared)), adapted)


def inputs_of_task(loop: Loop, theta: Params, loss: Callable[[Params], Array], weight: Array | None = None) -> Inputs:
    """Collect the updater's inputs about the support of one task, before the inner loop.

    Args:
        loop: options of the inner loop. The inputs are constants if its order is not "second".
        theta: all parameters.
        loss: theta -> loss on the support.
        weight: weight of each row of the support [rows]; None weights all rows of the left operands alike.

    Returns:
        The inputs.
    """
    adapted, shared = partition(theta, loop.adapted)
    left, slope = with_slopes(lambda watched: loss(combine(watched, shared)), adapted)
    if loop.order != "second":
        left, slope = jax.lax.stop_gradient((left, slope))
    if weight is None:
        rows = next(leaf for leaf in jax.tree.leaves(left) if leaf.ndim == 2)
        weight = jnp.ones(len(rows), rows.dtype)
    return Inputs(left, weight, slope)


def with_reptile(
    loop: Loop, theta: Params, adapted: Adapted, rows: Mapping[str, Fixed], lost: Array, weight: Array
) -> Array:
    """A query loss whose gradient by adapted parameters is Reptile's, where the order is "reptile".

    That gradient is minus the displacement of the inner loop times `weight` (Nichol, Achiam & Schulman 2018, arXiv
    1803.02999, algorithm 2); the value is unchanged.

    Args:
        loop: options of the inner loop.
        theta: all parameters before the inner loop.
        adapted: the end of a path.
        rows: the fixed rows of the task, by name.
        lost: the query loss [].
        weight: weight of the task [].

    Returns:
        The loss [].
    """
    if loop.order != "reptile":
        return lost
    parameters, _ = split(loop, theta, adapted.plan, rows)
    product = parameters.path_product(adapted.moved) * weight
    return lost + (jax.lax.stop_gradient(product) - product)


def first_not_finite(losses: Array, lost: Array, ignored: Array) -> Array:
    """Find the first loss of a task that is not finite.

    Args:
        losses: [steps], support loss before each inner step.
        lost: [], query loss.
        ignored: bool [], whether the task is not counted.

    Returns:
        int32 [], the first inner step whose support loss was not finite; ``steps`` if only the query loss was not
        finite, ``steps + 1`` if all losses were finite.
    """
    finite = jnp.append(jnp.isfinite(losses), jnp.isfinite(lost)) | ignored
    return jnp.where(finite.all(), len(losses) + 1, jnp.argmin(finite)).astype(jnp.int32)
