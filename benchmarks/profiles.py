"""Profiles of our own programs in cases that miss their target: operations, and the steps of a start.

python -m benchmarks.profiles --json OUT

Operations are those of JAX's profiler (see `benchmarks.profile`); a start is a separate process, whose steps are timed
by a clock.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cases, harness
from benchmarks.profile import profile
from benchmarks.report import WHOLE
from metarec_jax.config.run import Config, preset
from metarec_jax.train.start import meta_train

Operations = list[dict[str, Any]]

_STEPS = """
import contextlib, io, json, sys, time
marks = [("Python itself", time.time() - float(sys.argv[1]))]
last = time.perf_counter()
def mark(name):
    global last
    now = time.perf_counter()
    marks.append((name, now - last))
    last = now
import jax
import optax
mark("import jax, optax")
from metarec_jax.core.compile_cache import keep_compilations
from metarec_jax.core.console import print_grid
from metarec_jax.data.sources.find import cache_folder
from metarec_jax.recommender.recommender import Rated, Recommender
mark("import the rest")
keep_compilations(cache_folder())
recommender = Recommender.load(sys.argv[2])
mark("read the run, prepare its items")
state = recommender.adapt([Rated("id:1", 5.0), Rated("id:2", 2.0)])
mark("adapt")
found = recommender.recommend(state, 10)
mark("score all items and pick")
with contextlib.redirect_stdout(io.StringIO()):
    print_grid("Recommended", ["item", "score"], [[r.title, f"{r.score:.2f}"] for r in found])
mark("print")
print(json.dumps(marks))
"""
"""The steps of `metarec recommend RUN --rate id:1=5 --rate id:2=2 -k 10`, each timed."""


def of_programs(case: str, run: Callable[[], Any], texts: Sequence[str], calls: int) -> harness.Row:
    """A row with the operations of compiled programs: milliseconds of those listed, and of a whole call."""
    run()
    taken = []
    for _ in range(calls):
        started = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - started))
    return _row(case, profile(run, *texts, calls=calls), float(np.median(taken)))


def _row(case: str, operations: Operations, wall: float) -> harness.Row:
    listed = sum(operation["ms"] for operation in operations)
    return harness.Row(
        case,
        WHOLE,
        "ms of what is listed",
        listed,
        wall,
        harness.flat(listed / wall),
        None,
        {"profile": operations},
    )


def frozen(case: cases.InnerLoopCase, calls: int) -> harness.Row:
    """A full outer step, encoder frozen."""
    from benchmarks.outer_step import our_step
    from benchmarks.tasks import task_of

    step = our_step(task_of(case), "factored", case.at_once)
    return of_programs(f"outer step, frozen, {case.name}", step.run, [step.text], calls)


def joint(case: cases.InnerLoopCase, calls: int) -> harness.Row:
    """A full outer step that also trains MiniLM."""
    from benchmarks import joint as joints
    from benchmarks.tasks import task_of

    encoder, _, texts = joints.real_texts()
    step = joints.our_step(task_of(case), encoder, texts, case.at_once, adam=True)
    return of_programs("outer step, joint", step.run, [step.compiled.as_text() or ""], calls)


def packed(which: int, calls: int, *, smoke: bool = False) -> Iterator[harness.Row]:
    """Forward, and forward + backward, of packed texts: a case of `benchmarks.packed_texts`, by its number."""
    from benchmarks import packed_texts
    from metarec_jax.encoder import load

    encoder = load("random" if smoke else "minilm")
    case = packed_texts.cases(encoder, smoke=smoke)[which]
    ours = packed_texts.ours_of(encoder, case.ids, packed_texts.TOKENS_PER_CALL)
    for name, run in (("forward", ours.forward), ("forward + backward", ours.back)):
        yield of_programs(f"{name}, {case.name}", run, [ours.texts[name]], calls)


def ranked(case: Any, calls: int) -> harness.Row:
    """From ratings to the ten best items."""
    from benchmarks.ranking import recommender_of, watched

    recommender, _, histories = recommender_of(case)

    def run() -> Any:
        return recommender.recommend_many(recommender.adapt_many(histories), case.k)

    texts = [text for program in watched(recommender, run) for text in program.texts]
    return of_programs(f"adapt and rank, {case.name}", run, texts, calls)


def answer(config: Config, calls: int) -> harness.Row:
    """The steps of an answer from a finished run, with warm caches; each the median of `calls` processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        meta_train(config, folder / "run")
        environment = {**os.environ, "METAREC_CACHE": str(folder / "cache")}

        def process() -> list[tuple[str, float]]:
            command = [sys.executable, "-c", _STEPS, str(time.time()), str(folder / "run")]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            return json.loads(done.stdout)

        process()  # fills the caches
        all_marks = [process() for _ in range(calls)]
    seconds = np.array([[taken for _, taken in marks] for marks in all_marks])
    steps = [name for name, _ in all_marks[0]]
    operations = [
        {"operation": name, "calls": 1.0, "ms": round(1e3 * float(ms), 3)}
        for name, ms in zip(steps, np.median(seconds, axis=0))
    ]
    return _row("start-up, metarec recommend", operations, 1e3 * float(np.median(seconds.sum(axis=1))))


def rows(smoke: bool) -> Iterator[harness.Row]:
    """Profiles of every case that misses its target."""
    from benchmarks import joint as joints
    from benchmarks import ranking

    calls = 1 if smoke else 5
    config = preset("synthetic" if smoke else "movielens-100k")
    learner = dataclasses.replace(config.learner, user_side="none") if smoke else config.learner
    config = dataclasses.replace(config, learner=learner, train=dataclasses.replace(config.train, epochs=1))
    if smoke:
        yield answer(config, calls)
        yield frozen(cases.SMOKE, calls)
        yield ranked(ranking.SMOKE, calls)
        yield from packed(1, calls, smoke=True)
        return
    yield answer(config, calls)
    yield from map(functools.partial(frozen, calls=calls), (cases.SHARED, cases.STANDARD))
    yield from map(functools.partial(ranked, calls=calls), (ranking.SMALL, ranking.CATALOGUES[-1]))
    yield joint(joints.JOINT, 2)
    for which in (0, 1):
        yield from packed(which, 2)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--smoke", action="store_true", help="the smallest size")
    arguments = parser.parse_args()
    found: list[harness.Row] = []
    for row in rows(arguments.smoke):
        found.append(row)
        if arguments.json:
            harness.write(found, arguments.json)
    harness.show(found)


if __name__ == "__main__":
    main()
