"""Processes that are killed or stopped at any moment end soon, and the training goes on to the bits of a whole one."""

import json
import random
import shutil
import signal
import time

import pytest
from helpers import assert_equal
from several import (
    FROZEN,
    best_parameters,
    ended,
    metrics,
    run_together,
    saved_state,
    several,
    statuses,
    wait_until,
    write_data,
)

pytestmark = pytest.mark.slow

EPOCHS = 30
LAST = 15
"""Epochs that may pass until a signal is seen, for which JAX looks once a second."""
LONG = (*FROZEN, "--train.epochs", str(EPOCHS))
STARTING, TRAINING = 10.0, 2.0
"""Seconds from the start of processes, and from the end of their first epoch, within which one gets a signal."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run of two processes that nobody stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert statuses(run_together(2, [*data, *LONG, "--out", str(run)], devices=1, cwd=run.parent)) == [0, 0]
    return run


def command(data, run):
    """The command that begins a run, or goes on with it."""
    return ["--resume", str(run)] if (run / "config.json").exists() else [*data, *LONG, "--out", str(run)]


def disturbed(data, run, number, allowed, limit, rng, *, training):
    """Send a signal to one of two processes at a random moment; all end in time, with an allowed status.

    Args:
        data: options of the data.
        run: folder of the run.
        number: the signal.
        allowed: exit statuses.
        limit: seconds within which they end.
        rng: draws the process and the moment.
        training: whether the moment is after the first epoch of these processes.
    """
    victim, before = rng.randrange(2), len(metrics(run))
    # A process that is gone before it has joined is unknown to the other one, which waits for it for `--wait` seconds.
    wait = [] if training else ["--wait", "10"]
    with several(2, [*command(data, run), *wait], devices=1, cwd=run.parent) as running:
        if training:
            wait_until(lambda: len(metrics(run)) > before, running)
        time.sleep(rng.uniform(0, TRAINING if training else STARTING))
        done = len(metrics(run))
        running[victim].send_signal(number)
        sent = time.monotonic()
        found = ended(running, limit)
    print(
        f"process {victim}, {'training' if training else 'starting'}, {len(metrics(run))} epochs: statuses "
        f"{[one.status for one in found]} after {time.monotonic() - sent:.1f} s"
    )
    if done == before and EPOCHS - done > LAST:  # a signal that comes before the first step is not lost
        allowed = allowed - {0}
    assert {one.status for one in found} <= allowed, statuses(found)


@pytest.mark.parametrize(
    ("number", "moments", "allowed"),
    [(signal.SIGKILL, 20, {0, 76, -signal.SIGKILL}), (signal.SIGTERM, 10, {0, 75, 76, 143, -signal.SIGTERM})],
    ids=["killed", "stopped"],
)
def test_whatever_the_moment_a_training_goes_on_to_the_same_bits(number, moments, allowed, data, whole, tmp_path):
    rng, run, kept = random.Random(number), tmp_path / "run-0", tmp_path / "kept"
    limit = 30.0
    if number == signal.SIGTERM:  # which processes that have joined follow at their first step
        spent = json.loads((whole / "goodput.json").read_text())["seconds"]
        limit += spent["start_up"] + spent["compiling"]
    for moment in range(moments):
        disturbed(data, run, number, allowed, limit, rng, training=moment % 2 == 1)
        epochs = len(metrics(run))
        if 0 < epochs < EPOCHS:
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(run, kept)
        if epochs == EPOCHS:
            run = tmp_path / f"run-{moment + 1}"
    for processes in (1, 4, 2):
        copy = shutil.copytree(kept, tmp_path / f"copy-{processes}")
        found = run_together(processes, ["--resume", str(copy)], devices=1, cwd=tmp_path)
        assert statuses(found) == [0] * processes
        assert len(metrics(copy)) == EPOCHS
    assert metrics(copy) == metrics(whole)
    assert_equal(saved_state(copy), saved_state(whole))
    assert_equal(best_parameters(copy), best_parameters(whole))
