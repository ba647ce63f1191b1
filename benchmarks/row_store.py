"""Row stores of tens of millions of made-up rows: seconds, memory and bytes a row, of the build and of an epoch.

python -m benchmarks.row_store [--rows N ...] [--folder FOLDER] [--json OUT]

The rows are a CSV file of half-star ratings in an order in which users are mixed, of 160 rows a user and up to 80,000
items. Each number of rows is measured in a process of its own, and lines are fitted to seconds and memory. An epoch is
all batches of the episodes of training users, without a model. Memory is anonymous memory (files that are mapped are
not counted), sampled five times a second. FOLDER needs 80 bytes a row; what is written there is removed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from benchmarks import harness
from benchmarks.factors import Memory, anonymous, linear
from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.core.console import make_reporter
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.data.episodes import EpisodeSource, histories
from metarec_jax.data.sources.row_store import build_store
from metarec_jax.data.splits import item_statistics, split_users

ROWS, OF_A_USER, MOST_ITEMS = (8_000_000, 32_000_000, 100_000_000), 160, 80_000
EPISODES = EpisodeConfig(max_ratings=0)
_AT_ONCE = 1 << 20


def write_rows(path: Path, rows: int) -> None:
    """Write made-up ratings to a CSV file.

    Args:
        path: path of the file.
        rows: number of ratings, a multiple of 160.
    """
    rng = np.random.default_rng(0)
    items = min(MOST_ITEMS, max(2 * OF_A_USER, rows // 400))
    step = _coprime(rows, int(rows * 0.618))  # visits every row once, in an order that mixes users
    stride = _coprime(items, int(items * 0.618))
    with path.open("wb") as file:
        for first in range(0, rows, _AT_ONCE):
            place = np.arange(first, min(first + _AT_ONCE, rows), dtype=np.int64) * step % rows
            user, number = np.divmod(place, OF_A_USER)
            columns = {
                "user_id": user,
                "item_id": (user * 7919 + number * stride) % items,
                "rating": rng.integers(1, 11, len(place)) / 2,
                "timestamp": 1_000_000_000 + rng.integers(0, 100_000_000, len(place)),
            }
            options = pyarrow.csv.WriteOptions(include_header=first == 0)
            pyarrow.csv.write_csv(pa.table(columns), file, options)


def _coprime(number: int, near: int) -> int:
    return next(n for n in range(max(1, near), 2 * number + 2) if math.gcd(n, number) == 1)


def measure(rows: int, folder: Path, reporter: Reporter = QUIET) -> dict[str, Any]:
    """Write rows, build their store and make the batches of an epoch, in this process.

    Args:
        rows: number of ratings.
        folder: an existing folder.
        reporter: shows progress.

    Returns:
        Seconds, gigabytes of anonymous memory, and bytes a row of the store.
    """
    path, store = folder / "rows.csv", folder / "store"
    write_rows(path, rows)
    before, begun = anonymous(), time.perf_counter()
    with Memory() as memory:
        data = build_store(DataConfig(path=str(path)), store, reporter=reporter)
    built = time.perf_counter()
    path.unlink()
    with Memory() as of_epoch:
        batches = _epoch(data)
    size = sum(file.stat().st_size for file in store.iterdir())
    return {
        "rows": rows,
        "users": len(data.users),
        "items": len(data.items),
        "bytes_a_row": size / rows,
        "seconds": built - begun,
        "gigabytes_before": before / 1e9,
        "gigabytes": memory.most / 1e9,
        "batches_of_an_epoch": batches,
        "seconds_of_an_epoch": time.perf_counter() - built,
        "gigabytes_of_an_epoch": of_epoch.most / 1e9,
    }


def _epoch(data: Interactions) -> int:
    """Divide the users, and make all batches of the first epoch."""
    splits = split_users(data, EPISODES, 0)
    own = histories(data, splits.train)
    source = EpisodeSource(own, EPISODES, item_statistics(data, splits.train), True, 64, 0)
    return sum(1 for index in range(source.batches) if source[index])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="numbers of ratings")
    parser.add_argument("--folder", type=Path, help="folder with room for 80 bytes a row")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--one", action="store_true", help="measure one number of rows in this process")
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(json.dumps(measure(arguments.rows[0], Path(folder), make_reporter())))
        return
    found = []
    for rows in arguments.rows:
        command = [sys.executable, "-m", "benchmarks.row_store", "--one", "--rows", str(rows)]
        command += ["--folder", str(arguments.folder)] if arguments.folder else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(
            "{rows:,} rows: {bytes_a_row:.1f} bytes each; build {seconds:.0f} s, {gigabytes:.2f} GB; epoch "
            "{seconds_of_an_epoch:.0f} s, {gigabytes_of_an_epoch:.2f} GB".format(**found[-1]),
            flush=True,
        )
    document = {"made": harness.made(), "stores": found}
    if len(found) > 1:
        keys = ("seconds", "gigabytes", "seconds_of_an_epoch", "gigabytes_of_an_epoch")
        document["linear"] = {key: linear(found, key) for key in keys}
        for key, line in document["linear"].items():
            print("{key}: {start:.2f}, and {for_a_million_rows:.4f} for each million rows".format(key=key, **line))
    if arguments.json:
        harness.write_document(document, arguments.json)


if __name__ == "__main__":
    main()
