"""Compilation of a step for a target, and estimates of its cost."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from metarec_jax.train.aot import hlo
from metarec_jax.train.aot.targets import Target, devices
from metarec_jax.train.aot.workload import Turns, Workload, step_of
from metarec_jax.train.sharding import user_mesh

OWN_LOOPS = ("embed/", "pull_back/")
"""Scopes of the loops over chunks of texts, whose iterations depend on the batch."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimates for a program that was compiled for a target, per device and step; None where there is no figure.

    Attributes:
        target: name of the target.
        chips: number of devices of the program.
        fits: whether the program fits in the memory of each device.
        why: the compiler's message where it does not fit.
        users: users of a step, on all devices.
        peak_memory, arguments, temporaries: bytes. (These three, FLOPs and collectives are facts.)
        flops: FLOPs of matrix products, with all iterations of loops.
        bytes: bytes from and to main memory.
        collectives: kind -> calls and bytes.
        cycles: the compiler's estimate, without collectives.
        seconds: `cycles` at the chip's clock.
        memory_seconds, link_seconds: time of bytes and collectives at the published bandwidths.
        intensity, ridge: FLOPs per byte of the program, and at the ridge point of the chip's roofline.
        utilisation: share of `seconds` that the matrix units need for these FLOPs at their peak.
        users_per_second: users divided by the largest of the three times.
        compile_seconds: time of compilation.
        level: level of optimisation; cycles are comparable only within one level.
        guessed: number of loops with unknown iterations, which are counted once.
    """

    target: str
    chips: int
    fits: bool
    users: int
    level: str
    why: str = ""
    peak_memory: int | None = None
    arguments: int | None = None
    temporaries: int | None = None
    flops: float | None = None
    bytes: float | None = None
    collectives: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    cycles: float | None = None
    seconds: float | None = None
    memory_seconds: float | None = None
    link_seconds: float | None = None
    intensity: float | None = None
    ridge: float | None = None
    utilisation: float | None = None
    users_per_second: float | None = None
    compile_seconds: float | None = None
    guessed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object."""
        return dataclasses.asdict(self)


def estimate(work: Workload, target: Target, *, level: str = "", keep: Callable[[str], Any] | None = None) -> Estimate:
    """Compile an outer step for a target.

    Args:
        work: the step.
        target: the target.
        level: "O1" compiles about three times as fast as "", the default, with the same FLOPs and collectives.
        keep: called with the text of the compiled program.

    Returns:
        The estimates.

    Raises:
        MetarecError: the compiler of the target is not installed, or the work cannot be split over its devices.
    """
    chips = work.config.train.devices if target.family == "here" else 0
    mesh = user_mesh(chips, work.config.train.shards, among=devices(target))
    step, arguments, turns = step_of(work, mesh, target.chip.memory if target.chip else 0)
    with jax.set_mesh(mesh):
        lowered = step.trace(*arguments).lower()
    users = len(arguments[-1].weight)
    return compiled_for(target, lowered, chips=mesh.size, users=users, turns=turns, level=level, keep=keep)


def compiled_for(
    target: Target,
    lowered: Any,
    *,
    chips: int,
    users: int,
    turns: Turns = MappingProxyType({}),
    level: str = "",
    keep: Callable[[str], Any] | None = None,
) -> Estimate:
    """Compile a lowered program, and analyse it.

    Args:
        target: target of the lowered program.
        lowered: ``jit(...).lower(...)``.
        chips: number of devices of the program.
        users: users of a step, on all devices.
        turns: iterations of the loops over chunks of texts, by their scopes.
        level, keep: as for `estimate`.

    Returns:
        The estimates.
    """
    base = Estimate(target.name, chips, fits=True, users=users, level=level or "default")
    started = time.perf_counter()
    try:
        with _compiling(level):
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return dataclasses.replace(
            base, fits=False, why=_shortage(str(error)), compile_seconds=time.perf_counter() - started
        )
    seconds = time.perf_counter() - started
    text = compiled.as_text() or ""
    if keep is not None:
        keep(text)
    found = read(base, compiled.memory_analysis(), hlo.tally(text, _turns(turns)), target)
    return dataclasses.replace(found, compile_seconds=seconds)


def read(base: Estimate, memory: Any, tally: hlo.Tally, target: Target) -> Estimate:
    """Complete an estimate with figures from the compiled program.

    Args:
        base: estimate without these figures.
        memory: memory analysis of the compiled program.
        tally: operations of the compiled program.
        target: its chip's published figures are read.

    Returns:
        The estimate.
    """
    chip = target.chip
    peak = memory.peak_memory_in_bytes or (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    sent = sum(tally.sent.values())
    found = dataclasses.replace(
        base,
        peak_memory=peak,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        flops=tally.flops,
        bytes=tally.bytes,
        collectives={k: {"calls": tally.calls[k], "bytes": tally.sent[k]} for k in sorted(tally.calls)},
        cycles=tally.cycles or None,
        intensity=tally.flops / tally.bytes if tally.bytes else None,
        guessed=tally.guessed,
    )
    if chip is None:
        return found
    seconds = chip.seconds(tally.cycles) if tally.cycles else tally.seconds or None
    times = [tally.flops / chip.flops, tally.bytes / chip.bandwidth, seconds or 0.0]
    link = link_seconds(tally, base.chips, chip.link)
    return dataclasses.replace(
        found,
        # The GPU compiler does not check memory.
        fits=peak <= chip.memory,
        why="" if peak <= chip.memory else f"{peak / 1e9:.1f} GB are needed, and the chip has {chip.memory / 1e9:.1f}",
        seconds=seconds,
        memory_seconds=times[1],
        link_seconds=link if sent else 0.0,
        ridge=chip.ridge,
        utilisation=times[0] / seconds if seconds else None,
        users_per_second=base.users / (max(times) + link),
    )


def link_seconds(tally: hlo.Tally, chips: int, link: float) -> float:
    """Time of all collectives on a ring of devices, at the published link bandwidth, without overlap with computation.

    Each of `n` devices sends ``(n - 1) / n`` of the gathered or scattered bytes, and twice that of summed bytes.

    Args:
        tally: operations of the compiled program.
        chips: number of devices.
        link: bandwidth of a chip's links, in bytes per second.

    Returns:
        Seconds.
    """
    share = (chips - 1) / chips
    return sum((2 if kind == "all-reduce" else 1) * share * sent for kind, sent in tally.sent.items()) / link


def _turns(turns: Turns) -> hlo.Turns:
    def of_loop(path: str) -> int | None:
        if not any(scope in path for scope in OWN_LOOPS):
            return None
        return next((number for scope, number in turns.items() if f"/{scope}/" in path), None)

    return of_loop


def _shortage(message: str) -> str:
    """Required and available memory, from the compiler's error message."""
    found = re.search(r"Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) (hbm|vmem)", message)
    if found:
        return f"{found[1]} of {found[2]} {found[3].upper()} are needed"
    return message.splitlines()[0][:200]


@contextlib.contextmanager
def _compiling(level: str) -> Iterator[None]:
    """Set the level, and disable the compilation cache, which has no key for absent devices."""
    changes = {"jax_enable_compilation_cache": False} | ({"jax_optimization_level": level} if level else {})
    before = {name: jax.config.values[name] for name in changes}
    try:
        for name, value in changes.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # the cache reads the option only once
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
