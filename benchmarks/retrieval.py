"""Two-stage lists from a million and ten million items: latency, bandwidth, memory and recall.

python -m benchmarks.retrieval RUN [--items N ...] [--users N] [--network FACTOR] [--json OUT]

RUN is a trained run on MovieLens-100K. The items of the catalogue are drawn around those of the run: embedding and
factors of a run's item, with noise of .3 of each column's spread. Embeddings are written to a file of float16, which
stays there. Each size is measured in a process of its own. Timed is one list of ten, from an adapted state: fit of the
linear part, scan, selection, and the whole model on the candidates; up to two million items in turns with the list of
the whole model on all items, held on the device as before, and with the scan and the memory's bandwidth alone.
Recall@10 is the mean share of the whole model's list on all items that the two stages find, for `--users` users with 5
to 60 ratings each. `--network` multiplies the output layer of the run's network, to measure with a larger share of it.

The share of the network is the standard deviation over items of the score less that of the prior path alone, divided by
the standard deviation of the score, as a mean over users.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import harness, roofline
from metarec_jax.core.file_rows import FileRows
from metarec_jax.core.types import Items
from metarec_jax.data.splits import Statistics
from metarec_jax.meta.model import Trainable
from metarec_jax.recommender.call_shapes import Limits
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.recommender.items import top_k
from metarec_jax.recommender.load_run import load_run
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.recommender.retrieval.scan import scan_program
from metarec_jax.recommender.user_state import UserState
from metarec_jax.train.catalogue import Catalogue

ITEMS, USERS, K = (1_000_000, 10_000_000), 200, 10
IN_TURNS = 2_000_000
"""Greatest catalogue that is also ranked as a whole in each turn."""
NOISE = 0.3
BARS = {"times faster": 10.0, "of bandwidth": 0.5, "recall": 0.98, "GB": 8.0}
_BLOCK, _SCORED = 1 << 16, 1 << 13
"""Items that are drawn, and that are scored for all users, at a time."""


def around(found: Catalogue, count: int, folder: Path) -> Catalogue:
    """Draw a catalogue around another one.

    Args:
        found: the catalogue of a run.
        count: number of items.
        folder: receives the embeddings.

    Returns:
        The catalogue, with embeddings in a file.
    """
    rng = np.random.default_rng(0)
    parent = rng.integers(0, len(found.items), count, dtype=np.int32)
    width = found.embeddings.shape[1]
    path = folder / "embeddings.f16"
    spread = NOISE * found.embeddings.std(axis=0)
    with path.open("wb") as file:
        for start in range(0, count, _BLOCK):
            some = found.embeddings[parent[start : start + _BLOCK]]
            file.write((some + spread * rng.standard_normal(some.shape, np.float32)).astype(np.float16).tobytes())
    total, ratings, beliefs = found.statistics
    if beliefs is not None:
        moved = np.empty((count, beliefs.shape[1]), np.float32)
        factors = NOISE * beliefs[:, 2:].std(axis=0)
        for start in range(0, count, _BLOCK):
            some = beliefs[parent[start : start + _BLOCK]]
            moved[start : start + len(some)] = some
            moved[start : start + len(some), 2:] += factors * rng.standard_normal(some[:, 2:].shape, np.float32)
        beliefs = moved
    names = tuple(map(str, range(count)))
    return dataclasses.replace(
        found,
        items=Items(names, names, ("",) * count),
        statistics=Statistics(total[parent], ratings[parent], beliefs),
        embeddings=FileRows(path, 0, (count, width), np.dtype(np.float16)),
        beliefs=None,
    )


def scaled(trainable: Trainable, factor: float) -> Trainable:
    """Multiply the output layer of the network."""
    output = jax.tree.map(lambda leaf: np.float32(factor) * leaf, trainable.theta["output"])
    return trainable._replace(theta={**trainable.theta, "output": output})


def network_share(recommender: Recommender, states: Sequence[UserState]) -> float:
    """The share of the network in the spread of scores; see the module."""
    config = dataclasses.replace(recommender.config, updater=dataclasses.replace(recommender.config.updater, steps=0))
    prior = Recommender(config, recommender.catalogue, scaled(recommender.executor.trainable, 0.0))
    histories = [state.history for state in states]
    own = prior.executor.adapt(histories, [state.embedding for state in states])
    rows = recommender.candidates.fit.rows
    whole = recommender.executor.score_of_many(states, recommender.executor.item_rows(rows))
    rest = whole - prior.executor.score_of_many(own, prior.executor.item_rows(rows))
    return float(np.mean(rest.std(axis=1) / whole.std(axis=1)))


def histories_of(items: int, users: int, levels: Sequence[float]) -> list[CheckedHistory]:
    """Ratings of 5 to 60 random items by each user, most of them high."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 61, users)
    odds = np.arange(1, len(levels) + 1) / np.arange(1, len(levels) + 1).sum()
    return [
        CheckedHistory(rng.choice(items, n, replace=False).astype(np.int32), rng.choice(levels, n, p=odds).astype("f4"))
        for n in lengths
    ]


def whole_lists(recommender: Recommender, states: Sequence[UserState], items: int) -> list[np.ndarray]:
    """The list of each user by the whole model on all items, which are read once for all users."""
    rows, scores = [np.zeros(0, np.int64)] * len(states), [np.zeros(0, np.float32)] * len(states)
    for start in range(0, items, _SCORED):
        block = np.arange(start, min(start + _SCORED, items))
        for user, own in enumerate(recommender.executor.score_of_many(states, recommender.executor.item_rows(block))):
            unseen = ~np.isin(block, states[user].history.rows)
            best = top_k(own, K, unseen)
            rows[user], scores[user] = np.append(rows[user], block[best]), np.append(scores[user], own[best])
            kept = top_k(scores[user], K, np.ones(len(rows[user]), bool))
            rows[user], scores[user] = rows[user][kept], scores[user][kept]
    return rows


def measure(
    run: Path,
    items: int,
    users: int,
    network: float,
    folder: Path,
    *,
    limits: Limits = Limits(),  # noqa: B008 - it does not change
    rounds: int = 15,
) -> dict[str, Any]:
    """Measure one size of catalogue, in this process.

    Args:
        run: folder of the run.
        items: number of items.
        users: number of users whose lists are compared.
        network: factor of the network's output layer.
        folder: receives the embeddings.
        limits: limits of the recommender.
        rounds: number of timed lists.

    Returns:
        Sizes, seconds, gigabytes, shares and recall.
    """
    config, found, trainable, encoder = load_run(run)
    catalogue = around(found, items, folder)
    trainable = scaled(trainable, network)
    begun = time.perf_counter()
    recommender = Recommender(config, catalogue, trainable, encoder, limits=limits)
    index = recommender.candidates.use("scan")
    built = time.perf_counter() - begun
    scale = catalogue.scale.standardised()
    histories = histories_of(items, users, np.linspace(scale.low, scale.high, 5).tolist())
    states = recommender.executor.adapt(histories, [recommender.executor.average_user] * users)
    state = states[0]
    lists = [recommender.recommend(one, K) for one in states]
    peak = _gigabytes()
    table = index.table  # type: ignore[attr-defined]
    query = np.zeros(table.values.shape[1], np.float32), np.float32(1)
    program = scan_program(table.values.shape)
    runs: dict[str, Callable[[], Any]] = {
        "two stages": lambda: recommender.recommend(state, K),
        "scan alone": lambda: jax.block_until_ready(program(table.values, table.scale, *query)),
    }
    if items <= IN_TURNS:
        held = limits._replace(whole_items=items, device_floats=items * catalogue.embeddings.shape[1])
        before = Recommender(config, catalogue, trainable, encoder, limits=held)
        runs["whole model on all items"] = lambda: before.recommend(state, K)
    machine = roofline.Machine(small=items < _BLOCK)
    contenders = [harness.Contender(name, run) for name, run in runs.items()] + machine.contenders()
    seconds = harness.take_turns(contenders, rounds=rounds, warmup=2)
    gigabytes = (table.values.nbytes + 2 * table.scale.nbytes) / 1e9
    bandwidth = machine.best(seconds).bandwidth
    scanned = gigabytes / seconds["scan alone"]
    wanted = whole_lists(recommender, states, items)
    shares = [
        np.mean([catalogue.items.ids[row] in {item.id for item in one} for row in rows])
        for one, rows in zip(lists, wanted)
    ]
    queries = recommender.candidates.queries(states[:20])
    proven = [index.top(query, recommender.candidates.count).exact for query in queries]
    return {
        "items": items,
        "users": users,
        "columns of the scan": int(table.values.shape[1]),
        "candidates": recommender.candidates.count,
        "share of the network": network_share(recommender, states),
        "seconds to load and build": built,
        "peak gigabytes": peak,
        "seconds": {name: taken.tolist() for name, taken in seconds.items()},
        "GB/s of the scan": scanned.tolist(),
        "GB/s of the memory": bandwidth.tolist(),
        "recall@10": float(np.mean(shares)),
        "lists of candidates proven exact": float(np.mean(proven)),
    }


def rows_of(found: dict[str, Any]) -> list[harness.Row]:
    """Compare what `measure` found with the whole model, with the memory, and with the bars.

    Args:
        found: answer of `measure`.

    Returns:
        Rows of a table; the first of them holds everything that was found.
    """
    count = f"{found['items']:,} items"
    taken = {name: 1e3 * np.array(each) for name, each in found["seconds"].items()}
    whole = "whole model on all items"
    other, bar = (whole, BARS["times faster"]) if whole in taken else ("scan alone", None)
    scan, memory = (np.array(found[f"GB/s of the {name}"]) for name in ("scan", "memory"))
    lists = taken["two stages"]
    recall, peak = np.array([found["recall@10"]]), np.array([found["peak gigabytes"]])
    ways = [
        (_row(f"a list, {count}", other, "ms", lists, taken[other], taken[other] / lists), bar),
        (_row(f"scan, {count}", "memory bandwidth", "GB/s", scan, memory, scan / memory), BARS["of bandwidth"]),
        (_row(f"list, {count}", whole, "recall@10", recall, np.ones(1), recall), BARS["recall"]),
        (_row(f"process, {count}", "target", "GB at most", peak, np.array([BARS["GB"]]), BARS["GB"] / peak), 1.0),
    ]
    rows = [dataclasses.replace(row, bar=bar) for row, bar in ways]
    return [dataclasses.replace(rows[0], facts=found), *rows[1:]]


def _row(case: str, other: str, metric: str, ours: np.ndarray, theirs: np.ndarray, ratio: np.ndarray) -> harness.Row:
    low, median, high = np.quantile(ratio, [0.05, 0.5, 0.95])
    spread = {"median": float(median), "low": float(low), "high": float(high)}
    return harness.Row(case, other, metric, float(np.median(ours)), float(np.median(theirs)), spread)


def _gigabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--items", type=int, nargs="+", default=list(ITEMS), help="sizes of the catalogue")
    parser.add_argument("--users", type=int, default=USERS, help="users whose lists are compared")
    parser.add_argument("--network", type=float, default=1.0, help="factor of the network's output layer")
    parser.add_argument("--folder", type=Path, help="where embeddings are written for a while; 0.8 GB a million items")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--here", action="store_true", help="measure the first size in this process, and print JSON")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        if chosen.here:
            print(json.dumps(measure(chosen.run, chosen.items[0], chosen.users, chosen.network, Path(folder))))
            return
    rows = []
    for items in chosen.items:
        command = [sys.executable, "-m", "benchmarks.retrieval", str(chosen.run), "--items", str(items), "--here"]
        command += ["--users", str(chosen.users), "--network", str(chosen.network)]
        command += [] if chosen.folder is None else ["--folder", str(chosen.folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows += rows_of(json.loads(done.stdout.splitlines()[-1]))
    if chosen.json:
        harness.write(rows, chosen.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
