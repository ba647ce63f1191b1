"""A program on its way from Python to a result: each phase timed on its own, and what the compiler says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax


def phases(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, dict[str, float]]:
    """Compiles `function` for these arguments; `options` are those of `jax.jit`.

    Returns:
        The compiled program, and seconds of tracing, lowering and compiling with `figures`.
    """
    marks = [time.perf_counter()]

    def lap(value: Any) -> Any:
        marks.append(time.perf_counter())
        return value

    traced = lap(jax.jit(function, **options).trace(*arguments))
    lowered = lap(traced.lower())
    compiled = lap(lowered.compile())
    names = ("trace_s", "lower_s", "compile_s")
    seconds = {name: after - before for name, before, after in zip(names, marks, marks[1:])}
    return compiled, {**seconds, **figures(compiled)}


def figures(compiled: Any) -> dict[str, float]:
    """What the compiler says of a program; a loop's body counts once, however often it is run."""
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    nan = float("nan")
    peak = nan
    if memory:
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        peak = (held + memory.temp_size_in_bytes) / 1e6
    return {
        "gflop": cost.get("flops", nan) / 1e9,
        "gbytes_accessed": cost.get("bytes accessed", nan) / 1e9,
        "temporaries_mb": memory.temp_size_in_bytes / 1e6 if memory else nan,
        "peak_mb": peak,
    }


def first(run: Callable[[], Any]) -> float:
    """Seconds of the first call of what is compiled."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
