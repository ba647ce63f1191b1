"""Cost by users, support, inner steps, hidden size, length of texts, and number of devices of one machine.

python -m benchmarks.scaling --devices N      steps of the last curve, in a process with N devices
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.cases import MINILM, SMOKE_SHAPE, STANDARD, InnerLoopCase, batch_of
from metarec_jax.core.progress import QUIET, Reporter

CURVES: Mapping[str, tuple[int, ...]] = {
    "users": (32, 128, 512, 1024),
    "support": (5, 10, 20, 45, 90),
    "steps": (1, 2, 5, 10),
    "hidden": (32, 64, 128, 256, 512),
}
LENGTHS = (16, 32, 64, 128)
DEVICES = (1, 2, 4, 8)


def curve(what: str, unit: str, works: Mapping[int, float], seconds: Mapping[int, np.ndarray], **facts: Any) -> Any:
    """Make a row that compares the last point of a curve with the first, with all points among its facts.

    Args:
        what: the variable of the curve.
        unit: unit of the work.
        works: units of work in one turn, by value of the variable.
        seconds: seconds of each turn, by value of the variable.
        **facts: of the row.
    """
    points = [
        {
            what: at,
            f"{unit}/s": works[at] / float(np.median(taken)),
            "low": works[at] / float(np.quantile(taken, 0.95)),
            "high": works[at] / float(np.quantile(taken, 0.05)),
        }
        for at, taken in seconds.items()
    ]
    few, many = min(seconds), max(seconds)
    ratio = (works[many] / seconds[many]) / (works[few] / seconds[few])
    low, median, high = (float(q) for q in np.quantile(ratio, [0.05, 0.5, 0.95]))
    return harness.Row(
        f"scaling, {what} {few} to {many}",
        f"{what} {few}",
        f"{unit}/s",
        points[-1][f"{unit}/s"],
        points[0][f"{unit}/s"],
        {"low": low, "median": median, "high": high},
        facts={"curve": what, "unit": f"{unit}/s", "points": points, "rounds": len(ratio), **facts},
    )


def inner_loop(
    what: str, values: tuple[int, ...], rounds: int, reporter: Reporter = QUIET, case: InnerLoopCase = STANDARD
) -> Any:
    """Curve of the meta-gradient over users, support rows, inner steps or hidden features.

    Args:
        what: the field of the case that varies.
        values: values of the field.
        rounds: turns of each contender.
        reporter: shows progress.
        case: the other sizes.
    """
    from benchmarks import ours
    from benchmarks.tasks import task_of

    changes: list[dict[str, Any]] = [{what: value} for value in values]
    cases = {value: dataclasses.replace(case, **change) for value, change in zip(values, changes)}
    programs = {v: ours.program(task_of(c), "factored", at_once=min(c.at_once, c.users)) for v, c in cases.items()}
    seconds = _turns(programs, lambda program: program.run, rounds, what, reporter)
    works = {value: float(c.users) for value, c in cases.items()}
    facts = {str(value): program.facts for value, program in programs.items()}
    return curve(what, "users", works, seconds, phases=facts)


def length(lengths: tuple[int, ...], rounds: int, reporter: Reporter = QUIET, smoke: bool = False) -> Any:
    """Curve of the encoder's forward pass over the length of texts in tokens."""
    import jax

    from benchmarks.phases import phases
    from metarec_jax.encoder import encode, init

    shape = SMOKE_SHAPE if smoke else MINILM
    params = init(0, shape.config)
    programs, facts, works = {}, {}, {}
    for tokens in lengths:
        one = dataclasses.replace(shape, length=tokens)
        batch = jax.device_put(batch_of(one))
        config = one.config
        program, facts[str(tokens)] = phases(lambda p, t, c=config: encode(p, c, t, normalise=True), params, batch)
        programs[tokens] = lambda program=program, batch=batch: jax.block_until_ready(program(params, batch))
        works[tokens] = float(one.texts)
    seconds = _turns(programs, lambda run: run, rounds, "length", reporter)
    return curve("length", "texts", works, seconds, phases=facts)


def devices(counts: tuple[int, ...], rounds: int, reporter: Reporter = QUIET, smoke: bool = False) -> Any:
    """Curve of the outer step over the number of devices, simulated by one machine.

    The number of devices is fixed when JAX starts, so each number has a separate process, which takes steps on request.
    """
    works = {count: float(_sharded_case(smoke).users) for count in counts}
    with contextlib.ExitStack() as stack:
        steps = {count: stack.enter_context(_process(count, smoke)) for count in counts}
        seconds = _turns(steps, lambda step: step, rounds, "devices", reporter)
    return curve("devices", "users", works, seconds, note="devices of one machine share its processors")


@contextlib.contextmanager
def _process(count: int, smoke: bool) -> Iterator[Callable[[], None]]:
    """Start a process with a number of devices; yields a function that lets it take one step and waits for it."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
    command = [sys.executable, "-m", "benchmarks.scaling", "--devices", str(count), *["--smoke"] * smoke]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:

        def step() -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            if not process.stdout.readline():
                raise SystemExit(f"the process with {count} devices ended")

        yield step


def _sharded_case(smoke: bool) -> InnerLoopCase:
    if smoke:
        return InnerLoopCase("smoke", users=8, support=3, query=2, features=16, hidden=8, steps=2)
    return dataclasses.replace(STANDARD, at_once=0)


def _of_devices(count: int, smoke: bool) -> None:
    """Take a step for every line on stdin, and print a line after each."""
    import jax

    from benchmarks import ours
    from benchmarks.tasks import task_of
    from metarec_jax.train.sharding import replicate, shard_users, user_mesh

    model, trainable, tables, episodes = ours.problem(task_of(_sharded_case(smoke)), "factored")
    mesh = user_mesh(count)
    fixed, on_mesh = replicate(mesh, (trainable, tables)), shard_users(mesh, jax.device_get(episodes))
    program = jax.jit(ours.gradient_of(model, 0))
    with jax.set_mesh(mesh):
        for _ in sys.stdin:
            jax.block_until_ready(program(*fixed, on_mesh))
            print("done", flush=True)


def _turns(
    programs: Mapping[int, Any], call: Callable[[Any], Callable[[], Any]], rounds: int, label: str, reporter: Reporter
) -> dict[int, np.ndarray]:
    contenders = [harness.Contender(str(value), call(program)) for value, program in programs.items()]
    taken = harness.take_turns(contenders, rounds=rounds, reporter=reporter, label=label)
    return {int(value): seconds for value, seconds in taken.items()}


def main() -> None:
    """The command line of one point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    _of_devices(arguments.devices, arguments.smoke)


if __name__ == "__main__":
    main()
