"""A sweep of implicit least squares on made-up clicks: ours against the package `implicit` and against iALS in NumPy.

python -m benchmarks.implicit_sweep [--rows N ...] [--ranks R ...] [--rounds N] [--json OUT]

All contenders start from the same item factors, minimise the loss of `implicit` (confidence ``c`` of a click, 1 of
everything else) in float32 with two threads, and take turns; their losses after the sweep must agree before they are
timed. Clicks are the pairs of `benchmarks.factors.made_up`, so that numbers of clicks follow its lognormal
distributions. iALS is the algorithm of google-research/ials (Rendle et al. 2021) in NumPy: for each owner a symmetric
product of the clicked rows in batches of 128, and a Cholesky solution. Seconds of the processor are given beside those
of the clock, since other programs may run.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.factors import made_up

ROWS, RANKS, ROUNDS, THREADS = (1_000_000, 5_000_000), (32, 64, 128), 5, 2
CONFIDENCE, RIDGE, AT_ONCE, BAR = 4.0, 20.0, 128, 1.0


class Problem(NamedTuple):
    """Clicks, and item factors to start from.

    Attributes:
        user, item: int32 [clicks], each pair once.
        users: number of users.
        start: float32 [items, rank].
    """

    user: np.ndarray
    item: np.ndarray
    users: int
    start: np.ndarray


Sweep = Callable[[], tuple[np.ndarray, np.ndarray]]


def problem(rows: int, rank: int) -> Problem:
    """Make clicks of the pairs of made-up ratings.

    Args:
        rows: number of ratings; there are about a tenth fewer distinct pairs.
        rank: number of factors.

    Returns:
        The clicks.
    """
    data, _ = made_up(rows)
    items = len(data.items)
    pair = np.unique(data.user.astype(np.int64) * items + data.item)
    start = np.random.default_rng(1).normal(scale=0.1 / np.sqrt(rank), size=(items, rank))
    user, item = (part.astype(np.int32) for part in np.divmod(pair, items))
    return Problem(user, item, len(data.users), start.astype(np.float32))


def ours(made: Problem) -> Sweep:
    """Our half-sweeps. With ``w = c - 1`` matrices are those of `implicit`, and vectors ``(c - 1) / c`` of its own."""
    import jax

    from metarec_jax.factors import implicit
    from metarec_jax.factors.row_products import one_device

    mesh, (items, rank), ones = one_device(), made.start.shape, np.ones(len(made.user))
    penalties = implicit.Penalties(alpha=1.0, ridge=RIDGE, power=0.0)
    scale = CONFIDENCE / (CONFIDENCE - 1)
    new_user, new_item = implicit.by_clicks(made.user, made.users), implicit.by_clicks(made.item, items)
    user, item = new_user[made.user], new_item[made.item]
    of_users, of_items = (implicit.click_layout(n, rank, mesh) for n in (made.users, items))
    by_user = implicit.group_clicks(user, item, ones * (CONFIDENCE - 1), of_users, of_items, rank)
    by_item = implicit.group_clicks(item, user, ones * (CONFIDENCE - 1), of_items, of_users, rank)
    start = jax.numpy.asarray(of_items.spread(made.start[np.argsort(new_item)]))

    def sweep() -> tuple[np.ndarray, np.ndarray]:
        of_user = implicit.half_sweep(by_user, start, of_items, penalties, mesh) * scale
        of_item = implicit.half_sweep(by_item, of_user, of_users, penalties, mesh) * scale
        return of_users.joined(of_user)[new_user], of_items.joined(of_item)[new_item]

    return sweep


def theirs(made: Problem) -> Sweep:
    """`implicit`: the compiled function that `AlternatingLeastSquares(use_cg=False)` calls for each side."""
    from implicit.cpu.als import AlternatingLeastSquares  # pyrefly: ignore[missing-import]
    from scipy.sparse import csr_matrix

    shape, rank = (made.users, len(made.start)), made.start.shape[1]
    clicks = csr_matrix((np.full(len(made.user), CONFIDENCE, np.float32), (made.user, made.item)), shape)
    back = clicks.T.tocsr()
    solver = AlternatingLeastSquares(rank, regularization=RIDGE, dtype=np.float32, use_cg=False).solver

    def sweep() -> tuple[np.ndarray, np.ndarray]:
        users, items = np.zeros((made.users, rank), np.float32), made.start.copy()
        solver(clicks, users, items, RIDGE, num_threads=THREADS)
        solver(back, items, users, RIDGE, num_threads=THREADS)
        return users, items

    return sweep


def ials(made: Problem) -> Sweep:
    """iALS in NumPy: a pool of threads takes owners, as google-research/ials does."""
    from scipy.linalg import get_blas_funcs, get_lapack_funcs

    (syrk,), (posv,) = get_blas_funcs(("syrk",), (made.start,)), get_lapack_funcs(("posv",), (made.start,))

    def cut(owner: np.ndarray, other: np.ndarray, owners: int) -> list[np.ndarray]:
        return np.split(other[np.argsort(owner, kind="stable")], np.cumsum(np.bincount(owner, minlength=owners))[:-1])

    by_user, by_item = (
        cut(made.user, made.item, made.users),
        cut(made.item, made.user, len(made.start)),
    )
    pool = concurrent.futures.ThreadPoolExecutor(THREADS)

    def half(owned: list[np.ndarray], other: np.ndarray) -> np.ndarray:
        found = np.zeros((len(owned), other.shape[1]), np.float32)
        matrix = np.asfortranarray(other.T @ other + RIDGE * np.eye(other.shape[1], dtype=np.float32))

        def solve(some: range) -> None:
            for owner in some:
                rows = other[owned[owner]]
                total = matrix
                for first in range(0, len(rows), AT_ONCE):
                    batch = rows[first : first + AT_ONCE].T
                    total = syrk(CONFIDENCE - 1, batch, 1.0, total, overwrite_c=total is not matrix)
                if len(rows):
                    found[owner] = posv(total, CONFIDENCE * rows.sum(axis=0), overwrite_a=True)[1]

        list(pool.map(solve, [range(n, len(owned), THREADS) for n in range(THREADS)]))
        return found

    def sweep() -> tuple[np.ndarray, np.ndarray]:
        users = half(by_user, made.start)
        return users, half(by_item, users)

    return sweep


def loss(made: Problem, users: np.ndarray, items: np.ndarray) -> float:
    """The loss of `implicit`: ``sum c (p - s)^2`` over all users and items, and the penalty.

    Args:
        made: the clicks.
        users, items: factors of both sides.

    Returns:
        The loss, divided by the clicks.
    """
    users, items = users.astype(np.float64), items.astype(np.float64)
    score = np.concatenate(
        [
            np.einsum("nr,nr->n", users[made.user[some]], items[made.item[some]])
            for some in np.array_split(np.arange(len(made.user)), 1 + len(made.user) // 1_000_000)
        ]
    )
    clicked = np.sum(CONFIDENCE * (1 - score) ** 2 - score**2)
    every = np.sum((users.T @ users) * (items.T @ items))
    return float(clicked + every + RIDGE * (np.sum(users**2) + np.sum(items**2))) / len(made.user)


CONTENDERS: dict[str, Callable[[Problem], Sweep]] = {"metarec_jax": ours, "implicit": theirs, "iALS in NumPy": ials}


def measure(rows: int, rank: int, rounds: int) -> list[dict[str, Any]]:
    """Time a sweep of all contenders in turns, in this process.

    Args:
        rows: number of made-up ratings.
        rank: number of factors.
        rounds: turns of each contender.

    Returns:
        Rows of results.
    """
    made = problem(rows, rank)
    sweeps = {name: make(made) for name, make in CONTENDERS.items()}
    losses = {name: loss(made, *sweep()) for name, sweep in sweeps.items()}
    print(
        f"{len(made.user):,} clicks, rank {rank}, loss of a click after a sweep: {losses}", file=sys.stderr, flush=True
    )
    if not np.allclose(list(losses.values()), losses["implicit"], rtol=1e-4):
        raise SystemExit("losses differ, so that the sweeps are not the same")
    processor: dict[str, list[float]] = {name: [] for name in sweeps}

    def turn(name: str) -> None:
        begun = time.process_time()
        sweeps[name]()
        processor[name].append(time.process_time() - begun)

    turns = [harness.Contender(name, lambda name=name: turn(name)) for name in sweeps]
    seconds = harness.take_turns(turns, rounds=rounds, warmup=1)
    case = f"{len(made.user):,} clicks, {made.users:,} users, {len(made.start):,} items, rank {rank}"
    facts = {"losses": losses, "processor_seconds": {n: float(np.median(taken[1:])) for n, taken in processor.items()}}
    bars = dict.fromkeys(sweeps, BAR)
    compared = {"ours": "metarec_jax", "work": len(made.user), "metric": "clicks/s", "facts": facts, "bars": bars}
    return [row.to_json() for row in harness.compare(case, seconds, **compared)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="numbers of made-up ratings")
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS, help="numbers of factors")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contender")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--one", action="store_true", help="measure the first number of rows and of factors here")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.rows[0], arguments.ranks[0], arguments.rounds)))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    found, own = [], os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for rows in arguments.rows:
        for rank in arguments.ranks:
            sizes = ["--rows", str(rows), "--ranks", str(rank), "--rounds", str(arguments.rounds)]
            command = [sys.executable, "-m", "benchmarks.implicit_sweep", "--one", *sizes]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=own)
            found += json.loads(done.stdout.splitlines()[-1])
            for row in found[-2:]:
                processor = row["facts"]["processor_seconds"]
                print(
                    f"{row['case']} against {row['contender']}: {row['ratio']['median']:.2f} x by the clock, "
                    f"{processor[row['contender']] / processor['metarec_jax']:.2f} x by the processor",
                    flush=True,
                )
    if arguments.json:
        harness.write_document({"made": harness.made(), "rows": found}, arguments.json)


if __name__ == "__main__":
    main()
