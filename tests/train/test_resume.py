"""A training that is stopped, killed or damaged goes on to the bits of an uninterrupted one."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import training
from helpers import assert_equal
from quick import library_environment
from training import STEPS, Watch, small_config, small_experiment, stopping_at, trace_of

from metarec_jax.core.errors import MetarecError
from metarec_jax.train import run_folder
from metarec_jax.train.checkpoints import Checkpoints
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.signals import StopRequest
from metarec_jax.train.start import fit, program_of
from metarec_jax.train.state import first_state

PATIENCE = 120
"""Seconds after which a process is killed, whatever it does."""
KEPT = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
"""What a process compiled, the next one reads."""


@pytest.fixture(scope="module")
def experiment():
    return small_experiment(small_config())


@pytest.fixture(scope="module")
def uninterrupted(experiment, tmp_path_factory):
    """(what `fit` returned, the run, everything it left behind) of a training from start to end."""
    run = run_folder.create(tmp_path_factory.mktemp("uninterrupted") / "run", experiment.config)
    fitted = fit(run, experiment)
    assert not fitted.interrupted
    assert fitted.signal is None
    return fitted, run, trace_of(run, experiment)


@pytest.fixture
def run(experiment, tmp_path):
    return run_folder.create(tmp_path / "run", experiment.config)


@pytest.fixture
def half_way(run, experiment):
    """A run that was stopped in the middle of its third epoch."""
    fitted = fit(run, experiment, reporter=stopping_at(9))
    assert fitted.interrupted
    assert fitted.progress.step == 10
    return run


class Unplugged(Exception):
    """Ends a training between two steps without a chance to save."""


def unplugged_at(step):
    """A reporter that ends the training when `step` has been looked at."""

    def unplug(done):
        if done == step:
            raise Unplugged

    return Watch(on_step=unplug)


def assert_same_as(uninterrupted, fitted, run, experiment):
    """`fitted`, and everything in the folder of `run`, equals the uninterrupted training bit by bit.

    The two latest checkpoints are kept. The last one is compared, and the one before it where it is of the same step,
    which it is not after a stop in the last epoch.
    """
    want, _, want_trace = uninterrupted
    got_trace = trace_of(run, experiment)
    assert not fitted.interrupted
    assert_equal(fitted.trainable, want.trainable)
    assert fitted.progress == want.progress
    both = got_trace.states.keys() & want_trace.states.keys()
    assert len(got_trace.states) == 2
    assert max(both) == max(got_trace.states) == 4 * STEPS
    for step in both:
        assert_equal(got_trace.states[step], want_trace.states[step])
        assert got_trace.progress[step] == want_trace.progress[step]
    assert_equal(got_trace.parameters, want_trace.parameters)
    assert got_trace.metrics == want_trace.metrics
    assert not list(run.checkpoints.glob("*tmp*"))


# Stopped and resumed


def test_training_changes_everything_it_should(uninterrupted, experiment):
    """So that the comparisons below compare something."""
    fitted, _, trace = uninterrupted
    first = first_state(experiment, len(experiment.train.source))
    last = trace.states[4 * STEPS]
    assert last.step == 4 * STEPS
    theta, start = last.trainable.theta, first.trainable.theta
    for path in (("hidden", "item", "kernel"), ("hidden", "bias"), ("output", "kernel"), ("prior", "log_user_weight")):
        got, before = theta, start
        for name in path:
            got, before = got[name], before[name]
        assert not np.array_equal(got, before), path
    # Each step's rate is learned for itself, where there is something to learn.
    rates = last.trainable.phi["log_rate"]["output"]["kernel"]
    assert len(set(rates.tolist()) | {np.log(np.float32(0.1))}) == 3
    assert 0 < fitted.progress.best_epoch < 4, "the best epoch should not be the last: a test would not tell them apart"


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([2 * STEPS], id="after two epochs"),
        pytest.param([9], id="in the middle of an epoch", marks=pytest.mark.slow),
        pytest.param([1, 3, 5, 10, 13], id="again and again"),
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one(run, experiment, uninterrupted, stops):
    for stop in stops:
        fitted = fit(run, experiment, reporter=stopping_at(stop))
        assert fitted.interrupted
        assert fitted.signal == signal.SIGTERM
        assert fitted.progress.step in (stop, stop + 1)
        with Checkpoints(run.checkpoints) as checkpoints:
            assert checkpoints.latest() == fitted.progress
    assert_same_as(uninterrupted, fit(run, experiment), run, experiment)


def test_a_training_that_broke_off_without_saving_goes_on_from_its_last_checkpoint(run, experiment, uninterrupted):
    with pytest.raises(Unplugged):
        fit(run, experiment, reporter=unplugged_at(2 * STEPS + 3))
    with Checkpoints(run.checkpoints) as checkpoints:
        assert checkpoints.latest().step == 2 * STEPS
    assert_same_as(uninterrupted, fit(run, experiment), run, experiment)


def test_without_its_latest_checkpoint_a_killed_training_goes_on_from_the_one_before(run, experiment, uninterrupted):
    with pytest.raises(Unplugged):
        fit(run, experiment, reporter=unplugged_at(2 * STEPS + 3))
    shutil.rmtree(run.checkpoints / str(2 * STEPS))
    with Checkpoints(run.checkpoints) as checkpoints:
        assert checkpoints.latest().step == STEPS
    steps = []
    fitted = fit(run, experiment, reporter=Watch(on_step=steps.append))
    assert steps[0] == STEPS + 1
    assert_same_as(uninterrupted, fitted, run, experiment)


def test_a_finished_training_takes_no_further_step(uninterrupted, experiment):
    fitted, run, _ = uninterrupted
    steps = []
    again = fit(run, experiment, reporter=Watch(on_step=steps.append))
    assert steps == []
    assert_same_as(uninterrupted, again, run, experiment)
    assert again.progress == fitted.progress


def test_signals_are_someone_elses_again_after_training(run, experiment):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    fit(run, experiment, reporter=stopping_at(1, signal.SIGINT))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_signal_does_not_wait():
    with StopRequest().listening() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# Killed


class Process:
    """A training in a process of its own (see `training.main`), which is dead for certain when the context ends."""

    def __init__(self, folder, pause):
        self.folder = Path(folder)
        script = Path(training.__file__)
        self._errors = (self.folder.parent / "stderr").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(folder), pause],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **library_environment(), **KEPT, "PYTHONUNBUFFERED": "1"},
        )
        self._deadline = threading.Timer(PATIENCE, self._process.kill)
        self.lines = []

    def __enter__(self):
        self._deadline.start()
        return self

    def __exit__(self, *_):
        self._deadline.cancel()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def read(self):
        """The next line that it says."""
        said = self._process.stdout.readline()
        if not said:
            self._errors.seek(0)
            raise AssertionError(f"it ended after {self.lines}; stderr:\n{self._errors.read()}")
        self.lines.append(said.strip())
        return self.lines[-1]

    def go_on(self):
        """Lets it take another step."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def walk_to(self, step):
        """Lets it take steps until it has said that it has taken `step`."""
        while (line := self.read()) != f"step {step}":
            if line.startswith("step"):
                self.go_on()

    def send(self, number):
        self._process.send_signal(number)

    def kill(self):
        """SIGKILL, which no process can do anything about; then reads what it had said."""
        self._process.kill()
        self.lines += self._process.stdout.read().split("\n")
        assert self._process.wait() == -signal.SIGKILL

    @contextlib.contextmanager
    def frozen(self, *, saving=False):
        """Stops it for a while: now, or once it is in the middle of writing a checkpoint."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not saving or self.half_saved():
                self._process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
                if not saving or self.half_saved():  # else it got done in the meantime
                    break
                self._process.send_signal(signal.SIGCONT)
            time.sleep(0.0005)
        else:
            raise AssertionError(f"never seen saving; said {self.lines}")
        yield
        self._process.send_signal(signal.SIGCONT)

    def half_saved(self):
        return list((self.folder / "checkpoints").glob("*tmp*"))

    def ended(self):
        """Waits for its end; returns its status."""
        status = self._process.wait(timeout=PATIENCE)
        self.lines += self._process.stdout.read().strip().split("\n")
        return status

    @property
    def first_step(self):
        return int(next(line for line in self.lines if line.startswith("step")).split()[1])

    @property
    def epochs_said(self):
        return max((int(line.split()[1]) for line in self.lines if line.startswith("epoch")), default=0)


def test_a_training_killed_at_any_moment_goes_on_to_the_same_end(tmp_path, experiment, uninterrupted):
    """SIGKILL while a checkpoint is being written, and at random; and as many moments more in between.

    For those the process is frozen and its folder copied: what SIGKILL would have left at that moment.
    """
    folder, rng, left = tmp_path / "run", random.Random(4), []
    saved = 0  # epochs that are on disk for certain

    def copy():
        left.append(Path(shutil.copytree(folder, tmp_path / f"copy {len(left)}")))

    for saving_first in (False, True):
        with Process(folder, "0.08") as process:
            while not process.read().startswith("step"):
                pass
            # It began where the one before had saved: no more is lost than what came after.
            assert process.first_step > saved * STEPS
            for saving in (saving_first, not saving_first):
                time.sleep(rng.uniform(0, 0.4))
                with process.frozen(saving=saving):
                    copy()
                    assert not saving or list(left[-1].glob("checkpoints/*tmp*"))
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            # The checkpoint of an epoch is written while the next is trained, and is done before another is begun.
            saved = max(saved, process.epochs_said - 1)
    for place in [*left, folder]:
        run = run_folder.open_run(place)
        assert_same_as(uninterrupted, fit(run, experiment), run, experiment)


def test_a_training_that_is_asked_to_stop_saves_in_the_middle_of_an_epoch(tmp_path, experiment, uninterrupted):
    """SIGTERM as a cluster sends it, and SIGINT as Ctrl-C does."""
    folder = tmp_path / "run"
    for step, number in ((5, signal.SIGTERM), (9, signal.SIGINT)):
        with Process(folder, "-") as process:
            process.walk_to(step)
            process.send(number)
            process.go_on()
            process.walk_to(step + 1)  # was under way already
            process.go_on()
            assert process.ended() == 0
            assert process.lines[-1] == f"interrupted {step + 1} {number!s}"
        run = run_folder.open_run(folder)
        with Checkpoints(run.checkpoints) as checkpoints:
            assert checkpoints.latest().step == step + 1
    assert_same_as(uninterrupted, fit(run, experiment), run, experiment)


# Damaged


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(half_way, experiment, uninterrupted):
    latest = half_way.checkpoints / "10"
    data = max((latest / "state" / "d").iterdir(), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    before = {path: path.stat().st_mtime_ns for path in half_way.folder.rglob("*")}
    with pytest.raises(MetarecError) as caught:
        fit(half_way, experiment)
    message = str(caught.value)
    assert str(latest) in message
    assert f"delete that folder to go on from step {2 * STEPS}" in message
    assert {path: path.stat().st_mtime_ns for path in half_way.folder.rglob("*")} == before
    shutil.rmtree(latest)  # as the message says
    assert_same_as(uninterrupted, fit(half_way, experiment), half_way, experiment)


def test_lost_best_parameters_cannot_be_made_up_for(uninterrupted, experiment, tmp_path):
    fitted, finished, _ = uninterrupted
    run = copy_of(finished, tmp_path)
    run.parameters.unlink()
    with pytest.raises(MetarecError, match=r"holds no file of trained parameters yet: .* `metarec train --resume"):
        load_trainable(run, experiment.catalogue)
    with pytest.raises(MetarecError) as caught:
        fit(run, experiment)
    assert str(caught.value).startswith(str(run.parameters))
    assert str(run.checkpoints / str(fitted.progress.best_step)) in str(caught.value)
    assert str(caught.value).endswith("restore it from a copy, or train the run again")


def test_damaged_best_parameters_are_named(uninterrupted, experiment, tmp_path):
    run = copy_of(uninterrupted[1], tmp_path)
    run.parameters.write_bytes(run.parameters.read_bytes()[:-10])
    for use in (lambda: load_trainable(run, experiment.catalogue), lambda: fit(run, experiment)):
        with pytest.raises(MetarecError, match="restore it from a copy, or train the run again") as caught:
            use()
        assert str(run.parameters) in str(caught.value)


def copy_of(run, place):
    return run_folder.open_run(Path(shutil.copytree(run.folder, place / "copy")))


def test_lines_of_work_that_was_not_saved_are_dropped(half_way, experiment, uninterrupted):
    """A crash after an epoch was booked and before its checkpoint was whole; and one in the middle of a line."""
    lines = half_way.metrics.read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    unsaved = json.dumps({"epoch": 3, "step": 12, "train_loss": 0.5, "validation_loss": 0.25})
    half_way.metrics.write_text("\n".join([*lines, unsaved, unsaved[:20]]))
    fitted = fit(half_way, experiment)
    assert_same_as(uninterrupted, fitted, half_way, experiment)


# Of version 0.1


def test_a_run_of_version_0_1_goes_on(run, experiment, uninterrupted):
    """It has the best checkpoint and the latest, progress with other fields, and no file of the best parameters."""
    fit(run, experiment, reporter=stopping_at(STEPS + 1))
    for path in run.checkpoints.glob("*/digests.*.json"):
        path.unlink()
    for path in run.checkpoints.glob("*/_CHECKPOINT_METADATA"):
        document = json.loads(path.read_text())
        progress = document["custom_metadata"]
        total, weight = progress.pop("sums").get("loss", (0.0, 0.0))
        progress |= {"iterator": progress.pop("position"), "epoch_query": total, "epoch_rows": weight}
        path.write_text(json.dumps(document))
    run.parameters.unlink()
    kept = trace_of(run, experiment)
    assert list(kept.states) == [STEPS, STEPS + 2]
    fitted = fit(run, experiment, reporter=stopping_at(STEPS + 2))
    assert fitted.progress.best_step == STEPS
    best = program_of(run, experiment).trained(jax.device_put(kept.states[STEPS]))
    assert_equal(load_trainable(run, experiment.catalogue), jax.device_get(best))
    assert_same_as(uninterrupted, fit(run, experiment), run, experiment)
