"""Goodput: what the seconds of a training were spent on, and the share of a chip's speed that its steps reach.

Seconds are those of this process, on the host. Losses are fetched one step later, so that a host which waits for the
devices counts as taking steps, and so does one that waits for a batch while the devices compute the step before: data
is waited for where the devices have nothing to do. Compilations are told by JAX, in whatever phase they happen. After a
kill, the steps after the checkpoint that the training resumes from are taken again: ``goodput.json`` in the run folder
tells how many were lost. It is written at each evaluation, and every `EVERY` seconds in between.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metarec_jax.core import processes
from metarec_jax.core.atomic_files import write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.flops import products_of_jaxpr
from metarec_jax.core.json_files import read_json
from metarec_jax.train.aot.chips import peak_flops

PHASES = {
    "start_up": "start-up",
    "compiling": "compiling",
    "data": "waiting for data",
    "steps": "steps",
    "saving": "saving",
    "evaluating": "evaluating",
    "lost": "lost steps",
}
"""Name of a phase in files -> name for people."""
EVERY = 10.0
"""Seconds between two writes of ``goodput.json`` while steps are taken."""
_COMPILING = {
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
}

Gather = Callable[[float], Sequence[float]]
"""A number of this process -> the numbers of all processes, by process index."""


def of_all_processes(number: float) -> Sequence[float]:
    """The numbers of all processes of a training; each calls it."""
    return [float(text) for text in processes.everyone("seconds", repr(number))]


class Goodput:
    """A clock that counts each second of a training to one of the `PHASES`.

    The phases follow each other in the thread that made the clock; `enter` begins the next one.

    Args:
        began: `time.perf_counter` at the start of the training; None is now.
        gather: numbers of all processes, for the slowest one.
        peak: FLOPs per second of a device; None looks up the first device; there is no utilisation where it is unknown.

    Attributes:
        step: number of steps taken in the run.
    """

    def __init__(
        self, *, began: float | None = None, gather: Gather = of_all_processes, peak: float | None = None
    ) -> None:
        self._gather, self._peak = gather, peak
        self._thread = threading.get_ident()
        self._phase, self._since = "start_up", time.perf_counter() if began is None else began
        self._compiled: list[tuple[float, float]] = []
        self._flops_of: dict[Any, float] = {}
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self.step = self._lost_steps = 0
        self._users = self._flops = 0.0
        self._marked = (dict(self._seconds), 0.0)
        self._path: Path | None = None
        self._written = -math.inf

    def __enter__(self) -> Goodput:
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: Any) -> None:
        """Note a compilation of this thread; one within another one is part of it."""
        if event not in _COMPILING or threading.get_ident() != self._thread:
            return
        now = time.perf_counter()
        start = max(now - duration_secs, self._since)
        while self._compiled and self._compiled[-1][0] >= start:
            self._compiled.pop()
        self._compiled.append((start, now))

    def enter(self, phase: str) -> None:
        """Count the seconds from now on to a phase, a key of `PHASES`."""
        now, compiled = time.perf_counter(), sum(end - start for start, end in self._compiled)
        self._seconds[self._phase] += now - self._since - compiled
        self._seconds["compiling"] += compiled
        self._compiled.clear()
        self._phase, self._since = phase, now

    def computed_meanwhile(self) -> None:
        """Count the seconds since the last `enter` to the steps, since the devices computed one all this time."""
        self._phase = "steps"

    def resume(self, path: Path, step: int) -> None:
        """Add the seconds of the processes that trained in this folder before, and count the steps that were lost.

        Args:
            path: ``goodput.json`` of the run. A file that is missing or damaged counts nothing.
            step: step that the training continues from; 0 for a new one.
        """
        self._path, self.step = path, step
        found = _read(path)
        if found is None:
            return
        again = max(found["step"] - step, 0)
        share = again / found["step"] if again else 0.0
        repeated = share * found["seconds"]["steps"]
        for phase, seconds in found["seconds"].items():
            self._seconds[phase] += seconds
        self._seconds["steps"] -= repeated
        self._seconds["lost"] += repeated
        self._lost_steps = found["lost_steps"] + again
        self._users, self._flops = found["users"] * (1 - share), found["flops"] * (1 - share)
        self._marked = (dict(self._seconds), self._flops)

    def count(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Count the FLOPs of a step that is about to be taken, if the speed of the device is known.

        Args:
            step: the jitted step.
            *arguments: its arguments.
        """
        if self._peak is None:
            self._peak = peak_flops(jax.devices()[0].device_kind) or 0.0
        if self._peak and hasattr(step, "trace"):
            shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(arguments))
            if shapes not in self._flops_of:
                self._flops_of[shapes] = products_of_jaxpr(step.trace(*arguments).jaxpr.jaxpr)
            self._flops += self._flops_of[shapes]

    def took(self, step: int, users: int) -> None:
        """Record a step.

        Args:
            step: number of steps taken, with this one.
            users: number of users of its batch.
        """
        self.step, self._users = step, self._users + users
        if time.perf_counter() - self._written > EVERY:
            self.write()

    def line(self) -> dict[str, Any]:
        """The entries of the next line of metrics: seconds since the last one by phase, and what follows from them."""
        self.enter(self._phase)
        before, flops_before = self._marked
        self._marked = (dict(self._seconds), self._flops)
        seconds = {phase: now - before[phase] for phase, now in self._seconds.items()}
        found: dict[str, Any] = {"seconds": {phase: round(spent, 3) for phase, spent in seconds.items() if spent > 0}}
        utilisation = self._utilisation(self._flops - flops_before, seconds["steps"])
        if utilisation is not None:
            found["model_flop_utilisation"] = utilisation
        return found | self._slowest(seconds["data"])

    def summary(self) -> dict[str, Any]:
        """Totals of the run, over all processes that trained in its folder one after another.

        Returns:
            ``seconds`` by phase and in ``total``; ``lost_steps``; ``users_per_second`` of all seconds; ``goodput``, the
            share of steps in all seconds; ``model_flop_utilisation`` where the device is known; and with several
            processes ``slowest_process``, the one that waited longest for data.
        """
        self.enter(self._phase)
        total = sum(self._seconds.values())
        utilisation = self._utilisation(self._flops, self._seconds["steps"])
        return {
            "seconds": {phase: round(spent, 3) for phase, spent in self._seconds.items()} | {"total": round(total, 3)},
            "lost_steps": self._lost_steps,
            "users_per_second": round(self._users / total, 1),
            "goodput": round(self._seconds["steps"] / total, 4),
            **({} if utilisation is None else {"model_flop_utilisation": utilisation}),
            **self._slowest(self._seconds["data"]),
        }

    def write(self) -> None:
        """Write ``goodput.json``, from which `resume` continues; of several processes the first one writes it."""
        if self._path is None or jax.process_index():
            return
        self.enter(self._phase)
        record = {
            "step": self.step,
            "lost_steps": self._lost_steps,
            "users": self._users,
            "flops": self._flops,
            "seconds": self._seconds,
        }
        write_text(self._path, json.dumps(record, indent=1) + "\n")
        self._written = time.perf_counter()

    def _utilisation(self, flops: float, seconds: float) -> float | None:
        if not self._peak or not flops or seconds <= 0:
            return None
        return round(flops / (seconds * self._peak * jax.device_count()), 6)

    def _slowest(self, seconds: float) -> dict[str, Any]:
        of_processes = list(self._gather(seconds))
        if len(of_processes) == 1:
            return {}
        index = int(np.argmax(of_processes))
        return {"slowest_process": {"process": index, "data": round(float(of_processes[index]), 3)}}


def sentence(summary: Mapping[str, Any]) -> str:
    """Format the result of `Goodput.summary` as a line of text."""
    seconds = summary["seconds"]
    spent = ", ".join(f"{name} {seconds[phase]:.1f} s" for phase, name in PHASES.items() if seconds[phase] >= 0.05)
    text = f"{seconds['total']:.1f} s: {spent}; goodput {100 * summary['goodput']:.0f} %"
    if summary["users_per_second"]:
        text += f", {summary['users_per_second']:,.0f} users/s"
    if summary["lost_steps"]:
        text += f", {summary['lost_steps']:,} steps taken again"
    if "model_flop_utilisation" in summary:
        text += f", model FLOP utilisation {100 * summary['model_flop_utilisation']:.2g} %"
    if slowest := summary.get("slowest_process"):
        text += f"; process {slowest['process']} waited longest for data, {slowest['data']:.1f} s"
    return text


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a ``goodput.json``; None if it is missing or damaged."""
    try:
        found = read_json(path)
        numbers = {name: float(found[name]) for name in ("step", "lost_steps", "users", "flops")}
        seconds = {phase: float(found["seconds"][phase]) for phase in PHASES}
    except (MetarecError, LookupError, TypeError, ValueError):
        return None
    if min(*numbers.values(), *seconds.values()) < 0:
        return None
    whole = {name: int(numbers[name]) for name in ("step", "lost_steps")}
    return {**numbers, **whole, "seconds": seconds}
