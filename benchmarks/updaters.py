"""The meta-gradient of the standard case with every updater, and in both forms where an updater has both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import harness, ours, roofline
from benchmarks.cases import SMOKE, InnerLoopCase
from benchmarks.phases import first, phases
from benchmarks.tasks import task_of
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.params import partition
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.meta.updaters import make_updater

KINDS = UPDATERS.names()
FEW: tuple[str, ...] = ("gradient", "ridge")
"""Kinds of the smallest case, since each takes seconds to compile."""
CHANGES: dict[str, dict[str, Any]] = {"ridge": {"adapted": ("output/.*",)}}


def compare(
    case: InnerLoopCase, rounds: int, reporter: Reporter = QUIET, kinds: Sequence[str] = KINDS
) -> list[harness.Row]:
    """Users per second of each rule against plain gradient steps, and of the factored form against the dense one.

    Args:
        case: the sizes.
        rounds: turns of each contender.
        reporter: shows progress.
        kinds: kinds of updaters; "gradient" must be among them.
    """
    task = task_of(case)
    programs, facts = {}, {}
    for kind in kinds:
        for form in ("factored", "dense") if not UPDATERS.get(kind).elementwise else ("auto",):
            name = f"{kind}, {form}"
            config = UpdaterConfig(kind=kind, steps=case.steps, rate=0.03, **CHANGES.get(kind, {}))
            model, trainable, tables, episodes = ours.problem(task, form)
            adapted, _ = partition(trainable.theta, config.adapted)
            updater = make_updater(config, model.head.curvature)
            model = model._replace(updater=updater, adapted=config.adapted, order=config.order)
            arguments = jax.device_put((trainable._replace(phi=updater.init(adapted)), tables, episodes))
            at_once = case.at_once if form == "factored" else case.dense_at_once
            compiled, facts[name] = phases(ours.gradient_of(model, at_once), *arguments)

            def run(compiled: Any = compiled, arguments: Any = arguments) -> Any:
                return jax.block_until_ready(compiled(*arguments))

            facts[name]["first_s"] = first(run)
            programs[name] = run
    machine = roofline.Machine(small=case == SMOKE)
    turns = [*(harness.Contender(name, run) for name, run in programs.items()), *machine.contenders()]
    seconds = harness.take_turns(turns, rounds=rounds, warmup=1, reporter=reporter, label="updaters")
    reached = roofline.reached(machine.best(seconds), facts, seconds)
    rows = []
    for name in programs:
        kind, form = name.split(", ")
        against = f"{kind}, dense" if form == "factored" else "gradient, factored"
        if name != against and form != "dense":
            pair = {name: seconds[name], against: seconds[against]}
            own = {"shape": dataclasses.asdict(case), "phases": {n: facts[n] for n in pair}}
            own["roofline"] = {n: reached[n] for n in pair}
            label = f"updater {name}, {case.name}"
            rows += harness.compare(label, pair, ours=name, work=case.users, metric="users/s", facts=own)
    return rows
