"""Memory and time of meta-gradients in mixed mode, beside reverse over reverse mode, with and without recomputation.

python -m benchmarks.mixed_mode --json OUT

The cases: the last two layers of MiniLM adapt by gradient descent to 20 texts of each task; an MLP adapts by Adam, and
by a learned rule. Memory is that of the compiler's temporaries. Programs take turns; one that needs more than
`--most-mb` is compiled, but not run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness
from benchmarks.cases import MINILM, Shape
from metarec_jax import meta
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.encoder import Execution, init, run_layers

STEPS = (1, 5, 20)
WAYS = ("mixed", "stored", "remat")
NAMES = {"mixed": "mixed mode", "stored": "reverse over reverse", "remat": "reverse over reverse, recomputed"}
BARS = {"stored": ("temporaries_mb", 3.0), "remat": ("seconds", 1.0)}
"""Targets for adapting encoder layers with five steps."""
ENCODER = "two layers of {shape}"


class Case(NamedTuple):
    """A problem with its parameters and tasks."""

    problem: meta.Problem
    params: Any
    tasks: meta.Tasks


def encoder_layers(shape: Shape, tasks: int, support: int = 20, query: int = 10) -> Case:
    """The last two layers of an encoder adapt; the states below them are given.

    Args:
        shape: sizes of the encoder and lengths of its texts.
        tasks, support, query: sizes of the batch.
    """
    rng, config = np.random.default_rng(0), shape.config
    below = shape.layers - 2
    layers = {name: part for name, part in init(0, config).items() if name in (f"layer_{below}", f"layer_{below + 1}")}
    params = layers | {"output": {"kernel": jnp.zeros((shape.hidden, 1)), "bias": jnp.zeros(1)}}

    def rows(count: int) -> dict[str, jax.Array]:
        real = np.arange(shape.length) < rng.integers(shape.length // 2, shape.length + 1, (tasks, count, 1))
        return {
            "states": jnp.asarray(rng.normal(size=(*real.shape, shape.hidden)), jnp.float32),
            "mask": jnp.asarray(real, jnp.float32),
            "y": jnp.asarray(rng.normal(size=(tasks, count)), jnp.float32),
        }

    def loss(params: Any, rows: Any) -> jax.Array:
        options = {"first": below, "last": shape.layers, "run": Execution()}
        states = run_layers(params, config, rows["states"], rows["mask"], **options)
        weights = rows["mask"] / rows["mask"].sum(axis=1)[:, None]
        vectors = jnp.einsum("tlh,tl->th", states, weights)
        outputs = (vectors @ params["output"]["kernel"])[:, 0] + params["output"]["bias"]
        return jnp.mean((outputs - rows["y"]) ** 2) / 2

    problem = meta.Problem(loss, meta.gradient_descent(meta.Rates(0.01, "layer")), steps=1)
    return Case(problem, params, meta.Tasks(rows(support), rows(query)))


def mlp(updater: meta.Updater, tasks: int, width: int = 768, hidden: int = 128, rows: int = 20) -> Case:
    """An MLP adapts by a rule that needs matrices in full.

    Args:
        updater: the rule.
        tasks, width, hidden, rows: the sizes.
    """
    rng = np.random.default_rng(0)

    def normal(*size: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=size) / np.sqrt(size[-2] if len(size) == 2 else 1), jnp.float32)

    def loss(params: Any, rows: Any) -> jax.Array:
        hidden = jax.nn.relu(rows["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
        return jnp.mean(((hidden @ params["output"]["kernel"])[:, 0] - rows["y"]) ** 2) / 2

    params = {
        "hidden": {"kernel": normal(width, hidden), "bias": jnp.zeros(hidden)},
        "output": {"kernel": normal(hidden, 1)},
    }
    sides = [{"x": normal(tasks, rows, width), "y": normal(tasks, rows)} for _ in range(2)]
    return Case(meta.Problem(loss, updater, steps=1), params, meta.Tasks(sides[0], sides[1]))


def cases(small: bool = False) -> dict[str, Case]:
    """The cases by name, or their smallest sizes."""
    shape = Shape("a tiny encoder", 16, 2, 2, 4, 8) if small else MINILM
    adam = meta.optax_rule(optax.scale_by_adam(eps_root=1e-8), meta.Rates(0.01, "layer"))
    learned = meta.learned_rule(meta.Rates(0.01, "layer"))
    sizes = {"width": 16, "hidden": 8, "rows": 4} if small else {}
    return {
        ENCODER.format(shape=shape.name): encoder_layers(shape, 2 if small else 1),
        "an MLP, Adam": mlp(adam, 2 if small else 32, **sizes),
        "an MLP, learned rule": mlp(learned, 2 if small else 8, **sizes),
    }


def compare(
    found: dict[str, Case], steps: Sequence[int], rounds: int, most_mb: float, reporter: Reporter = QUIET
) -> list[harness.Row]:
    """Compile and time every way of every case.

    Args:
        found: the cases.
        steps: numbers of inner steps.
        rounds: turns of each program.
        most_mb: programs with more temporaries are not run.
        reporter: shows progress.
    """
    rows = []
    for name, case in found.items():
        for count in steps:
            reporter.note(f"{name}, {count} steps")
            programs, memory = {}, {}
            for way in WAYS:
                program, memory[way] = compiled(case, count, way)
                if memory[way] <= most_mb:
                    programs[way] = program
            turns = [harness.Contender(way, run) for way, run in programs.items()]
            options = {"rounds": rounds, "warmup": 1, "reporter": reporter, "label": name}
            seconds = harness.take_turns(turns, **options) if turns else {}
            barred = count == 5 and case.problem.loss.__qualname__.startswith("encoder_layers")
            for way in WAYS[1:]:
                bars = {metric: bar for metric, bar in [BARS[way]] if barred}
                ratio = harness.flat(memory[way] / memory["mixed"])
                label, against = f"{name}, {count} steps", NAMES[way]
                rows.append(
                    harness.Row(
                        label,
                        against,
                        "temporaries_mb",
                        memory["mixed"],
                        memory[way],
                        ratio,
                        bars.get("temporaries_mb"),
                    )
                )
                if way in seconds and "mixed" in seconds:
                    pair = {NAMES[w]: seconds[w] for w in ("mixed", way)}
                    bar = {against: bars["seconds"]} if "seconds" in bars else None
                    rows += harness.compare(label, pair, ours=NAMES["mixed"], work=1, metric="gradients/s", bars=bar)
    return rows


def compiled(case: Case, steps: int, backward: Any) -> tuple[Callable[[], Any], float]:
    """The meta-gradient of a case as a function, and MB of its temporaries.

    Args:
        case: the case.
        steps: number of inner steps.
        backward: way of differentiation.
    """
    problem = case.problem._replace(steps=steps, backward=backward)
    trainable = meta.init_state(problem, case.params, optax.identity()).trainable
    program = jax.jit(lambda *at: meta.meta_gradient(problem, *at)).lower(trainable, case.tasks).compile()
    memory = program.memory_analysis()
    assert memory is not None
    return lambda: jax.block_until_ready(program(trainable, case.tasks)), memory.temp_size_in_bytes / 1e6


def main(given: Sequence[str] | None = None) -> None:
    """The command line with these arguments; None takes those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--most-mb", type=float, default=3000)
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes")
    arguments = parser.parse_args(given)
    from metarec_jax.core.console import make_reporter

    rows = []
    for name, case in cases(arguments.smoke).items():
        rows += compare({name: case}, arguments.steps, arguments.rounds, arguments.most_mb, make_reporter())
        if arguments.json:  # what is measured so far
            harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
