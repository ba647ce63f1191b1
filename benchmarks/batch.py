"""Batch recommendation: users per second of one process and of several, each held to one core; the time of a user.

python -m benchmarks.batch --run RUN --items 59000 --users 20000 --json OUT

Processes are those of `metarec recommend --users FILE --part I/N`. A process is held to its core by its affinity, and
to one thread by the flags of XLA and of OpenBLAS. Seconds are those of the slowest process, from its first block to its
last, without the start of the interpreter and the loading of the run; programs are compiled before. Without --run a run
is trained first, on synthetic ratings.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.enlarged import enlarge
from metarec_jax.config.data import DataConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.run import preset
from metarec_jax.core.checked_files import write_table
from metarec_jax.core.progress import QUIET
from metarec_jax.recommender.batch import AT_ONCE, recommend_block
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.recommender.users_file import open_users
from metarec_jax.train.start import meta_train

BAR = 1.8
"""Target: throughput of two processes over that of one."""
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def trained(folder: Path) -> Path:
    """A small run of one epoch, with item factors."""
    config = preset("synthetic")
    config = dataclasses.replace(
        config,
        factors=FactorsConfig(rank=32),
        learner=dataclasses.replace(config.learner, user_side="none"),
        train=dataclasses.replace(config.train, epochs=1),
    )
    meta_train(config, folder / "trained", reporter=QUIET)
    return folder / "trained"


def write_users(path: Path, users: int, items: int, *, longest: int = 60, seed: int = 0) -> None:
    """Write users with histories of at least 5 items, popular items more often, one in each line of JSON.

    Args:
        path: path of the file.
        users: number of users.
        items: number of items, whose ids are their rows.
        longest: greatest number of items in a history.
        seed: seed of the draw.
    """
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
        for user in range(users):
            drawn = np.unique((items * rng.random(rng.integers(5, longest + 1)) ** 2).astype(int)).tolist()
            history = [
                {"item_id": item, "rating": rating}
                for item, rating in zip(drawn, rng.integers(1, 6, len(drawn)).tolist())
            ]
            file.write(json.dumps({"user_id": f"user {user}", "history": history}) + "\n")


def computed(run: Path, users: Path, out: Path, processes: int, cores: list[int]) -> list[dict[str, Any]]:
    """Run the parts of a job at the same time.

    Args:
        run: run folder.
        users: file of users.
        out: folder of the lists, which must not exist.
        processes: number of parts.
        cores: processors; part i is held to the i-th.

    Returns:
        The results that the parts print.
    """
    environment = {**os.environ, **ONE_THREAD}
    running = []
    for number in range(1, processes + 1):
        command = [sys.executable, "-m", "metarec_jax", "recommend", str(run), "--users", str(users)]
        command += ["--part", f"{number}/{processes}", "--out", str(out), "--json"]
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cores[number - 1]})  # a process that is started inherits it
        try:
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        finally:
            os.sched_setaffinity(0, before)
    answers = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a part has failed; its message is above")
    return [json.loads(answer) for answer in answers]


def scaling(run: Path, users: Path, rounds: int, processes: int, facts: dict[str, Any]) -> harness.Row:
    """Users per second of `processes` processes against one, in turns.

    Args:
        run: run folder.
        users: file of users.
        rounds: turns of each.
        processes: number of processes that are compared with one.
        facts: facts of the row.

    Returns:
        The row.
    """
    cores = sorted(os.sched_getaffinity(0))
    rates: dict[int, list[float]] = {1: [], processes: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):  # programs are compiled in the first turn, which does not count
            for count in rates if turn % 2 else reversed(rates):
                answers = computed(run, users, Path(folder) / f"{turn}-{count}", count, cores)
                if turn:
                    done = sum(answer["users"] for answer in answers)
                    rates[count].append(done / max(answer["seconds"] for answer in answers))
    one, several = np.array(rates[1]), np.array(rates[processes])
    low, median, high = np.quantile(several / one, [0.05, 0.5, 0.95])
    return harness.Row(
        case=f"lists for users of a file, {processes} processes of one core each",
        contender="1 process",
        metric="users/s",
        ours=float(np.median(several)),
        theirs=float(np.median(one)),
        ratio={"median": float(median), "low": float(low), "high": float(high)},
        bar=BAR * processes / 2,
        facts=facts,
    )


def phases(run: Path, users: Path) -> dict[str, float]:
    """Milliseconds of a user in each phase of a block, with all cores, after everything was compiled.

    Args:
        run: run folder.
        users: file of users.

    Returns:
        Milliseconds by phase.
    """
    recommender = Recommender.load(run)
    source = DataConfig(source="table", path=str(users))
    seconds: dict[str, float] = {}

    def timed(name: str, function: Any) -> Any:
        started = time.perf_counter()
        found = function()
        seconds[name] = 1e3 * (time.perf_counter() - started) / AT_ONCE
        return found

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            file = open_users(recommender, source)
            block = next(file.blocks(AT_ONCE, 0, 1))
            people = timed("parse and check", lambda file=file, block=block: file.users(block))
            states = timed("adapt", lambda people=people: recommender.adapt_many([user.history for user in people]))
            timed("score and rank", lambda states=states: recommender.recommend_many(states))
            table = timed("all but reading and writing", lambda people=people: recommend_block(recommender, people))
            timed("write", lambda table=table: write_table(Path(folder) / "lists.parquet", table, {}))
    return seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument(
        "--run", type=Path, help="a trained run, whose catalogue is enlarged; by default one is trained"
    )
    parser.add_argument("--items", type=int, default=59_000)
    parser.add_argument("--users", type=int, default=4096)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each number of processes")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < arguments.processes:
        parser.error(f"--processes {arguments.processes}: this process may use {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as folder:
        run = enlarge(arguments.run or trained(Path(folder)), Path(folder) / "run", arguments.items)
        users = Path(folder) / "users.jsonl"
        write_users(users, max(arguments.users, AT_ONCE), arguments.items)
        facts = {"items": arguments.items, "users": arguments.users, "ms of a user": phases(run, users)}
        rows = [scaling(run, users, arguments.rounds, arguments.processes, facts)]
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)
    for name, milliseconds in facts["ms of a user"].items():
        print(f"{name}: {milliseconds:.3f} ms a user")


if __name__ == "__main__":
    main()
