"""Few-shot regression of sinusoids, the first experiment of MAML (Finn, Abbeel & Levine 2017, section 5.1).

python -m benchmarks.sinusoid --json OUT [--plot PNG] [--iterations 70000]

A task is a sinusoid with an amplitude from 0.1 to 5 and a phase from 0 to pi, seen at 10 points from -5 to 5. A network
of two hidden layers of 40 ReLUs is meta-trained with one inner step of rate 0.01 and 25 tasks an iteration, and then
adapted with 0 to 10 steps on 5 or 10 points of 600 new tasks. The published behaviour: one step brings MAML most of the
way, further steps go on helping though training took one, and a network that was trained on all tasks at once, then
fine-tuned with the rate that is best for other tasks, stays near the mean of all tasks.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import curves
from metarec_jax import meta
from metarec_jax.core.progress import QUIET, Reporter

RATE, TASKS, POINTS, TEST_TASKS, TEST_POINTS = 0.01, 25, 10, 600, 100
STEPS = tuple(range(11))
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
"""Rates that are tried for fine-tuning."""
HIDDEN = 40
PRETRAINED = "trained on all tasks, fine-tuned"


def network(params: Any, x: Any) -> Any:
    """Outputs [points] of the network at x [points]."""
    hidden = x[:, None]
    for layer in ("first", "second"):
        hidden = jax.nn.relu(hidden @ params[layer]["kernel"] + params[layer]["bias"][None])
    return (hidden @ params["output"]["kernel"] + params["output"]["bias"][None])[:, 0]


def loss(params: Any, points: Any) -> Any:
    """Mean squared error."""
    return jnp.mean((network(params, points["x"]) - points["y"]) ** 2)


def first_params(key: Any) -> Any:
    """Initial parameters, of a third of the variance of LeCun et al.: published rates suit such a network."""
    sizes = {"first": (1, HIDDEN), "second": (HIDDEN, HIDDEN), "output": (HIDDEN, 1)}
    keys = dict(zip(sizes, jax.random.split(key, len(sizes))))
    return {
        name: {"kernel": jax.random.normal(keys[name], size) / np.sqrt(3 * size[0]), "bias": jnp.zeros(size[1])}
        for name, size in sizes.items()
    }


def draw(key: Any, tasks: int, support: int, query: int) -> meta.Tasks:
    """Tasks with points drawn at random.

    Args:
        key: the draw.
        tasks: number of tasks.
        support, query: number of points of each.
    """
    of_amplitude, of_phase, of_x = jax.random.split(key, 3)
    amplitude = jax.random.uniform(of_amplitude, (tasks, 1), minval=0.1, maxval=5.0)
    phase = jax.random.uniform(of_phase, (tasks, 1), maxval=jnp.pi)
    x = jax.random.uniform(of_x, (tasks, support + query), minval=-5.0, maxval=5.0)
    y = amplitude * jnp.sin(x - phase)
    return meta.Tasks({"x": x[:, :support], "y": y[:, :support]}, {"x": x[:, support:], "y": y[:, support:]})


def problems() -> dict[str, meta.Problem]:
    """The methods, each as it is trained."""
    descent = meta.gradient_descent(meta.Rates(RATE))
    return {
        "MAML": meta.Problem(loss, descent, steps=1),
        "first-order MAML": meta.Problem(loss, descent, steps=1, order="first"),
        "ANIL": meta.Problem(loss, descent, steps=1, adapted=("output/.*",)),
        PRETRAINED: meta.Problem(loss, descent, steps=0),
    }


def train(problem: meta.Problem, iterations: int, seed: int = 0) -> Any:
    """Take outer steps of Adam with rate 0.001 on tasks that are drawn anew each time; returns what was trained."""
    optimizer = optax.adam(1e-3)
    of_params, of_tasks = jax.random.split(jax.random.key(seed))
    step = meta.make_step(problem, optimizer)

    def one(state: Any, _: None) -> tuple[Any, None]:
        key = jax.random.fold_in(state.key, state.step)
        return step(state, draw(key, TASKS, POINTS, POINTS))[0], None

    state = meta.init_state(problem, first_params(of_params), optimizer, of_tasks)
    return jax.jit(lambda state: jax.lax.scan(one, state, None, iterations)[0])(state).trainable


def errors(rate: float, adapted: tuple[str, ...], theta: Any, tasks: meta.Tasks) -> np.ndarray:
    """Mean squared error of each task after 0 to 10 steps, [tasks, steps].

    Args:
        rate: rate of the steps.
        adapted: patterns of the parameters that adapt.
        theta: the parameters before.
        tasks: the tasks.
    """
    problem = meta.Problem(loss, meta.gradient_descent(meta.Rates(rate)), steps=1, adapted=adapted)

    @jax.jit
    def further(own: Any) -> tuple[Any, Any]:
        trainable = meta.init_state(problem, theta, optax.identity()).trainable
        step = jax.vmap(lambda own, rows: meta.adapt(problem, trainable._replace(theta=own), rows).params)
        return step(own, tasks.support), jax.vmap(loss)(own, tasks.query)

    own = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], len(tasks.support["x"]), axis=0), theta)
    found = []
    for _ in STEPS:
        own, lost = further(own)
        found.append(np.asarray(lost))
    return np.stack(found, axis=1)


def measure(iterations: int, test_tasks: int = TEST_TASKS, reporter: Reporter = QUIET) -> list[curves.Panel]:
    """Train every method, and adapt it to new tasks.

    Args:
        iterations: outer steps of each method.
        test_tasks: number of new tasks.
        reporter: shows progress.
    """

    def of_new(seed: int) -> dict[int, meta.Tasks]:
        keys = {shots: jax.random.key(seed + shots) for shots in (5, POINTS)}
        return {shots: draw(key, test_tasks, shots, TEST_POINTS) for shots, key in keys.items()}

    others, tests = of_new(2000), of_new(1000)
    found: dict[int, dict[str, np.ndarray]] = {shots: {} for shots in tests}
    for name, problem in problems().items():
        reporter.note(name)
        theta = train(problem, iterations).theta
        for shots, tasks in tests.items():
            judged = functools.partial(errors, adapted=problem.adapted, theta=theta)
            rate = RATE
            if name == PRETRAINED:
                rate = min(RATES, key=lambda rate, of=judged, shots=shots: _last(of(rate, tasks=others[shots])))
            found[shots][name] = judged(rate, tasks=tasks)
    return [curves.panel(f"{shots} points", "steps", STEPS, of_tasks) for shots, of_tasks in found.items()]


def _last(found: np.ndarray) -> float:
    """Mean error after all steps; infinite where a task diverges."""
    return float(np.nan_to_num(found[:, -1], nan=np.inf).mean())


def main(given: Sequence[str] | None = None) -> None:
    """The command line with these arguments; None takes those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--plot", type=Path, help="where to write the curves, as an image")
    parser.add_argument("--iterations", type=int, default=70_000)
    parser.add_argument("--test-tasks", type=int, default=TEST_TASKS)
    arguments = parser.parse_args(given)
    from metarec_jax.core.console import make_reporter

    unit = "mean squared error"
    panels = measure(arguments.iterations, arguments.test_tasks, make_reporter())
    facts = {"iterations": arguments.iterations, "test_tasks": arguments.test_tasks, "better": "lower"}
    if arguments.json:
        curves.write(panels, unit, facts, arguments.json)
    if arguments.plot:
        curves.figure(panels, unit, log=True).savefig(arguments.plot, dpi=110)
    document = {"panels": [found._asdict() for found in panels], "unit": unit, "facts": facts}
    print(curves.tables(document))


if __name__ == "__main__":
    main()
