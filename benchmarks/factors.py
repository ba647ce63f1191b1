"""Item factors of millions of made-up ratings: seconds and memory of the whole fit, cross-fitting included.

python -m benchmarks.factors [--rows N ...] [--rank R] [--json OUT]

Users and items have numbers of ratings that follow lognormal distributions. Ratings are the sum of an item's mean, a
user's bias, a product of eight factors and noise, rounded to 1 to 5; items have genres, a year and a vector that follow
some of their factors. Each number of rows is measured in a process of its own, and a line is fitted to the seconds.
Memory is anonymous memory (files that are mapped are not counted), sampled five times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from metarec_jax.core.console import make_reporter
from metarec_jax.core.progress import QUIET, Advance, Reporter
from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Interactions, Items, Users
from metarec_jax.factors.cross_fitting import believe_all

ROWS, MOST_USERS, MOST_ITEMS, RANK = (1_000_000, 5_000_000, 25_000_000), 162_000, 59_000, 32
_AT_ONCE = 1 << 20
_GENRES = ("drama", "comedy", "action", "crime", "romance", "horror", "war", "music", "family", "western")


def made_up(rows: int, seed: int = 0) -> tuple[Interactions, np.ndarray]:
    """Make up ratings with a user for every 154 of them and up to 59,000 items, and embeddings of the items' texts.

    Args:
        rows: number of ratings.
        seed: seed of everything.

    Returns:
        The ratings, and float32 [items, 32].
    """
    rng = np.random.default_rng(seed)
    users, items = min(max(rows * MOST_USERS // ROWS[-1], 100), MOST_USERS), min(max(rows // 20, 50), MOST_ITEMS)
    of_user, of_item = (np.cumsum(rng.lognormal(0, spread, n)) for spread, n in ((1.2, users), (2.0, items)))
    factors = rng.normal(size=(items, 8)).astype(np.float32) / 3
    tastes, level = (rng.normal(size=(users, n)).astype(np.float32) for n in (8, 1))
    mean = 3.5 + rng.normal(size=items).astype(np.float32) / 2
    user, item = np.empty(rows, np.int32), np.empty(rows, np.int32)
    rating = np.empty(rows, np.float32)
    for first in range(0, rows, _AT_ONCE):
        some = slice(first, min(first + _AT_ONCE, rows))
        count = some.stop - first
        user[some] = np.searchsorted(of_user, rng.random(count) * of_user[-1])
        item[some] = np.searchsorted(of_item, rng.random(count) * of_item[-1])
        liking = np.sum(tastes[user[some]] * factors[item[some]], axis=1) + level[user[some], 0] / 2
        rating[some] = mean[item[some]] + liking + rng.normal(size=count).astype(np.float32)
    np.clip(np.round(rating, out=rating), 1, 5, out=rating)
    names = tuple(map(str, range(items)))
    genres = tuple(_GENRES[place] for place in np.argmax(factors, axis=1))
    years = tuple(str(1960 + int(year)) for year in np.clip(30 + 30 * factors[:, 1], 0, 60))
    about = Items(ids=names, titles=names, texts=names, details={"genres": genres, "year": years})
    texts = factors @ rng.normal(size=(8, 32)).astype(np.float32) + rng.normal(size=(items, 32)).astype(np.float32)
    people = Users(tuple(map(str, range(users))))
    time_of = np.broadcast_to(np.int64(0), rows)
    return Interactions(user, item, rating, time_of, people, about, STARS, "made up by benchmarks.factors"), texts


class Memory:
    """Greatest anonymous memory of this process while the context lasts."""

    def __enter__(self) -> Memory:
        self.most, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.most = max(self.most, anonymous())

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def anonymous() -> int:
    """Anonymous memory of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def measure(rows: int, rank: int, reporter: Reporter = QUIET) -> dict[str, Any]:
    """Make up ratings and fit their factors, in this process.

    Args:
        rows: number of ratings.
        rank: factors of an item.
        reporter: shows progress.

    Returns:
        Sizes, seconds, and gigabytes of memory before and while factors are fitted.
    """
    begun, sweeps = time.perf_counter(), Sweeps(reporter)
    data, texts = made_up(rows)
    made, before = time.perf_counter(), anonymous()
    with Memory() as memory:
        found, folded = believe_all(
            rank, data, texts, np.arange(rows), np.zeros((len(data.users), 0), np.float32), 0, sweeps
        )
    if not (np.isfinite(found.table).all() and np.isfinite(folded.tables).all()):
        raise SystemExit(f"item factors of {rows:,} ratings are not finite")
    return {
        "rows": rows,
        "users": len(data.users),
        "items": len(data.items),
        "rank": rank,
        "folds": len(folded.tables),
        "seconds": time.perf_counter() - made,
        "seconds_of_a_sweep": float(np.median(sweeps.seconds)),
        "seconds_to_make_up": made - begun,
        "gigabytes_of_rows": before / 1e9,
        "gigabytes": memory.most / 1e9,
    }


def linear(found: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """Fit a line to a figure by the number of rows.

    Args:
        found: rows of `measure`.
        key: the figure.

    Returns:
        The line at no rows, its slope for a million rows, and the share of the variance that it explains.
    """
    rows, figure = (np.array([row[name] for row in found], np.float64) for name in ("rows", key))
    slope, start = np.polyfit(rows, figure, 1)
    left = np.sum(np.square(figure - start - slope * rows))
    r2 = 1 - left / max(np.sum(np.square(figure - figure.mean())), 1e-30)
    return {"start": float(start), "for_a_million_rows": float(slope * 1e6), "r2": float(r2)}


class Sweeps:
    """A reporter that times sweeps, and passes everything on.

    Args:
        reporter: shows progress.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self.seconds = reporter, []

    def note(self, text: str) -> None:
        """Pass on the line."""
        self._reporter.note(text)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Show a bar, and time what is between its steps if they are sweeps.

        Args:
            label: text in front of the bar.
            total: value at which the bar is full.

        Yields:
            A function that updates the bar.
        """
        with self._reporter.bar(label, total) as advance:
            last = None

            def seen(done: int, text: str = "") -> None:
                nonlocal last
                now = time.perf_counter()
                if text.startswith("rmse"):
                    if last is not None:  # the first sweep compiles
                        self.seconds.append(now - last)
                    last = now
                advance(done, text)

            yield seen


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="numbers of ratings")
    parser.add_argument("--rank", type=int, default=RANK, help="factors of an item")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--one", action="store_true", help="measure one number of rows in this process")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.rows[0], arguments.rank, make_reporter())))
        return
    found = []
    for rows in arguments.rows:
        command = [
            sys.executable,
            "-m",
            "benchmarks.factors",
            "--one",
            "--rank",
            str(arguments.rank),
            "--rows",
            str(rows),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print("{rows:,} ratings: {seconds:.0f} s, {gigabytes:.2f} GB".format(**found[-1]), flush=True)
    document = {"made": harness.made(), "fits": found}
    if len(found) > 1:
        document["linear"] = {key: linear(found, key) for key in ("seconds", "seconds_of_a_sweep")}
        for key, line in document["linear"].items():
            print(
                "{key}: {start:.1f}, and {for_a_million_rows:.2f} for each million ratings, R^2 {r2:.4f}".format(
                    key=key, **line
                )
            )
    if arguments.json:
        harness.write_document(document, arguments.json)


if __name__ == "__main__":
    main()
