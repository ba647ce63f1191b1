"""A service under load: 50 clients for a minute, batched requests against one at a time; and a kill under load.

python -m benchmarks.serving --run RUN --json OUT

Server and clients are separate processes, which share the machine's cores. Without --run a run is trained first, on
MovieLens-100K.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.run import preset
from metarec_jax.core.progress import Reporter
from metarec_jax.serving.database import open_for_reading
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder
from metarec_jax.train.start import meta_train

BAR = 5.0
"""Target: throughput of batching over that of one request at a time."""
TOGETHER = 64
LENGTHS = (11, 61, 1000)
"""Lengths of histories, including the additional rating; the last is the longest that the service takes."""


class Server:
    """`metarec serve` as a process, on a free port."""

    def __init__(self, run: Path, store: Path, *options: str):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the server
        command = [sys.executable, "-m", "metarec_jax", "serve", str(run), "--port", "0", "--store", str(store)]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http://" not in line:
            self._log.seek(0)
            raise SystemExit(f"the server did not start:\n{self._log.read()}")
        self.port = int(line.rstrip().rstrip("/").rsplit(":", 1)[1])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal."""
        self.process.send_signal(number)
        self.process.wait(60)
        self._log.close()


class Connection:
    """A keep-alive connection with little overhead for the client (a minimal HTTP/1.1 client)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer

    async def ask(self, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of the answer."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        header = await self._reader.readuntil(b"\r\n\r\n")
        status = int(header[9:12])
        length = next(line for line in header.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return status, await self._reader.readexactly(int(length.split(b":")[1]))


@dataclasses.dataclass
class Load:
    """Measurements of the clients.

    Attributes:
        seconds: kind of request -> duration of each request.
        errors: number of requests without a successful answer.
        acknowledged: (list, item) of clicks that the service has acknowledged.
        wall: total seconds.
    """

    seconds: dict[str, list[float]]
    errors: int
    acknowledged: list[tuple[str, str]]
    wall: float

    @property
    def requests(self) -> int:
        """Number of answered requests."""
        return sum(map(len, self.seconds.values()))

    def facts(self) -> dict[str, Any]:
        """Counts and quantiles."""
        every = np.concatenate([np.array(taken) for taken in self.seconds.values()]) * 1e3
        return {
            "requests": self.requests,
            "errors": self.errors,
            "requests/s": self.requests / self.wall,
            "ms": {f"p{q}": float(np.percentile(every, q)) for q in (50, 95, 99)},
            "p99 ms by request": {n: float(np.percentile(t, 99)) * 1e3 for n, t in self.seconds.items() if t},
        }


async def _client(port: int, number: int, items: Sequence[str], until: float, load: Load, body: int) -> None:
    """Adapt to some ratings, then repeat: a list, a click, one more rating, another list."""
    draw = random.Random(number)
    try:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
        while time.perf_counter() < until:
            history = [{"item": i, "rating": draw.randint(1, 5)} for i in draw.sample(items, body)]
            state = json.loads(await _timed(connection, load, "adapt", "/adapt", {"history": history}))["state"]
            for _ in range(4):
                if time.perf_counter() >= until:
                    break
                for _ in range(2):
                    shown = json.loads(
                        await _timed(connection, load, "recommend", "/recommend", {"state": state, "k": 10})
                    )
                card = draw.choice(shown["items"])["id"]
                click = {"list_id": shown["list_id"], "item": card, "kind": "click"}
                await _timed(connection, load, "feedback", "/feedback", click)
                load.acknowledged.append((shown["list_id"], card))
                more = {"state": state, "history": [{"item": card, "rating": draw.randint(1, 5)}]}
                state = json.loads(await _timed(connection, load, "update", "/adapt", more))["state"]
    except (OSError, asyncio.IncompleteReadError):  # the server was killed
        load.errors += 1


async def _timed(connection: Connection, load: Load, name: str, path: str, body: Any) -> bytes:
    started = time.perf_counter()
    status, answer = await connection.ask(path, body)
    load.seconds[name].append(time.perf_counter() - started)
    if status >= 300:
        load.errors += 1
        raise SystemExit(f"{path} was answered with {status}: {answer[:300]!r}")
    return answer


async def press(port: int, clients: int, seconds: float, items: Sequence[str], body: int) -> Load:
    """Run `clients` at the same time for some seconds."""
    load = Load({name: [] for name in ("adapt", "recommend", "feedback", "update")}, 0, [], 0.0)
    started = time.perf_counter()
    await asyncio.gather(*(_client(port, n, items, started + seconds, load, body) for n in range(clients)))
    load.wall = time.perf_counter() - started
    return load


async def catalogue(port: int) -> list[str]:
    """Ids of many items."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
    _, answer = await connection.ask("/items?limit=100")
    return [item["id"] for item in json.loads(answer)["items"]]


def pressed(run: Path, folder: Path, clients: int, seconds: float, body: int, *options: str) -> Load:
    """Start a server, and put it under load."""
    server = Server(run, folder, *options)
    try:
        items = asyncio.run(catalogue(server.port))
        asyncio.run(press(server.port, clients, min(3.0, seconds), items, body))  # everything has run once
        return asyncio.run(press(server.port, clients, seconds, items, body))
    finally:
        server.stop()


def throughput(run: Path, clients: int, seconds: float, rounds: int, body: int) -> list[harness.Row]:
    """Batching against one request at a time, in turns: requests per second, and tail latency."""
    loads: dict[str, list[Load]] = {"gathered": [], "one at a time": []}
    options = {"gathered": ("--together", str(TOGETHER)), "one at a time": ("--together", "1")}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name in loads if turn % 2 == 0 else reversed(loads):
                place = Path(folder) / f"{name}-{turn}".replace(" ", "-")
                loads[name].append(pressed(run, place, clients, seconds, body, *options[name]))
    return compared(loads, f"{clients} clients, {seconds:g} s")


def compared(loads: dict[str, list[Load]], case: str) -> list[harness.Row]:
    """Rows of the clients' measurements in each turn, batched and one at a time."""
    facts = {name: [load.facts() for load in found] for name, found in loads.items()}
    rows = []
    for metric, bar in (("requests/s", BAR), ("p99, ms", None)):
        of = {
            name: np.array([fact["ms"]["p99"] if bar is None else fact["requests/s"] for fact in found])
            for name, found in facts.items()
        }
        times = of["gathered"] / of["one at a time"]
        low, median, high = np.quantile(times if bar else 1 / times, [0.05, 0.5, 0.95])
        rows.append(
            harness.Row(
                case=case,
                contender="one at a time",
                metric=metric,
                ours=float(np.median(of["gathered"])),
                theirs=float(np.median(of["one at a time"])),
                ratio={"median": float(median), "low": float(low), "high": float(high)},
                bar=bar,
                facts=facts if bar else {},
            )
        )
    return rows


async def _knock(port: int, clients: int, seconds: float) -> float:
    """Requests per second of clients whose requests need no computation."""
    done = 0

    async def one(until: float) -> None:
        nonlocal done
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
        while time.perf_counter() < until:
            await connection.ask("/healthz")
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(one(started + seconds) for _ in range(clients)))
    return done / (time.perf_counter() - started)


def http_alone(run: Path, clients: int, seconds: float, served: harness.Row) -> harness.Row:
    """Throughput of the web server without computation: an upper bound for batching."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(run, Path(folder) / "store")
        try:
            asyncio.run(_knock(server.port, clients, 1.0))
            rate = asyncio.run(_knock(server.port, clients, min(seconds, 10.0)))
        finally:
            server.stop()
    return harness.Row(
        case="nothing to compute (GET /healthz)",
        contender="one at a time",
        metric="requests/s",
        ours=rate,
        theirs=served.theirs,
        ratio=harness.flat(rate / served.theirs),
    )


def killed(run: Path, clients: int, seconds: float, body: int) -> harness.Row:
    """kill -9 under load: the number of acknowledged clicks that are lost after a restart."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        server = Server(run, store, "--together", str(TOGETHER))

        async def both() -> Load:
            items = await catalogue(server.port)
            asyncio.get_running_loop().call_later(seconds, os.kill, server.process.pid, signal.SIGKILL)
            return await press(server.port, clients, seconds + 30, items, body)

        load = asyncio.run(both())
        server.process.wait(60)
        again = Server(run, store, "--together", "1")  # recovers the log, and serves
        again.stop()
        with open_for_reading(store) as database:
            kept = set(database.execute("SELECT list, item FROM events WHERE kind = 'click'"))
    lost = sum(pair not in kept for pair in load.acknowledged)
    return harness.Row(
        case="kill -9 under load",
        contender="acknowledged",
        metric="clicks kept",
        ours=float(len(load.acknowledged) - lost),
        theirs=float(len(load.acknowledged)),
        ratio=dict.fromkeys(("median", "low", "high"), 1 - lost / max(len(load.acknowledged), 1)),
        bar=1.0,
        facts={"lost": lost, "clients cut off": load.errors},
    )


def one_more(run: Path, times: int) -> Iterator[harness.Row]:
    """One more rating, against adapting to the whole history again: one client, with and without a user's text."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(run, Path(folder) / "store", "--together", "1")
        items = catalogues.load(run_folder.open_run(run)).items.ids
        try:
            yield from asyncio.run(_one_more(server.port, items, times))
        finally:
            server.stop()


async def _one_more(port: int, items: Sequence[str], times: int) -> list[harness.Row]:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
    _, about = await connection.ask("/about")
    profiles = ("", "A 34 year old woman, librarian.") if json.loads(about)["reads_profiles"] else ("",)
    rows = []
    for profile in profiles:
        for length in LENGTHS:
            history = [{"item": item, "rating": 1 + n % 5} for n, item in enumerate(items[:length])]
            anew = {"history": history, **({"profile": profile} if profile else {})}
            _, answer = await connection.ask("/adapt", anew | {"history": history[:-1]})
            more = {"state": json.loads(answer)["state"], "history": history[-1:]}
            taken: dict[str, list[float]] = {"update": [], "anew": []}
            for turn in range(times + 2):
                for name, body in (("update", more), ("anew", anew)):
                    started = time.perf_counter()
                    await connection.ask("/adapt", body)
                    if turn > 1:
                        taken[name].append(1e3 * (time.perf_counter() - started))
            ratio = np.array(taken["anew"]) / np.array(taken["update"])
            low, median, high = np.quantile(ratio, [0.05, 0.5, 0.95])
            rows.append(
                harness.Row(
                    case=f"one rating more after {length - 1}, {'with' if profile else 'without'} a profile",
                    contender="adapting anew",
                    metric="ms",
                    ours=float(np.median(taken["update"])),
                    theirs=float(np.median(taken["anew"])),
                    ratio={"median": float(median), "low": float(low), "high": float(high)},
                )
            )
    return rows


def trained(folder: Path, reporter: Reporter) -> Path:
    """A run to serve."""
    config = preset("movielens-100k")
    config = dataclasses.replace(
        config,
        factors=FactorsConfig(rank=32),
        train=dataclasses.replace(config.train, epochs=3),
    )
    meta_train(config, folder / "run", reporter=reporter)
    return folder / "run"


def main() -> None:
    """The command line."""
    from metarec_jax.core.console import make_reporter

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--run", type=Path, help="a trained run; by default one is trained")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way to serve")
    parser.add_argument("--history", type=int, default=12, help="ratings of a client at the start")
    arguments = parser.parse_args()
    reporter = make_reporter()
    rows: list[harness.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or trained(Path(folder), reporter)

        def keep(*found: harness.Row) -> None:
            rows.extend(found)
            if arguments.json:
                harness.write(rows, arguments.json)

        served = throughput(run, arguments.clients, arguments.seconds, arguments.rounds, arguments.history)
        keep(*served)
        keep(http_alone(run, arguments.clients, arguments.seconds, served[0]))
        keep(killed(run, arguments.clients, min(arguments.seconds, 10.0), arguments.history))
        keep(*one_more(run, 50))
    harness.show(rows)


if __name__ == "__main__":
    main()
