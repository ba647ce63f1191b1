"""The meta-gradient through the inner loop: Gram space against other libraries, and against the machine's limits.

python -m benchmarks.inner_loop --json OUT
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import harness, ours, phases, rivals, roofline
from benchmarks.cases import SHARED, SMOKE, STANDARD, USERS, VARIANTS, InnerLoopCase
from benchmarks.profile import profile
from benchmarks.tasks import task_of
from metarec_jax.core.progress import QUIET, Reporter

BARS = {
    "torch.func": 20.0,
    "torch.func compiled": 20.0,
    "torch-loop": 20.0,
    "higher": 20.0,
    "torchopt": 20.0,
    "parallel-metalearn": 20.0,
    "jax-meta": 8.0,
    "dense": 8.0,
}
SHARED_BARS = {"torch.func": 40.0}
OF_DENSE = 5.0
"""Least ratio of FLOPs, bytes and temporaries of the dense path to those of Gram space."""
OF_PEAK = 0.4
"""Least share of the speed of a large matrix product."""
TEMPORARIES_PER_USER = 0.15
"""Greatest MB of temporaries per user."""
OURS, EVEN = "factored", "factored, one rate"
TOLERANCE = 1e-4
"""Largest relative error between contenders. Rounding errors are near 1e-6. Where a pre-activation is zero up to
rounding, contenders take different sides of the ReLU, and an inner loop with long steps amplifies the difference: with
rates of .05 to .2 and a support of 90, ours, the dense path and torch.func were all 6e-4 from the result in float64,
and 2e-7 with softplus in place of ReLU. The tasks therefore have rates of .01 to .05. In float64 the tests require
1e-11.
"""


def agree(case: str, name: str, found: rivals.MetaGradient, wanted: rivals.MetaGradient) -> float:
    """Check that a contender computes the same result.

    Args:
        case, name: names of case and contender, for the error message.
        found: the contender's result.
        wanted: the result of the dense path.

    Returns:
        The relative error.

    Raises:
        SystemExit: it is not below `TOLERANCE`.
    """
    error = ours.relative_error(found, wanted)
    if not error < TOLERANCE:
        raise SystemExit(f"{case}: {name} disagrees with the dense path: relative error {error:.1e}")
    return error


def compete(
    case: InnerLoopCase, others: Sequence[str], bars: Mapping[str, float], rounds: int, reporter: Reporter = QUIET
) -> list[harness.Row]:
    """Time Gram space, our dense path and other libraries in turns, after checking that their results agree.

    Rivals that cannot learn rates get a task with equal rates, and are compared with Gram space on that task.

    Args:
        case: the sizes.
        others: names of rivals.
        bars: targets (least ratios), by contender.
        rounds: turns of each contender.
        reporter: shows progress.
    """
    task = task_of(case)
    even = rivals.with_one_rate(task)
    programs = {
        OURS: ours.program(task, "factored", at_once=case.at_once),
        "dense": ours.program(task, "dense", at_once=0),
        "dense in micro-batches": ours.program(task, "dense", at_once=case.dense_at_once),
    }
    wanted = {True: programs["dense"].result}
    facts: dict[str, Any] = {"shape": dataclasses.asdict(case), "relative_error": {}, "unavailable": {}}
    runs: dict[str, Callable[[], Any]] = {}
    learned = {}
    for name in others:
        try:
            rival = rivals.load(name)
            learned[name] = rival.LEARNED_RATES
            runs[name] = rival.prepare(task if learned[name] else even)
        except rivals.Unavailable as error:
            facts["unavailable"][name] = str(error)
            reporter.note(f"{case.name}: {name} is left out: {error}")
    if not all(learned[name] for name in runs):
        programs[EVEN] = ours.program(even, "factored", at_once=case.at_once, learn=False)
        wanted[False] = ours.program(even, "dense", at_once=0, learn=False).result
    facts["phases"] = {name: program.facts for name, program in programs.items()}
    for name, program in programs.items():
        facts["relative_error"][name] = agree(case.name, name, program.result, wanted[name != EVEN])
    for name, run in runs.items():
        facts["relative_error"][name] = agree(case.name, name, run(), wanted[learned[name]])
    machine = roofline.Machine(small=case == SMOKE)
    everyone = {name: program.run for name, program in programs.items()} | runs
    contenders = [harness.Contender(name, run) for name, run in everyone.items()]
    contenders += machine.contenders()
    seconds = harness.take_turns(contenders, rounds=rounds, reporter=reporter, label=case.name)
    best = machine.best(seconds)
    facts["roofline"] = roofline.reached(best, facts["phases"], seconds)

    def against(mine: str, names: Sequence[str]) -> list[harness.Row]:
        chosen = {name: seconds[name] for name in (mine, *names)}
        return harness.compare(case.name, chosen, ours=mine, work=case.users, metric="users/s", bars=bars, facts=facts)

    rows = against(OURS, ["dense", "dense in micro-batches", *(n for n in runs if learned[n])])
    if EVEN in programs:
        rows += against(EVEN, [name for name in runs if not learned[name]])
    where = profile(programs[OURS].run, programs[OURS].text)
    return rows + _against_the_machine(case, facts["phases"][OURS], best, seconds, where)


def _against_the_machine(
    case: InnerLoopCase,
    facts: Mapping[str, Any],
    best: roofline.Best,
    seconds: Mapping[str, np.ndarray],
    where: list[dict[str, Any]],
) -> list[harness.Row]:
    """A row of our GFLOP/s of products against those of a large matrix product."""
    work, peak = facts["gflop_of_products"], best.peak
    achieved = work / seconds[OURS]
    low, median, high = np.quantile(achieved / peak, [0.05, 0.5, 0.95])
    bandwidth, moved = float(np.median(best.bandwidth)), facts["gbytes_moved"]
    return [
        harness.Row(
            case=case.name,
            contender="gemm-peak",
            metric="GFLOP/s of products",
            ours=float(np.median(achieved)),
            theirs=float(np.median(peak)),
            ratio={"median": float(median), "low": float(low), "high": float(high)},
            bar=OF_PEAK if case == STANDARD else None,
            facts={
                "gflop": work,
                "seconds_at_gemm_peak": work / float(np.median(peak)),
                "bandwidth_gb_per_s": bandwidth,
                "seconds_at_bandwidth": moved / bandwidth,
                "seconds": float(np.median(seconds[OURS])),
                "profile": where,
            },
        )
    ]


def weigh(case: InnerLoopCase) -> list[harness.Row]:
    """FLOPs, bytes and temporaries of both forms, from the compiler.

    FLOPs and bytes are those of programs with all steps unrolled and all users at once, since the compiler counts the
    body of a loop once; temporaries are those of the timed programs.
    """
    task = task_of(case)
    figures = {
        form: phases.figures(jax.jit(ours.gradient_of(p.model, 0)).lower(p.trainable, p.tables, p.episodes).compile())
        for form in ("factored", "dense")
        for p in [ours.problem(task, form, unroll=case.steps)]
    }
    timed = {
        form: ours.program(task, form, at_once=at_once).facts["temporaries_mb"]
        for form, at_once in (("factored", case.at_once), ("dense", 0))
    }
    few, many = timed["factored"], timed["dense"]
    bar = OF_DENSE if case == STANDARD else None
    rows = [
        _exact(case.name, "dense", metric, figures["factored"][metric], figures["dense"][metric], bar)
        for metric in ("gflop", "gbytes_accessed")
    ]
    rows.append(_exact(case.name, "dense", "temporaries_mb", few, many, bar))
    limit = 1.0 if case == STANDARD else None
    per_user = few / case.users
    return [*rows, _exact(case.name, "limit", "temporaries_mb per user", per_user, TEMPORARIES_PER_USER, limit)]


def _exact(case: str, contender: str, metric: str, mine: float, theirs: float, bar: float | None) -> harness.Row:
    """A row of numbers without a spread."""
    return harness.Row(case, contender, metric, mine, theirs, harness.flat(theirs / mine), bar)


def grow(cases: Sequence[InnerLoopCase], rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Seconds and compile seconds by the number of users, against proportional growth.

    Args:
        cases: cases that differ only in the number of users, ascending.
        rounds: turns of each contender.
        reporter: shows progress.
    """
    programs = {case.users: ours.program(task_of(case), "factored", at_once=case.at_once) for case in cases}
    contenders = [harness.Contender(str(users), program.run) for users, program in programs.items()]
    taken = harness.take_turns(contenders, rounds=rounds, reporter=reporter, label="users")
    users = np.array(list(programs), float)
    seconds = np.array([float(np.median(taken[str(int(count))])) for count in users])
    slope, intercept = np.polyfit(users, seconds, 1)
    compile_s = [program.facts["compile_s"] for program in programs.values()]
    facts = {
        "users": users.tolist(),
        "seconds": seconds.tolist(),
        "compile_s": compile_s,
        "temporaries_mb": [program.facts["temporaries_mb"] for program in programs.values()],
        "fit": {"seconds_per_user": float(slope), "seconds": float(intercept)},
    }
    reporter.note(f"seconds = {intercept:.4f} + {slope:.3e} * users")
    names = ("standard users", f"{int(users[0])} users")
    fewest, most = seconds[0] / users[0], seconds[-1] / users[-1]
    return [
        harness.Row(*names, "seconds/user", most, fewest, harness.flat(fewest / most), None, facts),
        harness.Row(*names, "compile_s", compile_s[-1], compile_s[0], harness.flat(compile_s[0] / compile_s[-1])),
    ]


def measure(case: InnerLoopCase, others: Sequence[str], rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """All rows of one case."""
    return compete(case, others, BARS if case == STANDARD else {}, rounds, reporter) + weigh(case)


def run(rounds: int, reporter: Reporter = QUIET) -> Iterator[list[harness.Row]]:
    """The whole benchmark, case after case."""
    fewer = max(rounds // 2, 3)
    yield measure(STANDARD, list(rivals.RIVALS), rounds, reporter)
    yield compete(SHARED, ["torch.func"], SHARED_BARS, rounds, reporter)
    yield grow(USERS, fewer, reporter)
    for case in VARIANTS:
        yield compete(case, ["torch.func"], {}, fewer, reporter)


def main() -> None:
    """The command line."""
    from metarec_jax.core.console import make_reporter

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--rounds", type=int, default=11, help="turns of each contender")
    parser.add_argument("--smoke", action="store_true", help="one tiny case, to see that it runs")
    arguments = parser.parse_args()
    reporter = make_reporter()
    parts = [measure(SMOKE, [], arguments.rounds, reporter)] if arguments.smoke else run(arguments.rounds, reporter)
    rows: list[harness.Row] = []
    for part in parts:
        rows += part
        if arguments.json:  # after every case, since a later one can fail
            harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
