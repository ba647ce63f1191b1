"""Row stores of tens of millions of made-up rows: seconds and memory of each phase from a table to a trained epoch.

python -m benchmarks.row_store [--rows N ...] [--train N] [--folder FOLDER] [--json OUT]

The rows are a CSV file of half-star ratings in an order in which users are mixed, of 160 rows a user and up to 80,000
items. Each number of rows is measured in a process of its own. Lines are fitted to seconds and memory by rows, and
extended to 1,000 million rows:

- the build of the store;
- sampling: the division into training, validation and test users, and batches of 64 training users at random places of
  an epoch, without a model;
- for at most `--train` rows, item factors, and one epoch of meta-training of the usual learner, with a small untrained
  encoder; `--steps` ends the epoch early. Blocked is the share of the epoch's time in which a
  batch was waited for while no step was computed.

Memory is anonymous memory (files that are mapped are not counted), sampled five times a second; that of factors and of
the epoch includes all that the process has. FOLDER needs 120 bytes a row; what is written
there is removed.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from benchmarks import harness
from benchmarks.factors import Memory, anonymous, linear
from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.core.console import make_reporter
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.sources.row_store import build_store
from metarec_jax.data.splits import item_statistics, split_users
from metarec_jax.encoder import random_encoder
from metarec_jax.train import build as parts
from metarec_jax.train import run_folder
from metarec_jax.train.monitor import Monitor
from metarec_jax.train.start import fit

ROWS, OF_A_USER, MOST_ITEMS = (8_000_000, 32_000_000, 100_000_000), 160, 80_000
EPISODES = EpisodeConfig(max_ratings=0)
_AT_ONCE, _SAMPLED = 1 << 20, 200


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


class Limits(NamedTuple):
    """Where training ends.

    Attributes:
        rows: most rows with which factors and an epoch are trained.
        steps: most outer steps of the epoch; 0 takes all.
        rank: number of factors of an item.
    """

    rows: int = 32_000_000
    steps: int = 0
    rank: int = 32


DEFAULT = Limits()


def measure(rows: int, folder: Path, reporter: Reporter = QUIET, limits: Limits = DEFAULT) -> dict[str, Any]:
    """Write rows, build their store and use it, in this process.

    Args:
        rows: number of ratings.
        folder: an existing folder.
        reporter: shows progress.
        limits: where training ends.

    Returns:
        Seconds and gigabytes of anonymous memory of each phase, and bytes a row of the store.
    """
    path, store = folder / "rows.csv", folder / "store"
    write_rows(path, rows)
    before, begun = anonymous(), time.perf_counter()
    with Memory() as memory:
        data = build_store(DataConfig(path=str(path)), store, reporter=reporter)
    built = time.perf_counter()
    path.unlink()
    found = {
        "rows": rows,
        "users": len(data.users),
        "items": len(data.items),
        "bytes_a_row": sum(file.stat().st_size for file in store.iterdir()) / rows,
        "seconds": built - begun,
        "gigabytes_before": before / 1e9,
        "gigabytes": memory.most / 1e9,
        **_sampling(data),
    }
    return found | (_training(data, store, folder, reporter, limits) if rows <= limits.rows else {})


def _sampling(data: Interactions) -> dict[str, float]:
    """Divide the users, and make batches of the first epoch."""
    begun = time.perf_counter()
    with Memory() as memory:
        splits = split_users(data, EPISODES, 0)
        own = histories(data, splits.train)
        source = EpisodeSource(own, EPISODES, item_statistics(data, splits.train), True, 64, 0)
        chosen = np.random.default_rng(0).integers(0, source.batches, _SAMPLED).tolist()
        source[chosen[0]]
        divided = time.perf_counter()
        for index in chosen:
            source[index]
    return {
        "seconds_to_divide": divided - begun,
        "milliseconds_of_a_batch": (time.perf_counter() - divided) / _SAMPLED * 1e3,
        "gigabytes_of_sampling": memory.most / 1e9,
    }


def _training(data: Interactions, store: Path, folder: Path, reporter: Reporter, limits: Limits) -> dict[str, float]:
    """Fit factors, and train an epoch."""
    config = Config(
        data=DataConfig(path=str(store), cache=str(folder / "cache")),
        episodes=EPISODES,
        encoder=EncoderConfig(path="random"),
        factors=FactorsConfig(rank=limits.rank),
        train=TrainConfig(epochs=1, users_per_step=64, devices=1, patience=0),
    )
    encoder, config = random_encoder(), parts.resolve(config, data)
    division = parts.divide(data, config, config.seed)
    catalogue = parts.make_catalogue(config, data, division, encoder, reporter)
    start, begun = anonymous(), time.perf_counter()
    with Memory() as of_factors:
        catalogue, folded = parts.learn_factors(config, data, division, catalogue, None, reporter)
    seconds = time.perf_counter() - begun
    del catalogue, folded  # `build` reads the fits again, which are kept
    with Memory() as of_building:
        experiment = parts.build(config, data=data, division=division, encoder=encoder, reporter=reporter)
        run = run_folder.create(folder / "run", experiment.config)
    begun, monitor = time.perf_counter(), _Ending(limits.steps)
    with Memory() as of_epoch, monitor:
        spent = fit(run, experiment, reporter=reporter, monitor=monitor).goodput["seconds"]
    epoch = time.perf_counter() - begun
    return {
        "seconds_of_factors": seconds,
        "gigabytes_before_factors": start / 1e9,
        "gigabytes_of_factors": of_factors.most / 1e9,
        "gigabytes_to_prepare": of_building.most / 1e9,
        "steps": monitor.steps,
        "seconds_of_an_epoch": epoch,
        "gigabytes_of_an_epoch": of_epoch.most / 1e9,
        "share_blocked": spent["data"] / spent["total"],
    }


class _Ending(Monitor):
    """Observes a training, and asks it to stop after some steps, as Ctrl+C does.

    Args:
        most: number of steps; 0 for all.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self.steps = most, 0

    def take(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Take a step."""
        results = super().take(step, *arguments)
        self.steps += 1
        if self.steps == self._most:
            signal.raise_signal(signal.SIGINT)
        return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="numbers of ratings")
    parser.add_argument("--train", type=int, default=DEFAULT.rows, help="most rows with which factors are trained")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help="most steps of the epoch; 0 takes all")
    parser.add_argument("--rank", type=int, default=DEFAULT.rank, help="factors of an item")
    parser.add_argument("--folder", type=Path, help="folder with room for 120 bytes a row")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--one", action="store_true", help="measure one number of rows in this process")
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            limits = Limits(arguments.train, arguments.steps, arguments.rank)
            print(json.dumps(measure(arguments.rows[0], Path(folder), make_reporter(), limits)))
        return
    found = []
    for rows in arguments.rows:
        command = [sys.executable, "-m", "benchmarks.row_store", "--one", "--rows", str(rows)]
        for name in ("train", "steps", "rank"):
            command += [f"--{name}", str(getattr(arguments, name))]
        command += ["--folder", str(arguments.folder)] if arguments.folder else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(_described(found[-1]), flush=True)
    document = {"made": harness.made(), "stores": found}
    if len(found) > 1:
        keys = ("seconds", "gigabytes", "seconds_to_divide", "milliseconds_of_a_batch", "gigabytes_of_sampling")
        document["linear"] = {key: linear(found, key) for key in keys}
        for key, line in document["linear"].items():
            line["for_a_billion_rows"] = line["start"] + 1000 * line["for_a_million_rows"]
            text = "{key}: {start:.2f}, and {for_a_million_rows:.4f} a million rows: {for_a_billion_rows:.1f} for 1,000"
            print(text.format(key=key, **line))
    if arguments.json:
        harness.write_document(document, arguments.json)


def _described(found: Mapping[str, Any]) -> str:
    """One paragraph on a number of rows."""
    text = (
        "{rows:,} rows: {bytes_a_row:.1f} bytes each; build {seconds:.0f} s, {gigabytes:.2f} GB; division "
        "{seconds_to_divide:.1f} s, batch {milliseconds_of_a_batch:.1f} ms, {gigabytes_of_sampling:.2f} GB"
    )
    if "steps" in found:
        text += (
            "; factors {seconds_of_factors:.0f} s, {gigabytes_of_factors:.2f} GB (before: "
            "{gigabytes_before_factors:.2f}); epoch of {steps:,} steps {seconds_of_an_epoch:.0f} s, "
            "{gigabytes_of_an_epoch:.2f} GB, blocked {share_blocked:.1%}"
        )
    return text.format(**found)


if __name__ == "__main__":
    main()
