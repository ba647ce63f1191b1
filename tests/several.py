"""Several processes of `metarec train` on this machine, each under a time limit that kills it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from forked import Command
from quick import quick_flags
from safetensors.numpy import load_file

from metarec_jax import encoder
from metarec_jax.encoder.tokenizer import tiny_wordpiece

LIMIT = 600
"""Seconds after which a process is killed, whatever it does."""
SMALL = (
    "--learner.hidden", "4", "--learner.user-side", "none",
    "--updater.steps", "1", "--updater.order", "first",
    "--train.users-per-step", "8", "--train.epochs", "4", "--train.patience", "0",
    "--episodes.min-ratings", "8", "--episodes.query", "4", "--episodes.buckets", "16",
)  # fmt: skip
FACTORS = (*SMALL, "--factors.rank", "2", "--factors.train")
FROZEN = (*SMALL, "--factors.rank", "0")
JOINT = (*FROZEN, "--encoder.train", "all", "--encoder.rate", "1e-3")
PRIVATE = (*FROZEN, "--privacy.epsilon", "8")
"""Options of trainings of four epochs of five steps each."""


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    out: str
    err: str


def write_data(folder: Path) -> tuple[str, ...]:
    """Write ratings.csv and items.csv of 48 users and 30 items, and a small encoder, which is sooner read than drawn.

    Args:
        folder: folder of the three.

    Returns:
        The options that name them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = [f"u{u},{i},{rng.integers(1, 6)},{t}" for u in range(48) for t, i in enumerate(rng.permutation(30)[:16])]
    (folder / "ratings.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]) + "\n")
    titles = [f"{i},Lamp {'abcdefghij'[i % 10]} number {i}" for i in range(30)]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *titles]) + "\n")
    tokenizer = tiny_wordpiece()
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "max_positions": 64}
    config = encoder.BertConfig(vocab_size=tokenizer.size, has_pooler=False, **sizes)
    encoder.save(encoder.Encoder(config, encoder.init(0, config), tokenizer, "a small encoder"), folder / "encoder")
    files = ("--data.path", "ratings.csv"), ("--data.items-path", "items.csv"), ("--encoder.path", "encoder")
    return tuple(text for option, name in files for text in (option, str(folder / name)))


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def begin(arguments: Sequence[str], *, devices: int, cwd: Path, **environment: str) -> Command:
    """Start one `metarec train` with some CPU devices."""
    flags = f"{quick_flags()} --xla_force_host_platform_device_count={devices}"
    own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    return Command(["train", *arguments], cwd, {**os.environ, **own, **environment})


@contextlib.contextmanager
def several(
    number: int,
    arguments: Sequence[str] | Callable[[int], Sequence[str]],
    *,
    devices: int,
    cwd: Path | Callable[[int], Path],
    start: Sequence[int] | None = None,
) -> Iterator[list[Command]]:
    """Start processes that train one run; those that are left at the end are killed.

    Args:
        number: number of processes.
        arguments: of all, or by process.
        devices: devices of each.
        cwd: working folder of all, or by process.
        start: processes to start; None starts all.
    """
    port = str(free_port())
    found = []
    for index in range(number) if start is None else start:
        own = arguments(index) if callable(arguments) else arguments
        place = {"JAX_NUM_PROCESSES": str(number), "JAX_PROCESS_ID": str(index)}
        where = cwd(index) if callable(cwd) else cwd
        address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
        found.append(begin(["--distributed", *own], devices=devices, cwd=where, **place, **address))
    try:
        yield found
    finally:
        for process in found:
            process.kill()
            process.communicate()


def ended(running: Sequence[Command], limit: float = LIMIT) -> list[Ended]:
    """Wait for processes; one that takes longer than `limit` seconds fails the test, and is killed with the others."""
    until, found = time.monotonic() + limit, []
    for process in running:
        out, err = process.communicate(timeout=max(until - time.monotonic(), 0.1))
        found.append(Ended(process.returncode, out, err))
    return found


def run_together(number: int, arguments: Sequence[str], *, devices: int, cwd: Path) -> list[Ended]:
    """Start processes, and wait for them."""
    with several(number, arguments, devices=devices, cwd=cwd) as running:
        return ended(running)


def train_alone(arguments: Sequence[str], *, devices: int, cwd: Path) -> Ended:
    """Train in one process."""
    process = begin(arguments, devices=devices, cwd=cwd)
    try:
        return ended([process])[0]
    finally:
        process.kill()


def statuses(found: Sequence[Ended]) -> list[int]:
    """Exit statuses; what was said is shown where a test fails."""
    for number, one in enumerate(found):
        print(f"--- process {number}: {one.status}\nOUT {one.out[-2000:]}ERR {one.err[-3000:]}")
    return [one.status for one in found]


def wait_until(done: Callable[[], bool], running: Sequence[Command], limit: float = LIMIT) -> None:
    """Wait for something that processes do; fail where one ends before."""
    until = time.monotonic() + limit
    while not done():
        assert time.monotonic() < until, "it took too long"
        for process in running:
            if process.poll() is not None:
                raise AssertionError(f"a process ended with status {process.returncode}: {process.communicate()}")
        time.sleep(0.02)


def metrics(run: Path) -> list[dict]:
    """Lines of metrics of a run, without those that depend on the time."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    timed = ("users_per_second", "seconds", "slowest_process")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def saved_state(run: Path) -> dict[str, np.ndarray]:
    """Arrays of the latest checkpoint of a run by their path: parameters, state of the optimizer, key."""
    from orbax.checkpoint import v1 as ocp

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.training.Checkpointer(str(run / "checkpoints")) as checkpoints:
        step = checkpoints.latest.step
        shapes = checkpoints.checkpointables_metadata(step).metadata["state"]
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
        state = checkpoints.load_checkpointables(step, {"state": like})["state"]
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def best_parameters(run: Path) -> dict[str, np.ndarray]:
    """The best parameters of a run."""
    return load_file(run / "parameters.safetensors")


def terminate(process: Command) -> None:
    """Send SIGTERM."""
    process.send_signal(signal.SIGTERM)
