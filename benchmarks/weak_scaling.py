"""Weak scaling of `metarec train --distributed`: one process and two, each on a core of its own with as many users.

python -m benchmarks.weak_scaling [--rounds N] [--users N] [--rows N] [--epochs N] [--json OUT]

Three trainings of the usual learner on made-up ratings take turns:

- alone: one process with N users a step;
- apart: two such processes at the same time, which do not communicate;
- together: two processes of one training with 2 N users a step.

The figure is the users of a second of steps after the first epoch, in which a process waits for the compilations of the
other; evaluation and saving are not counted. Together against alone is the scaling, 2 at best. Apart against alone is
what the machine allows two busy cores; together against apart is what the exchange of gradients and waiting for the
slower process cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.row_store import OF_A_USER, write_rows
from metarec_jax.core.console import make_reporter
from metarec_jax.core.progress import QUIET, Reporter

OPTIONS = (
    "--encoder.path", "random", "--factors.rank", "0", "--episodes.max-ratings", "0", "--train.patience", "0",
)  # fmt: skip
CONTENDERS = ("alone", "apart", "together")


def users_per_second(name: str, options: Sequence[str], users: int, folder: Path) -> float:
    """Train one contender, and return its users of a second of steps.

    Args:
        name: one of `CONTENDERS`.
        options: of all trainings.
        users: users of a step of each process.
        folder: an existing folder.
    """
    cores = sorted(os.sched_getaffinity(0))
    processes = 1 if name == "alone" else 2
    if len(cores) < processes:
        raise SystemExit("two processes of one core each need two cores")
    own = [*options, "--train.users-per-step", str(users * (processes if name == "together" else 1))]
    told = {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if name == "together":
        told |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_free_port()}", "JAX_NUM_PROCESSES": "2"}
        own.append("--distributed")
    runs = [folder / ("run" if name == "together" else f"run-{index}") for index in range(processes)]
    running = [
        subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, "-m", "metarec_jax", "train", *own, "--out", str(run)],
            env={**os.environ, **told, "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, (core, run) in enumerate(zip(cores, runs))
    ]
    try:
        said = [process.communicate()[1] for process in running]
    finally:
        for process in running:
            process.kill()
    if any(process.returncode for process in running):
        raise SystemExit("\n".join(said))
    rates = []
    for run in sorted(set(runs)):
        users_trained = json.loads((run / "goodput.json").read_text())["users"]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        lines = [line["seconds"] for line in lines if "users_per_second" in line]
        spent = sum(seconds["steps"] + seconds.get("data", 0.0) for seconds in lines[1:])
        rates.append(users_trained * (1 - 1 / len(lines)) / spent)
        shutil.rmtree(run)
    return sum(rates)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def measure(
    rows: int, users: int, epochs: int, rounds: int, folder: Path, reporter: Reporter = QUIET
) -> list[harness.Row]:
    """Train the contenders in turns.

    Args:
        rows: ratings of the data, 160 a user.
        users: users of a step of each process.
        epochs: epochs of a training.
        rounds: trainings of each contender.
        folder: an existing folder.
        reporter: shows progress.

    Returns:
        Two processes against one, and against two that do not communicate.
    """
    write_rows(folder / "rows.csv", rows)
    options = [*OPTIONS, "--data.path", str(folder / "rows.csv"), "--data.cache", str(folder / "cache")]
    options += ["--train.epochs", str(epochs)]
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with reporter.bar("trainings", rounds * len(CONTENDERS)) as advance:
        for turn in range(rounds):
            for name in (*CONTENDERS[turn % 3 :], *CONTENDERS[: turn % 3]):
                rates[name].append(users_per_second(name, options, users, folder))
                advance(sum(map(len, rates.values())), f"{name} {rates[name][-1]:,.0f} users/s")
    facts = {"users of a step": users, "users": rows // OF_A_USER, "epochs": epochs, "users/s": rates}
    found = []
    for ours, theirs in (("together", "alone"), ("together", "apart"), ("apart", "alone")):
        low, median, high = np.quantile(np.divide(rates[ours], rates[theirs]), [0.05, 0.5, 0.95]).tolist()
        reached, other = (float(np.median(rates[name])) for name in (ours, theirs))
        ratio = {"low": low, "median": median, "high": high}
        case = f"training, {_NAMES[ours]}"
        found.append(harness.Row(case, _NAMES[theirs], "users/s", reached, other, ratio, facts=facts))
    return found


_NAMES = {
    "alone": "1 process",
    "apart": "2 processes that do not communicate",
    "together": "2 processes of one training",
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each contender")
    parser.add_argument("--users", type=int, default=64, help="users of a step of each process")
    parser.add_argument("--rows", type=int, default=640_000, help="ratings, 160 a user")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a training, at least 2")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = (arguments.rows, arguments.users, arguments.epochs, arguments.rounds)
        found = measure(*sizes, Path(folder), make_reporter())
    harness.show(found)
    if arguments.json:
        harness.write(found, arguments.json)


if __name__ == "__main__":
    main()
