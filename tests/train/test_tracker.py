"""Trackers of metrics, and profiles of steps."""

import gzip
import json
import struct
import subprocess
import sys

import pytest
from training import Watch, small_config, small_experiment, stopping_at

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import TRACKERS
from metarec_jax.train import run_folder
from metarec_jax.train.monitor import Monitor
from metarec_jax.train.start import fit
from metarec_jax.train.tracker import flat


@pytest.fixture(scope="module")
def experiment():
    return small_experiment(small_config())


@pytest.fixture
def run(experiment, tmp_path):
    return run_folder.create(tmp_path / "run", experiment.config)


def events(folder):
    """(step, name, number) of every scalar in the event files of a folder, in order."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):  # records: length, checksum, data, checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield event.step, value.tag, value.simple_value
            at += 16 + length


def test_tensorboard_gets_every_line_also_after_a_resume(run, experiment):
    for watch in (stopping_at(9), Watch()):
        with Monitor(trackers=["tensorboard"]) as monitor:
            fit(run, experiment, reporter=watch, monitor=monitor)
    found = {(step, name): number for step, name, number in events(run.folder / "tensorboard")}
    lines = list(run.read_metrics())
    assert len(lines) == 4
    for line in lines:
        for name, number in flat({key: value for key, value in line.items() if key != "step"}).items():
            assert found[line["step"], name] == pytest.approx(number, rel=1e-6)


def test_trainings_within_one_second_keep_each_others_events(tmp_path):
    for step in range(5):
        tracker = TRACKERS.get("tensorboard")(tmp_path, {})
        tracker.log(step, {"loss": step / 2})
        tracker.close()
    assert list(events(tmp_path / "tensorboard")) == [(step, "loss", step / 2) for step in range(5)]


class Broken:
    """Raises an error at its second line."""

    def __init__(self, folder, config):
        self.lines = 0
        assert config["train"]["epochs"] == 4
        assert folder.is_dir()

    def log(self, step, metrics):
        self.lines += 1
        if self.lines == 2:
            raise ConnectionError(f"no connection at step {step}")
        assert self.lines < 2

    def close(self):
        raise AssertionError("it was left out before")


def test_training_goes_on_without_a_tracker_that_fails(run, experiment):
    if "broken" not in TRACKERS.names():
        TRACKERS.register("broken")(Broken)
    watch = Watch()
    with Monitor(trackers=["broken"]) as monitor:
        fitted = fit(run, experiment, reporter=watch, monitor=monitor)
    assert fitted.progress.finished
    (note,) = [note for note in watch.notes if "--tracker" in note]
    assert "--tracker broken failed" in note
    assert "no connection at step 8" in note


def test_an_unknown_tracker_is_named_with_those_that_exist():
    with pytest.raises(MetarecError, match=r"--tracker is 'tensorbord'.*did you mean 'tensorboard'"):
        Monitor(trackers=["tensorbord"])


def test_without_its_package_the_extra_is_named():
    code = (
        "import sys; sys.modules['tensorboardX'] = None\n"
        "from metarec_jax.train.tracker import Trackers\n"
        "try: Trackers(['tensorboard'])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("MetarecError tensorboardX is not installed"), done.stderr
    assert "metarec_jax[tensorboard]" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "stop"), [(3, 16), (100, 7)])
def test_a_profile_holds_that_many_steps_or_ends_with_the_training(run, experiment, steps, stop):
    watch = stopping_at(stop) if stop < 16 else Watch()
    with Monitor(trace=steps) as monitor:
        fit(run, experiment, reporter=watch, monitor=monitor)
    folder = run.folder / "profile" / "process-0"
    (path,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    profiled = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    numbers = [int(event["args"]["step_num"]) for event in profiled if "step_num" in event.get("args", {})]
    assert sorted(set(numbers)) == list(range(3, 3 + min(steps, stop + 1 - 2))), "those after the first two"
    assert sum(str(folder) in note for note in watch.notes) == 1
