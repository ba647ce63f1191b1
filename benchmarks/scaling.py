"""How the cost grows: with users, support, inner steps, hidden size, length of texts, and devices of one machine.

python -m benchmarks.scaling --devices N      one point of the last curve, in a process that sees N devices
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.cases import STANDARD, InnerLoopCase
from metarec_jax.progress import QUIET, Reporter

CURVES: Mapping[str, tuple[int, ...]] = {
    "users": (32, 128, 512, 1024),
    "support": (5, 10, 20, 45, 90),
    "steps": (1, 2, 5, 10),
    "hidden": (32, 64, 128, 256, 512),
}
LENGTHS = (16, 32, 64, 128)
DEVICES = (1, 2, 4, 8)


def curve(what: str, unit: str, works: Mapping[int, float], seconds: Mapping[int, np.ndarray], **facts: Any) -> Any:
    """A curve as a row: the last point against the first, and every point among its facts."""
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
        facts={"curve": what, "unit": f"{unit}/s", "points": points, **facts},
    )


def inner_loop(
    what: str, values: tuple[int, ...], rounds: int, reporter: Reporter = QUIET, case: InnerLoopCase = STANDARD
) -> Any:
    """The meta-gradient of the standard case with another number of users, support rows, steps or hidden features."""
    from benchmarks import ours
    from benchmarks.tasks import task_of

    cases = {value: dataclasses.replace(case, **{what: value}) for value in values}
    programs = {v: ours.program(task_of(c), "factored", at_once=min(c.at_once, c.users)) for v, c in cases.items()}
    seconds = _turns(programs, lambda program: program.run, rounds, what, reporter)
    works = {value: float(c.users) for value, c in cases.items()}
    facts = {str(value): program.facts for value, program in programs.items()}
    return curve(what, "users", works, seconds, phases=facts)


def length(lengths: tuple[int, ...], rounds: int, reporter: Reporter = QUIET, smoke: bool = False) -> Any:
    """The encoder, forward, on texts of so many tokens."""
    import jax

    from benchmarks.encoder import MINILM, SMOKE, batch_of
    from benchmarks.phases import phases
    from metarec_jax.encoder import encode, init

    shape = SMOKE if smoke else MINILM
    params = init(jax.random.key(0), shape.config)
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
    """The outer step with its users over so many devices that one machine stands for."""
    seconds, works = {}, {}
    with reporter.bar("devices", len(counts)) as advance:
        for done, count in enumerate(counts, 1):
            flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
            command = [sys.executable, "-m", "benchmarks.scaling", "--devices", str(count), "--rounds", str(rounds)]
            environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
            made = subprocess.run(
                command + ["--smoke"] * smoke, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            seconds[count] = np.array(json.loads(made.stdout.splitlines()[-1]))
            works[count] = float(_sharded_case(smoke).users)
            advance(done)
    return curve("devices", "users", works, seconds, note="devices of one machine share its processors")


def _sharded_case(smoke: bool) -> InnerLoopCase:
    if smoke:
        return InnerLoopCase("smoke", users=8, support=3, query=2, features=16, hidden=8, steps=2)
    return dataclasses.replace(STANDARD, at_once=0)


def _of_devices(count: int, rounds: int, smoke: bool) -> list[float]:
    import jax

    from benchmarks import ours
    from benchmarks.tasks import task_of
    from metarec_jax.sharding import replicate, shard_users, user_mesh

    model, trainable, tables, episodes = ours.problem(task_of(_sharded_case(smoke)), "factored")
    mesh = user_mesh(count)
    fixed, on_mesh = replicate(mesh, (trainable, tables)), shard_users(mesh, jax.device_get(episodes))
    program = jax.jit(ours.gradient_of(model, 0))
    with jax.set_mesh(mesh):
        turn = harness.Contender("step", lambda: jax.block_until_ready(program(*fixed, on_mesh)))
        return harness.take_turns([turn], rounds=rounds)["step"].tolist()


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(_of_devices(arguments.devices, arguments.rounds, arguments.smoke)))


if __name__ == "__main__":
    main()
