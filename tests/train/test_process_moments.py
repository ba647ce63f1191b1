"""Processes that are killed or stopped at any moment end soon, and the training goes on to the bits of a whole one."""

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
    write_data,
)

pytestmark = pytest.mark.slow

LONG = (*FROZEN, "--train.epochs", "30")
LATEST = 10.0
"""Seconds after the start of processes within which one is killed: start, compilation, steps and saving lie in them."""


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
    begun = ["--resume", str(run)] if (run / "config.json").exists() else [*data, *LONG, "--out", str(run)]
    return [*begun, "--wait", "20"]


def disturbed(data, run, number, allowed, rng):
    """Send a signal to one of two processes at a random moment; all end within 30 seconds, with an allowed status."""
    victim = rng.randrange(2)
    with several(2, command(data, run), devices=1, cwd=run.parent) as running:
        time.sleep(rng.uniform(0, LATEST))
        running[victim].send_signal(number)
        found = ended(running, limit=30)
    assert {one.status for one in found} <= allowed, statuses(found)


@pytest.mark.parametrize(
    ("number", "moments", "allowed"),
    [(signal.SIGKILL, 20, {0, 76, -signal.SIGKILL}), (signal.SIGTERM, 10, {0, 75, 76, 143, -signal.SIGTERM})],
    ids=["killed", "stopped"],
)
def test_whatever_the_moment_a_training_goes_on_to_the_same_bits(number, moments, allowed, data, whole, tmp_path):
    rng, run = random.Random(number), tmp_path / "run-0"
    for moment in range(moments):
        disturbed(data, run, number, allowed, rng)
        if metrics(run) and metrics(run)[-1]["epoch"] == 30:
            run = tmp_path / f"run-{moment + 1}"
    for processes in (1, 4):
        if (run / "config.json").exists():
            copy = tmp_path / f"copy-{processes}"
            shutil.copytree(run, copy)
            found = run_together(processes, ["--resume", str(copy)], devices=1, cwd=tmp_path)
            assert statuses(found) == [0] * processes
            assert metrics(copy)[-1]["epoch"] == 30
    assert statuses(run_together(2, command(data, run), devices=1, cwd=tmp_path)) == [0, 0]
    assert metrics(run) == metrics(whole)
    assert_equal(saved_state(run), saved_state(whole))
    assert_equal(best_parameters(run), best_parameters(whole))
