"""The training loop: stopping and going on anywhere leads to the same bits, and what is saved is always of use."""

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training
from helpers import assert_close, assert_equal
from quick import quick_flags
from training import STEPS, Watch, changed, small_config, small_experiment, trace_of

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.device_memory import SHARE, free_memory, temporaries
from metarec_jax.core.errors import MetarecError
from metarec_jax.meta.outer import Losses, TrainState
from metarec_jax.meta.user import Trainable
from metarec_jax.train import loop, run_folder
from metarec_jax.train.checkpoints import Checkpoints
from metarec_jax.train.sharding import replicate, shard_users, user_mesh
from metarec_jax.train.signals import StopRequest
from metarec_jax.train.start import fit
from metarec_jax.train.state import first_state, load_trainable

PATIENCE = 120
"""Seconds after which a process is killed, whatever it does."""


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


def stopping_at(step, number=signal.SIGTERM):
    """A reporter that sends a signal when `step` has been looked at, at which time the next is under way."""
    return Watch(on_step=lambda done: signal.raise_signal(number) if done == step else None)


def assert_same_as(uninterrupted, fitted, run, experiment):
    """`fitted`, and everything in the folder of `run`, equals the uninterrupted training bit by bit."""
    want, _, want_trace = uninterrupted
    got_trace = trace_of(run, experiment)
    assert not fitted.interrupted
    assert_equal(fitted.trainable, want.trainable)
    assert fitted.progress == want.progress
    assert got_trace.states.keys() == want_trace.states.keys()
    assert_equal(got_trace.states, want_trace.states)
    assert got_trace.progress == want_trace.progress
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
        pytest.param([9], id="in the middle of an epoch"),
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
    class Unplugged(Exception):
        pass

    def unplug(step):
        if step == 2 * STEPS + 3:
            raise Unplugged

    with pytest.raises(Unplugged):
        fit(run, experiment, reporter=Watch(on_step=unplug))
    with Checkpoints(run.checkpoints) as checkpoints:
        assert checkpoints.latest().step == 2 * STEPS
    assert_same_as(uninterrupted, fit(run, experiment), run, experiment)


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
            env=os.environ | {"PYTHONUNBUFFERED": "1", "XLA_FLAGS": quick_flags()},  # as here, to the last bit
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
    with Checkpoints(half_way.checkpoints) as checkpoints:
        best = checkpoints.latest().best_step
    latest = half_way.checkpoints / "10"
    data = max((latest / "state" / "d").iterdir(), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    before = {path: path.stat().st_mtime_ns for path in half_way.folder.rglob("*")}
    with pytest.raises(MetarecError) as caught:
        fit(half_way, experiment)
    message = str(caught.value)
    assert str(latest) in message
    assert f"delete that folder to go on from step {best}" in message
    assert {path: path.stat().st_mtime_ns for path in half_way.folder.rglob("*")} == before
    shutil.rmtree(latest)  # as the message says
    assert_same_as(uninterrupted, fit(half_way, experiment), half_way, experiment)


def test_a_lost_best_checkpoint_cannot_be_made_up_for(uninterrupted, experiment, tmp_path):
    fitted, finished, _ = uninterrupted
    run = copy_of(finished, tmp_path)
    best = run.checkpoints / str(fitted.progress.best_step)
    shutil.rmtree(best)
    for use in (lambda: load_trainable(run, experiment.catalogue), lambda: fit(run, experiment)):
        with pytest.raises(MetarecError) as caught:
            use()
        assert str(best) in str(caught.value)
        assert str(caught.value).endswith("restore it from a copy, or train the run again")


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


# Numbers that are not finite


def test_a_huge_inner_rate_stops_training_before_anything_is_saved(tmp_path):
    config = dataclasses.replace(small_config(), updater=UpdaterConfig(steps=2, rate=1e30, order="first"))
    run = run_folder.create(tmp_path / "run", config)
    with pytest.raises(MetarecError, match=r"training loss became (nan|inf) at outer step 1 \(epoch 1\): lower .*rate"):
        fit(run, small_experiment(config))
    assert not list(run.checkpoints.glob("[0-9]*"))
    with pytest.raises(MetarecError, match=r"holds no trained model yet.*--resume"):
        load_trainable(run, small_experiment(config).catalogue)


def scripted(monkeypatch, *, loss=lambda step: 1.0, moved=lambda step: 1.0, validation=lambda step: 1.0):
    """Replaces the model by one parameter, and the numbers of training by functions of the step.

    Args:
        loss: training loss of outer step 1, 2, ...
        moved: what that step adds to the parameter.
        validation: validation loss after so many steps.
    """

    def first_state(experiment, steps):
        theta = {"weight": jnp.zeros(1)}
        theta["input"] = {table: {"shift": jnp.zeros(()), "scale": jnp.ones(())} for table in ("item", "user")}
        trainable = Trainable(theta=theta, phi={})
        return TrainState(trainable, (), jnp.zeros((), jnp.int32), jax.random.key(0))

    def make_step(model, optimiser, **options):
        def step(state, tables, episodes):
            now = state.step + 1
            trainable = jax.tree.map(lambda leaf: leaf + moved(now), state.trainable)
            losses = Losses(query=jnp.float32(loss(now)), rows=jnp.float32(1.0), stopped=jnp.full(1, 6))
            return state._replace(trainable=trainable, step=now), losses

        return step

    def validation_loss(model, mesh, part):
        return lambda trainable: float(validation(trainable.theta["weight"][0]))

    monkeypatch.setattr(loop, "first_state", first_state)
    monkeypatch.setattr(program, "make_step", make_step)
    monkeypatch.setattr(loop, "validation_loss", validation_loss)


def test_a_loss_that_is_not_finite_stops_training_with_the_state_before_it_saved(run, experiment, monkeypatch):
    bad = 2 * STEPS + 2
    scripted(monkeypatch, loss=lambda step: jnp.where(step >= bad, jnp.nan, 1.0))
    for _ in range(2):  # trying again changes nothing
        with pytest.raises(MetarecError) as caught:
            fit(run, experiment)
        message = str(caught.value)
        assert f"the training loss became nan at outer step {bad} (epoch 3)" in message
        assert "lower --train.rate or --updater.rate" in message
        assert list(trace_of(run, experiment).states) == [STEPS, 2 * STEPS]
        assert [line["epoch"] for line in run.read_metrics()] == [1, 2]
    assert_finite(trace_of(run, experiment))


@pytest.mark.parametrize(
    "reporter",
    [
        pytest.param(lambda: stopping_at(STEPS + 1), id="stopped on the way"),
        pytest.param(Watch, id="at the end of an epoch"),
    ],
)
def test_parameters_that_are_not_finite_are_not_saved_even_where_no_loss_shows_it_yet(
    run, experiment, monkeypatch, reporter
):
    bad = STEPS + 2 if reporter is not Watch else 2 * STEPS
    scripted(monkeypatch, moved=lambda step: jnp.where(step >= bad, jnp.inf, 1.0))
    with pytest.raises(MetarecError, match=rf"^theta/.* became infinite or NaN by outer step {bad}: lower .*rate"):
        fit(run, experiment, reporter=reporter())
    assert list(trace_of(run, experiment).states) == [STEPS]
    assert_finite(trace_of(run, experiment))


def test_a_validation_loss_that_is_not_finite_stops_training(run, experiment, monkeypatch):
    scripted(monkeypatch, validation=lambda step: np.nan if step > STEPS else 1.0)
    with pytest.raises(MetarecError, match=r"validation loss became nan in epoch 2: lower --train\.rate"):
        fit(run, experiment)
    assert list(trace_of(run, experiment).states) == [STEPS]
    assert [line["epoch"] for line in run.read_metrics()] == [1]


def assert_finite(trace):
    for leaf in jax.tree.leaves(trace.states):
        assert np.isfinite(leaf).all()


def test_a_learned_rate_that_overflowed_is_named_where_the_loss_shows_it(run, experiment, monkeypatch):
    """And not the user whose inner loop it was the first to spoil: the logarithm itself is finite still."""
    original = first_state

    def spoiled(experiment, steps):
        state = original(experiment, steps)
        state.trainable.phi["log_rate"]["output"]["bias"] += 100
        return state

    monkeypatch.setattr(loop, "first_state", spoiled)
    with pytest.raises(MetarecError) as caught:
        fit(run, experiment)
    assert str(caught.value).startswith(
        "the training loss became nan at outer step 1 (epoch 1), since exp(phi/log_rate/output/bias) had become "
        "infinite or NaN: lower --train.rate or --updater.rate"
    )
    assert not list(run.checkpoints.glob("[0-9]*"))


def test_a_learned_rate_that_overflowed_is_not_saved_where_no_loss_shows_it_yet(tmp_path):
    """After the one outer step of an epoch, which moved every logarithm of a rate by 1,000, up or down."""
    config = changed(small_config(), rate=1e3, warmup=0.0, users_per_step=32)
    run, experiment = run_folder.create(tmp_path / "run", config), small_experiment(config)
    assert experiment.train.source.batches == 1
    with pytest.raises(MetarecError) as caught:
        fit(run, experiment)
    assert re.match(r".*exp\(phi/log_rate/.*\).* became infinite or NaN by outer step 1: lower", str(caught.value))
    assert not list(run.checkpoints.glob("[0-9]*"))


# What is kept, and when training ends

LOSSES = [5.0, 3.0, 4.0, 2.0, 2.5, 2.0, 3.0, 1.0]
"""Of the epochs: the fourth is the best, also when the sixth is as good, until the eighth."""


def scripted_run(tmp_path, monkeypatch, losses, **changes):
    """A run whose validation losses are `losses`; each step adds 1 to every parameter."""
    config = changed(small_config(), epochs=len(losses), **changes)
    scripted(monkeypatch, validation=lambda step: losses[int(step) // STEPS - 1])
    return run_folder.create(tmp_path / "run", config), small_experiment(config)


@pytest.mark.parametrize(("patience", "epochs", "best"), [(1, 3, 2), (3, 7, 4), (0, 8, 8)])
def test_training_ends_when_the_validation_loss_has_not_improved_for_long(
    tmp_path, monkeypatch, patience, epochs, best
):
    run, experiment = scripted_run(tmp_path, monkeypatch, LOSSES, patience=patience)
    fitted = fit(run, experiment)
    assert fitted.progress.finished
    assert not fitted.interrupted
    assert (fitted.progress.epoch, fitted.progress.best_epoch) == (epochs, best)
    assert fitted.progress.best_loss == LOSSES[best - 1]
    assert [line["validation_loss"] for line in run.read_metrics()] == LOSSES[:epochs]
    # The parameters of the best epoch, and only those of the best and the latest are kept.
    assert fitted.trainable.theta["weight"].tolist() == [best * STEPS]
    trace = trace_of(run, experiment)
    assert list(trace.states) == sorted({best * STEPS, epochs * STEPS})
    assert trace.progress[best * STEPS].best_step == best * STEPS


def test_of_equal_losses_the_first_is_the_best_and_is_kept(tmp_path, monkeypatch):
    run, experiment = scripted_run(tmp_path, monkeypatch, [2.0, 2.0, 2.0], patience=0)
    fitted = fit(run, experiment)
    assert fitted.progress.best_epoch == 1
    assert fitted.trainable.theta["weight"].tolist() == [STEPS]


def test_epochs_are_saved_now_and_then_and_whenever_they_are_the_best(tmp_path, monkeypatch):
    run, experiment = scripted_run(tmp_path, monkeypatch, LOSSES[:7], patience=0, save_every=3)
    with mock.patch.object(Checkpoints, "save", autospec=True, side_effect=Checkpoints.save) as save:
        fit(run, experiment)
    # 1, 2 and 4 were the best so far, 3 and 6 are multiples of 3, 7 is the end.
    assert [call.args[2].epoch for call in save.call_args_list] == [1, 2, 3, 4, 6, 7]


def test_parameters_can_be_loaded_as_soon_as_an_epoch_has_ended(run, experiment):
    """And while training goes on: a reader leaves alone what is being saved."""
    with pytest.raises(MetarecError, match=r"no trained model yet: no epoch has ended; train on with .*--resume"):
        load_trainable(run, experiment.catalogue)
    fit(run, experiment, reporter=stopping_at(1))
    assert (run.checkpoints / "2").is_dir()
    with pytest.raises(MetarecError, match="no epoch has ended"):
        load_trainable(run, experiment.catalogue)
    half_saved = run.checkpoints / "4.orbax-checkpoint-tmp"
    half_saved.mkdir()
    fitted = fit(run, experiment, reporter=stopping_at(STEPS + 1))
    assert not half_saved.exists(), "a training removes what one before it left half-saved"
    half_saved.mkdir()
    assert_equal(load_trainable(run, experiment.catalogue), fitted.trainable)
    assert half_saved.exists()


# On the devices


def test_transfers_that_nobody_asked_for_are_refused_during_an_epoch(run, experiment):
    def transfer(step):
        jnp.sin(np.ones(3, np.float32) * step)

    transfer(0)  # elsewhere it is allowed
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        fit(run, experiment, reporter=Watch(on_step=transfer))


def test_eight_devices_compile_once_a_bucket_and_train_as_one_does(tmp_path, compilations, monkeypatch):
    """Two buckets, three epochs, two users a device.

    Sums over users are taken in another order on eight devices: a few roundings of 6e-8, which TOLERANCE leaves room
    for. Another dropout mask would change the first digit.
    """
    fitted, batches = {}, []

    def watched(mesh, episodes):
        batches.append(shard_users(mesh, episodes))
        return batches[-1]

    monkeypatch.setattr(loop, "shard_users", watched)
    for devices in (1, 8):
        config = small_config(buckets=(6, 8), epochs=3, users_per_step=16, devices=devices)
        experiment = small_experiment(config)
        assert len({experiment.train.source[i].support.item.shape for i in range(len(experiment.train.source))}) == 2
        run = run_folder.create(tmp_path / str(devices), config)
        compilations.clear()
        batches.clear()
        fitted[devices] = fit(run, experiment)
        assert {len(batch.weight.sharding.device_set) for batch in batches} == {devices}
        assert compilations.count("jit(step)") == 2, compilations
        assert compilations.count("jit(<lambda>)") == 2, compilations
    one, eight = fitted[1], fitted[8]
    assert eight.progress.best_step == one.progress.best_step
    assert eight.progress.best_loss == pytest.approx(one.progress.best_loss, rel=1e-5)
    assert_close(eight.trainable, one.trainable)


# In micro-batches


def test_micro_batches_train_as_the_whole_batch_does(tmp_path):
    """Three users at a time, of batches of eight: a last micro-batch is filled up with users who count nothing."""
    fitted = {}
    for users in (32, 3):
        config = small_config(epochs=2, users_per_device=users)
        run = run_folder.create(tmp_path / str(users), config)
        fitted[users] = fit(run, small_experiment(config))
    assert_close(fitted[3].trainable, fitted[32].trainable)
    assert fitted[3].progress.epoch == 2


def test_as_many_users_as_fit_are_taken(tmp_path, monkeypatch):
    """By the memory of the compiled step: with room for a few users, the largest half, quarter, ... that fits."""
    config = small_config(epochs=1, users_per_device=0)
    experiment = small_experiment(config)

    def taken(budget, folder):
        monkeypatch.setattr(program, "free_memory", lambda device: budget / SHARE)
        watch = Watch()
        fitted = fit(run_folder.create(tmp_path / folder, config), experiment, reporter=watch)
        (note,) = [note for note in watch.notes if "users at a time" in note]
        return int(note.split()[0]), fitted

    roomy, whole = taken(1e9, "roomy")
    assert roomy == 8
    mesh = user_mesh(1)
    state = replicate(mesh, first_state(experiment, len(experiment.train.source)))
    tables = experiment.model.prepare(state.trainable.theta, replicate(mesh, experiment.train.tables))
    frozen = program.frozen_program(experiment, mesh, tables)

    def needed(users):
        fed, episodes = frozen.feed(experiment.train.source[0])
        on_device = shard_users(mesh, program.whole(episodes, mesh, users))
        return temporaries(frozen.make(users).lower(state, fed, on_device).compile())

    assert needed(2) < needed(4) < needed(8)
    tight, parts = taken(needed(2) + 1, "tight")
    assert tight == 2
    assert_close(parts.trainable, whole.trainable)
    with pytest.raises(MetarecError, match=r"one user needs .* MB .*lower --episodes\.max-support"):
        taken(1, "none")


def test_free_memory_is_that_of_the_machine_on_a_cpu():
    free = free_memory(jax.devices()[0])
    assert 1e6 < free < 1e13


# Diverging


def test_an_inner_loop_that_diverges_is_reported_with_user_and_step(tmp_path):
    """A step so long that the third support loss overflows; what was saved before stays as it is, without a NaN."""
    config = small_config(epochs=2)
    config = dataclasses.replace(config, updater=UpdaterConfig(steps=4, rate=1e8))
    experiment = small_experiment(config)
    run = run_folder.create(tmp_path / "run", config)
    with pytest.raises(MetarecError) as caught:
        fit(run, experiment)
    found = re.search(
        r"training loss became (nan|inf) at outer step \d+ \(epoch 1\), since the inner loop of user '(u\d+)' diverged "
        r"at inner step (\d), and \d more of \d users: lower --train\.rate or --updater\.rate",
        str(caught.value),
    )
    assert found, str(caught.value)
    assert int(found[2][1:]) in experiment.splits.train
    assert 2 <= int(found[3]) <= 5
    assert not list(run.checkpoints.glob("[0-9]*"))


def test_who_diverged_is_whose_loss_left_the_finite_numbers_first():
    names = ["ann", "bob", "cid"]
    assert loop._diverged(np.array([6, 6, 6, 0]), names) == ""  # the fourth only fills up the batch
    assert "user 'bob' diverged at inner step 3" in loop._diverged(np.array([6, 2, 6]), names)
    assert "user 'cid' diverged at inner step 1, and 1 more of 3" in loop._diverged(np.array([6, 2, 0]), names)
