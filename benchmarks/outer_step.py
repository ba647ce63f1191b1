"""One full outer step with a frozen encoder: meta-gradient, clipping and AdamW, ours against PyTorch's levels."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from benchmarks import harness, ours, rivals, roofline
from benchmarks.cases import SMOKE, InnerLoopCase
from benchmarks.phases import first, phases
from benchmarks.tasks import task_of
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import TrainState, make_step

LEVELS = {
    "(b) loop": "benchmarks.torch_reference.loop",
    "(c) torch.func": "benchmarks.torch_reference.vmapped_whole",
    "(c) torch.func in micro-batches": "benchmarks.torch_reference.vmapped",
    "(d) torch.func compiled": "benchmarks.torch_reference.compiled",
}
"""PyTorch's levels, without (a), which has no inner loop (see `benchmarks.joint`)."""
BARS = {"(b) loop": 20.0, "(c) torch.func": 20.0}
DENSE = "dense in micro-batches, JAX"
RATE, DECAY, CLIP = 3e-3, 1e-2, 1.0
TOLERANCE = 1e-2
"""Largest relative error of the first update, by norms. Adam divides by the size of each gradient, so that a gradient
of zero up to rounding gives an update as large as any: updates have larger errors than gradients (less than 1e-4).
"""


class Step(NamedTuple):
    """The package's own step, compiled.

    Attributes:
        run: takes a step, and returns its loss.
        trainable: the current parameters.
        facts: facts of the program.
        text: the program, as HLO.
    """

    run: Callable[[], float]
    trainable: Callable[[], Trainable]
    facts: dict[str, float]
    text: str


def our_step(task: rivals.Task, form: Any, at_once: int, *, compute: DTypeLike = np.float32) -> Step:
    """Compile the package's step on a task.

    Args:
        task: the batch, the same in every step.
        form: form of the inner loop.
        at_once: users of a micro-batch; 0 for all.
        compute: data type of products with rows of the table.
    """
    model, trainable, tables, episodes = ours.problem(task, form, compute=compute)
    optimiser = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=DECAY))
    state = [TrainState(trainable, optimiser.init(trainable), jnp.zeros((), jnp.int32), jax.random.key(0))]
    step = make_step(model, optimiser, at_once=at_once)
    compiled, facts = phases(step, state[0], tables, episodes, donate_argnums=0)
    state[0] = jax.tree.map(jnp.copy, state[0])  # its memory is donated to the first step

    def run() -> float:
        state[0], losses = compiled(state[0], tables, episodes)
        return float(losses.query / losses.rows)

    return Step(run, lambda: state[0].trainable, facts, compiled.as_text() or "")


def compare(case: InnerLoopCase, levels: Sequence[str], rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Users per second of whole steps; the first step of every contender is checked against ours.

    Args:
        case: the sizes.
        levels: names of PyTorch's levels, of `LEVELS`.
        rounds: turns of each contender.
        reporter: shows progress.
    """
    from benchmarks.torch_reference import outer_step as theirs

    task = task_of(case)
    step = our_step(task, "factored", case.at_once)
    run, own = step.run, step.facts
    start = {"theta": task.theta, "log_rate": task.log_rate}
    loss = [0.0]
    own["first_s"] = first(lambda: loss.__setitem__(0, run()))
    reached = jax.tree.map(np.asarray, {"theta": step.trainable().theta, "log_rate": step.trainable().phi["log_rate"]})
    way = jax.tree.map(np.subtract, reached, start)
    facts: dict[str, Any] = {"shape": dataclasses.asdict(case), "error of the first step": {}, "unavailable": {}}
    contenders = {"ours": run}
    for name in levels:
        try:
            module = __import__(LEVELS[name], fromlist=["prepare"])
            rival = theirs.step(module.prepare, task, rate=RATE, decay=DECAY, clip=CLIP)
            found = rival.run()
        except (ImportError, rivals.Unavailable) as error:
            facts["unavailable"][name] = str(error)
            reporter.note(f"{case.name}: {name} is left out: {error}")
            continue
        theta, log_rate = rival.learned()
        error = _error(jax.tree.map(np.subtract, {"theta": theta, "log_rate": log_rate}, start), way)
        if not (error < TOLERANCE and abs(found - loss[0]) < 1e-4 * abs(loss[0])):
            raise SystemExit(f"{case.name}: {name} steps elsewhere: loss {found} for {loss[0]}, way off by {error:.1e}")
        facts["error of the first step"][name] = error
        contenders[name] = rival.run
    dense, _, of_dense, _ = our_step(task, "dense", case.dense_at_once)
    of_dense["first_s"] = first(dense)
    contenders[DENSE] = dense
    facts["phases"] = {"ours": own, DENSE: of_dense}
    machine = roofline.Machine(small=case == SMOKE)
    turns = [*(harness.Contender(name, call) for name, call in contenders.items()), *machine.contenders()]
    seconds = harness.take_turns(turns, rounds=rounds, warmup=1, reporter=reporter, label=case.name)
    facts["roofline"] = roofline.reached(machine.best(seconds), facts["phases"], seconds)
    label = f"outer step, frozen, {case.name}"
    return harness.compare(label, seconds, ours="ours", work=case.users, metric="users/s", bars=BARS, facts=facts)


def trace(case: InnerLoopCase, times: int) -> list[harness.Row]:
    """Seconds of tracing, lowering, compiling and the first call of a step, and what its program needs: the factored
    form against the dense one.

    Args:
        case: the sizes.
        times: number of repetitions.
    """
    task = task_of(case)

    def made(form: str) -> dict[str, float]:
        step = our_step(task, form, case.at_once if form == "factored" else case.dense_at_once)
        return step.facts | {"first_s": first(step.run)}

    return phases_in_turns(made, times)


def phases_in_turns(made: Callable[[str], dict[str, float]], times: int) -> list[harness.Row]:
    """Compare medians of facts about the factored and the dense program, which are compiled in turns.

    The first turn is not counted, since JAX does some work once per process. FLOPs and bytes are totals over all
    iterations of all loops, as the two have micro-batches of different sizes; counts of a loop's body are left out.

    Args:
        made: "factored" or "dense" -> facts about the program, which is compiled again.
        times: number of counted turns.
    """
    taken: dict[str, list[dict[str, float]]] = {"factored": [], "dense": []}
    for turn in range(times + 1):
        for form, found in taken.items():
            facts = made(form)
            if turn:
                found.append(facts)
    rows = []
    for name in taken["dense"][0]:
        if name in ("gflop", "gbytes_accessed"):
            continue
        ours_, dense = (np.array([facts[name] for facts in taken[form]]) for form in ("factored", "dense"))
        low, median, high = (float(q) for q in np.quantile(dense / ours_, [0.05, 0.5, 0.95]))
        ratio = {"low": low, "median": median, "high": high}
        values = float(np.median(ours_)), float(np.median(dense))
        rows.append(harness.Row("tracing", "dense", name, *values, ratio, facts={"rounds": times}))
    return rows


def _error(found: Any, wanted: Any) -> float:
    square = functools.partial(jax.tree.reduce, lambda total, leaf: total + float(np.sum(np.square(leaf))))
    return (square(jax.tree.map(np.subtract, found, wanted), 0.0) / square(wanted, 0.0)) ** 0.5
