"""The service with a large made-up catalogue: the tail of the latency under many clients, and what bounds it.

python -m benchmarks.serving_many_items --run RUN --items 1000000 --clients 20 --json OUT

Clients do what those of `benchmarks.serving` do: adapt, ask for two lists, click, rate, and repeat. One client alone is
measured first. The facts of a row tell what bounds it: the seconds of processor time of the server for each second (as
many as there are cores: computation; fewer: waiting for memory, disk or the clients), and the bytes of item tables that
lists would have to read once, as a share of the memory's bandwidth. Server and clients share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.batch import trained
from benchmarks.enlarged import enlarge
from benchmarks.serving import TOGETHER, Connection, Load, Server, catalogue, press
from metarec_jax.core.checked_files import read_arrays
from metarec_jax.train import run_folder

TYPED = ("ba", "stelu", "fi no", "stelupreto", "qqq")
"""Titles that are searched while the clients ask for lists: beginnings of words, and misspelt ones."""


async def _with_searches(
    port: int, clients: int, seconds: float, items: list[str], body: int
) -> tuple[Load, list[float]]:
    """The clients of `press`, and one who searches for titles ten times a second, with the seconds of each search."""
    taken: list[float] = []

    async def search() -> None:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
        while True:
            started = time.perf_counter()
            await connection.ask(f"/items?limit=20&search={TYPED[len(taken) % len(TYPED)].replace(' ', '%20')}")
            taken.append(time.perf_counter() - started)
            await asyncio.sleep(0.1)

    searching = asyncio.create_task(search())
    try:
        return await press(port, clients, seconds, items, body), taken
    finally:
        searching.cancel()


def measure(run: Path, clients: int, seconds: float, body: int) -> list[harness.Row]:
    """Latencies of one client and of `clients`.

    Args:
        run: run folder with the large catalogue.
        clients: number of clients.
        seconds: seconds of each measurement.
        body: ratings of a client at the start.

    Returns:
        A row for lists, and one for searches of titles.
    """
    arrays = read_arrays(run_folder.open_run(run).embeddings)[0]["items"]
    facts: dict[str, Any] = {"items": len(arrays), "GB of embeddings": arrays.nbytes / 1e9}
    facts["GB/s of memory"], facts["cores"] = _bandwidth(), len(os.sched_getaffinity(0))
    del arrays
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        server = Server(run, Path(folder) / "store", "--together", str(TOGETHER))
        facts["seconds of starting"] = time.perf_counter() - started
        try:
            items = asyncio.run(catalogue(server.port))
            asyncio.run(press(server.port, clients, min(3.0, seconds), items, body))  # everything has run once
            for count in (1, clients):
                before = _processor_seconds(server.process.pid)
                load, searched = asyncio.run(_with_searches(server.port, count, seconds, items, body))
                used = _processor_seconds(server.process.pid) - before
                lists = len(load.seconds["recommend"]) / load.wall
                facts[f"{count} clients"] = load.facts() | {
                    "searches p95 ms": 1e3 * float(np.percentile(searched, 95)),
                    "cores used by the server": used / load.wall,
                    "lists/s": lists,
                    "GB/s if each list reads the embeddings once": lists * facts["GB of embeddings"],
                }
            facts["MB of the server"] = _peak(server.process.pid)
        finally:
            server.stop()
    many, one = facts[f"{clients} clients"], facts["1 clients"]
    case = f"service, {facts['items']:,} items"
    p99 = many["p99 ms by request"]["recommend"], one["p99 ms by request"]["recommend"]
    searches = many["searches p95 ms"], one["searches p95 ms"]
    return [
        harness.Row(
            f"{case}, {clients} clients", "1 client", metric, ours, theirs, harness.flat(theirs / ours), None, own
        )
        for metric, (ours, theirs), own in (
            ("p99 of a list, ms", p99, facts),
            ("p95 of a title search, ms", searches, {}),
        )
    ]


def _bandwidth() -> float:
    """Gigabytes per second of a sum over an array that exceeds the caches, the best of five."""
    array = np.ones(1 << 26, np.float32)
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - started)
    return array.nbytes / 1e9 / float(best)


def _processor_seconds(pid: int) -> float:
    """Seconds of processor time of a process so far; 0 where the system does not say."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> float:
    """Greatest resident memory of a process, in MB; 0 where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:")), 0.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument(
        "--run", type=Path, help="a trained run, whose catalogue is enlarged; by default one is trained"
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--history", type=int, default=12, help="ratings of a client at the start")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = enlarge(arguments.run or trained(Path(folder)), Path(folder) / "run", arguments.items)
        rows = measure(run, arguments.clients, arguments.seconds, arguments.history)
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)
    for name, fact in rows[0].facts.items():
        print(f"{name}: {fact}")


if __name__ == "__main__":
    main()
