"""Phases of a program from Python to a result, each timed separately, and the compiler's figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from metarec_jax.core.compile_cache import compiled_anew
from metarec_jax.core.flops import products_of_jaxpr
from metarec_jax.train.aot.hlo import Turns, tally

WORK = ("gflop_of_products", "gbytes_moved")
"""Facts that are summed over programs."""


def phases(
    function: Callable[..., Any], *arguments: Any, turns: Turns = lambda path: None, **options: Any
) -> tuple[Any, dict[str, float]]:
    """Compile `function` for these arguments, without the cache on disk; `options` are those of `jax.jit`.

    Returns:
        The compiled program; seconds of tracing, lowering and compiling with `figures`, and with `work`.
    """
    with compiled_anew():
        return _phases(jax.jit(function, **options), arguments, {}, turns)


def _phases(
    function: Any, arguments: Sequence[Any], options: Mapping[str, Any], turns: Turns
) -> tuple[Any, dict[str, float]]:
    marks = [time.perf_counter()]

    def lap(value: Any) -> Any:
        marks.append(time.perf_counter())
        return value

    traced = lap(function.trace(*arguments, **options))
    lowered = lap(traced.lower())
    compiled = lap(lowered.compile())
    names = ("trace_s", "lower_s", "compile_s")
    seconds = {name: after - before for name, before, after in zip(names, marks, marks[1:])}
    return compiled, {**seconds, **figures(compiled), **work(traced, compiled, turns)}


def work(traced: Any, compiled: Any, turns: Turns = lambda path: None) -> dict[str, float]:
    """GFLOP of the products of a traced program, and GB that its compiled form transfers.

    All iterations of loops count; `turns` gives those of loops that depend on data, by path.
    """
    return {
        "gflop_of_products": float(products_of_jaxpr(traced.jaxpr.jaxpr, turns)) / 1e9,
        "gbytes_moved": tally(compiled.as_text() or "", turns).bytes / 1e9,
    }


class Watched:
    """A jitted function that counts its calls, and measures each of its programs separately.

    Attributes:
        programs: for each shape of the arguments, the calls so far and the facts of the program.
        texts: texts of these programs, as HLO.
    """

    def __init__(self, function: Any):
        self._function = function
        self.programs: dict[Any, tuple[int, dict[str, float]]] = {}
        self.texts: list[str] = []

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        leaves, tree = jax.tree.flatten((arguments, options))
        shapes = (tree, *((leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else leaf for leaf in leaves))
        if shapes not in self.programs:
            with compiled_anew():
                compiled, facts = _phases(self._function, arguments, options, lambda path: None)
            self.programs[shapes] = (0, facts)
            self.texts.append(compiled.as_text() or "")
        calls, facts = self.programs[shapes]
        self.programs[shapes] = (calls + 1, facts)
        return self._function(*arguments, **options)

    def start_over(self) -> None:
        """Reset the counts of calls; known programs are kept."""
        self.programs = {shapes: (0, facts) for shapes, (_, facts) in self.programs.items()}


def together(programs: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Combine the facts of several programs with numbers of calls: work per call, seconds and code sizes once, and the
    largest memory."""
    found: dict[str, float] = {}
    for calls, facts in programs:
        for name, value in facts.items():
            if name.endswith("_mb"):
                found[name] = max(found.get(name, 0.0), value)
            else:
                found[name] = found.get(name, 0.0) + value * (calls if name in WORK else 1)
    return found


def figures(compiled: Any) -> dict[str, float]:
    """The compiler's figures of a program; a loop's body counts once."""
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
    """Seconds of the first call of a compiled program."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
