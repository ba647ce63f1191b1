"""Our meta-gradient of a task, by the package's own `meta_loss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from benchmarks.phases import first, phases
from benchmarks.rivals import MetaGradient, Task
from metarec_jax.core import flops
from metarec_jax.core.types import Episodes, Params, Prepared, Rows
from metarec_jax.learner.contract import make_head
from metarec_jax.learner.gathered_rows import multiply
from metarec_jax.meta.gram import Form
from metarec_jax.meta.model import UNROLL, Model, Trainable
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.updaters import Rates
from metarec_jax.meta.updaters.gradient import gradient_descent


class Problem(NamedTuple):
    """A task as arguments of the package's functions."""

    model: Model
    trainable: Trainable
    tables: Prepared
    episodes: Episodes


class Program(NamedTuple):
    """A compiled meta-gradient.

    Attributes:
        start: starts the computation, and returns its result, which need not be done.
        run: computes it once, and blocks until it is done.
        result: the result.
        facts: seconds of each phase, and the compiler's FLOPs, bytes and memory, with loop bodies counted once.
        text: the program, as HLO.
    """

    start: Callable[[], Any]
    run: Callable[[], Any]
    result: MetaGradient
    facts: dict[str, float]
    text: str


def problem(
    task: Task,
    form: Form,
    *,
    unroll: int = UNROLL,
    learn: bool = True,
    compute: DTypeLike = np.float32,
    kernel: int = 0,
) -> Problem:
    """The network of `Task` as a model, equal for every `form`.

    Args:
        task: the task.
        form: form of the inner loop.
        unroll: inner steps in one iteration of the compiled loop.
        learn: whether rates are learned.
        compute: data type of the table, and thus of the products with its rows.
        kernel: users of a block of the Pallas kernel; 0 leaves the inner loop to XLA.
    """
    classes, steps = len(task.offset), task.steps
    levels = tuple(float(level) for level in range(1, classes + 1))

    def apply(theta: Params, context: Any, rows: Any) -> jax.Array:
        hidden = rows.embedding @ theta["hidden"]["kernel"] + theta["hidden"]["bias"]
        hidden = jax.nn.relu(hidden) / np.sqrt(hidden.shape[-1])
        return multiply(hidden, theta["output"]["kernel"]) + theta["output"]["bias"] + task.offset

    model = Model(
        apply=apply,
        head=make_head("classes", levels=levels, low=levels[0], high=levels[-1]),
        updater=gradient_descent(Rates(fixed_rate(task), "layer-step" if learn else "no", steps)),
        adapted=("hidden/.*", "output/.*"),
        steps=steps,
        order="second",
        form=form,
        unroll=unroll,
        kernel=kernel,
    )

    def rows(ids: np.ndarray, labels: np.ndarray) -> Rows:
        ones = np.ones(ids.shape, np.float32)
        return Rows(ids, labels.astype(np.float32) + 1, ones, np.zeros((*ids.shape, 2), np.float32))

    episodes = Episodes(
        user=np.zeros(task.users, np.int32),
        support=rows(task.support_ids, task.support_labels),
        query=rows(task.query_ids, task.query_labels),
        weight=np.ones(task.users, np.float32),
    )
    trainable = Trainable(task.theta, {"log_rate": task.log_rate} if learn else {})
    tables = Prepared(items=task.table.astype(compute), users=np.zeros((1, 0), np.float32))
    return Problem(model, *jax.device_put((trainable, tables, episodes)))


def fixed_rate(task: Task) -> float:
    """The rate of a task whose rates are all equal."""
    return float(np.exp(task.log_rate["hidden"]["kernel"][0]))


def gradient_of(model: Model, at_once: int) -> Callable[[Trainable, Prepared, Episodes], Any]:
    """The function to compile; all arrays are arguments, since closed-over arrays would be constant-folded."""

    def loss(trainable: Trainable, tables: Prepared, episodes: Episodes) -> jax.Array:
        return meta_loss(model, trainable, tables, episodes, at_once=at_once)[0]

    return jax.value_and_grad(loss)


def program(task: Task, form: Form, *, at_once: int, **options: Any) -> Program:
    """Compile the meta-gradient of `task`.

    Args:
        task, form: as for `problem`.
        at_once: users of a micro-batch; 0 for all.
        **options: those of `problem`.
    """
    model, *arguments = problem(task, form, **options)
    compiled, facts = phases(gradient_of(model, at_once), *arguments)

    def start() -> Any:
        return compiled(*arguments)

    def run() -> Any:
        return jax.block_until_ready(start())

    facts["first_s"] = first(run)
    loss, gradient = jax.tree.map(np.asarray, start())
    return Program(
        start=start,
        run=run,
        result=MetaGradient(float(loss), gradient.theta, gradient.phi.get("log_rate")),
        facts={"at_once": at_once, **facts},
        text=compiled.as_text() or "",
    )


def products(task: Task, form: Form, *, at_once: int) -> float:
    """GFLOP of all matrix products of the meta-gradient, with all iterations of loops."""
    model, *arguments = problem(task, form)
    return flops.products(gradient_of(model, at_once), *arguments)


def relative_error(ours: MetaGradient, theirs: MetaGradient) -> float:
    """The largest relative error of the loss and of each array of the gradient, by norms.

    If an array of the gradient is smaller than a thousandth of the largest, its error is relative to that.
    """
    names = [name for name in ("theta", "log_rate") if getattr(theirs, name) is not None]
    pairs = [
        (left, right)
        for name in names
        for left, right in zip(jax.tree.leaves(getattr(ours, name)), jax.tree.leaves(getattr(theirs, name)))
    ]
    largest = max(float(np.linalg.norm(right)) for _, right in pairs)
    worst = abs(ours.loss - theirs.loss) / abs(theirs.loss)
    for left, right in pairs:
        size = max(float(np.linalg.norm(right)), 1e-3 * largest)
        worst = max(worst, float(jnp.linalg.norm(left - right)) / size)
    return worst
