"""The suite of benchmarks: its cases at full size, and at the smallest size, which tests run.

python -m benchmarks [NAME ...] --json OUT

Results are written after each case. Cases that OUT holds already are not measured again, so that the same command
continues a run that was interrupted; --again measures all cases.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import cases, harness
from metarec_jax.config.run import Config, preset
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import Reporter


class Size(NamedTuple):
    """Turns of each contender, whether to run the smallest size, and the progress reporter."""

    rounds: int
    smoke: bool
    reporter: Reporter


Rows = Iterator[list[harness.Row]]


def encoder(size: Size) -> Rows:
    """Forward, forward and backward, and real texts; against transformers and the GEMM peak."""
    from benchmarks import encoder as case

    if size.smoke:
        yield case.one_batch(cases.SMOKE_SHAPE, 2, size.reporter)
        yield case.real_texts(2, size.reporter, smoke=True)
        return
    yield case.one_batch(cases.MINILM, size.rounds, size.reporter)
    yield case.one_batch(cases.BASE, max(size.rounds // 2, 3), size.reporter)
    yield case.real_texts(size.rounds, size.reporter)


def catalogue(size: Size) -> Rows:
    """100,000 texts from text to table, against sorted batching; one turn, which takes minutes."""
    from benchmarks import encoder as case

    yield case.catalogue(case.FEW if size.smoke else case.CATALOGUE, 1, size.reporter, smoke=size.smoke)


def inner_loop(size: Size) -> Rows:
    """The meta-gradient, factored and dense, against other libraries; FLOPs, bytes and memory of both forms."""
    from benchmarks import inner_loop as case
    from benchmarks import rivals

    if size.smoke:
        yield case.measure(cases.SMOKE, ["torch-loop"], 2, size.reporter)
        return
    yield case.measure(cases.STANDARD, list(rivals.RIVALS), size.rounds, size.reporter)
    yield case.compete(cases.SHARED, ["torch.func"], case.SHARED_BARS, size.rounds, size.reporter)


def updaters(size: Size) -> Rows:
    """Every rule of the inner loop."""
    from benchmarks import updaters as case

    if size.smoke:
        yield case.compare(cases.SMOKE, size.rounds, size.reporter, case.FEW)
        return
    yield case.compare(cases.STANDARD, size.rounds, size.reporter)


def outer_step_frozen(size: Size) -> Rows:
    """A full outer step with a frozen encoder, against PyTorch's levels (b), (c) and (d)."""
    from benchmarks import outer_step as case

    if size.smoke:
        yield case.compare(cases.SMOKE, ["(b) loop", "(c) torch.func"], 2, size.reporter)
        return
    for shape in (cases.SHARED, cases.STANDARD):
        yield case.compare(shape, list(case.LEVELS), size.rounds, size.reporter)


def outer_step_joint(size: Size) -> Rows:
    """A full outer step that also trains MiniLM, on real ratings, against levels (a) and (c)."""
    from benchmarks import joint as case

    small = dataclasses.replace(case.JOINT, users=case.PAIRS_OF, support=2, query=1, hidden=8, steps=1, at_once=0)
    yield case.compare(2 if size.smoke else 3, small if size.smoke else case.JOINT, size.reporter)


def pipeline(size: Size) -> Rows:
    """Batches per second of the input pipeline against those of the step."""
    from benchmarks import pipeline as case

    yield case.feed(_config(size, users=256), size.rounds, size.reporter)


def evaluation(size: Size) -> Rows:
    """Predictions for the test users and metrics of them."""
    from benchmarks import pipeline as case

    yield case.evaluate(_config(size), size.rounds, size.reporter)


def rank(size: Size) -> Rows:
    """Adapt and rank: 1 and 1,000 users; 1,682, 100,000 and 1,000,000 items."""
    from benchmarks import ranking as case

    if size.smoke:
        yield case.compare(case.SMOKE, 2, size.reporter)
        return
    yield case.compare(case.SMALL, size.rounds, size.reporter)
    for one in case.CATALOGUES:
        yield case.compare(one, max(size.rounds // 2, 3), size.reporter)


def startup(size: Size) -> Rows:
    """Imports, an answer from a finished run, training with a cold and a warm compilation cache."""
    from benchmarks import startup as case

    config = _config(size)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    if size.smoke:
        yield case.compare(config, 1, size.reporter, training=False, warmup=0)
        return
    yield case.compare(config, size.rounds, size.reporter)


def tracing(size: Size) -> Rows:
    """Seconds of tracing, lowering, compiling and the first call of the outer step, factored against dense."""
    from benchmarks import outer_step

    yield outer_step.trace(cases.SMOKE if size.smoke else cases.STANDARD, 1 if size.smoke else 3)


def scaling(size: Size) -> Rows:
    """Curves over users, support, inner steps, hidden size, length of texts and devices."""
    from benchmarks import scaling as case

    rounds = 2 if size.smoke else max(size.rounds // 2, 3)
    if size.smoke:
        yield [case.inner_loop("steps", (1, 2), rounds, size.reporter, cases.SMOKE)]
        yield [case.length((4, 8), rounds, size.reporter, smoke=True)]
        yield [case.devices((1, 2), rounds, size.reporter, smoke=True)]
        return
    for what, values in case.CURVES.items():
        yield [case.inner_loop(what, values, rounds, size.reporter)]
    yield [case.length(case.LENGTHS, rounds, size.reporter)]
    yield [case.devices(case.DEVICES, rounds, size.reporter)]


Case = Callable[[Size], Rows]
CASES: Mapping[str, Case] = {
    "outer-step-frozen": outer_step_frozen,
    "outer-step-joint": outer_step_joint,
    "rank": rank,
    "pipeline": pipeline,
    "start-up": startup,
    "inner-loop": inner_loop,
    "updaters": updaters,
    "encoder": encoder,
    "catalogue": catalogue,
    "evaluation": evaluation,
    "tracing": tracing,
    "scaling": scaling,
}


def _config(size: Size, users: int = 0) -> Config:
    """The preset of MovieLens-100K; of synthetic ratings at the smallest size."""
    config = preset("synthetic" if size.smoke else "movielens-100k")
    learner = dataclasses.replace(config.learner, user_side="none") if size.smoke else config.learner
    per_step = (32 if size.smoke else users) or config.train.users_per_step
    return dataclasses.replace(
        config, learner=learner, train=dataclasses.replace(config.train, users_per_step=per_step)
    )


def measure(case: Case, size: Size) -> tuple[list[harness.Row], dict[str, Any]]:
    """Measure one case.

    Args:
        case: one of `CASES`.
        size: size of the case.

    Returns:
        Its rows, and the conditions of the measurement.
    """
    started = time.perf_counter()
    rows = [row for part in case(size) for row in part]
    return rows, {"seconds": time.perf_counter() - started, "rounds": size.rounds, **harness.made()}


def main(given: Sequence[str] | None = None, known: Mapping[str, Case] = CASES) -> None:
    """The command line.

    Args:
        given: arguments; None takes those of the process.
        known: cases by name.
    """
    from metarec_jax.core.console import make_reporter

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all where there is none")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender")
    parser.add_argument("--smoke", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--again", action="store_true", help="also measure cases that OUT holds already")
    arguments = parser.parse_args(given)
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; there are {', '.join(known)}")
    reporter = make_reporter()
    size = Size(2 if arguments.smoke else arguments.rounds, arguments.smoke, reporter)
    document = harness.read(arguments.json) if arguments.json else {"rows": [], "cases": {}}
    rows: list[harness.Row] = []
    for name in arguments.names or known:
        if name in document["cases"] and not arguments.again:
            reporter.note(f"{name}: kept from {arguments.json}, measured {document['cases'][name]['date']}")
            continue
        reporter.note(f"{name}: {' '.join((known[name].__doc__ or '').split())}")
        try:
            found, about = measure(known[name], size)
        except MetarecError as error:  # a package is missing; earlier cases are written already
            raise SystemExit(f"{name}: {error}") from error
        rows += found
        kept = [row for row in document["rows"] if row["suite"] != name]
        document = {
            "rows": kept + [json.loads(json.dumps(row.to_json() | {"suite": name})) for row in found],
            "cases": document["cases"] | {name: about},
        }
        if arguments.json:
            harness.write_document(document, arguments.json)
    harness.show(rows)
