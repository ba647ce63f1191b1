"""One process at a time writes a run; the second is told who does, and leaves everything as it is."""

import json
import signal
import time

import pytest
from cases.metarec_process import SMALL, begin, metarec, write_data

from metarec_jax.train.run_folder import hold

LONG = (*SMALL[:-1], "3000", "--train.patience", "0")


def started(process, folder, epochs):
    """Wait until a training has written so many lines of metrics."""
    for _ in range(600):
        time.sleep(0.2)
        if (folder / "metrics.jsonl").exists() and len((folder / "metrics.jsonl").read_text().splitlines()) >= epochs:
            return
        assert process.poll() is None, process.communicate()
    raise AssertionError("it does not start")


@pytest.mark.slow
def test_a_second_training_of_a_folder_is_refused_and_readers_are_not(tmp_path):
    data, run = write_data(tmp_path), tmp_path / "r"
    first = begin("train", *data, *LONG, "--out", "r", cwd=tmp_path)
    try:
        started(first, run, 2)
        for arguments in (("--out", "r", *data, *SMALL), ("--resume", "r")):
            status, _, err = metarec("train", *arguments, cwd=tmp_path)
            assert status == 2
            assert f"is in use by process {first.pid} on " in err or "already holds a run: continue it" in err
        status, out, err = metarec("recommend", "r", "--rate", "id:1=5", "-k", "1", cwd=tmp_path)
        assert (status, "Lamp" in out) == (0, True), err
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=600)
    assert first.returncode == 130
    assert not (run / ".lock").exists()
    second = begin("train", "--resume", "r", cwd=tmp_path)
    try:
        lines = len((run / "metrics.jsonl").read_text().splitlines())
        started(second, run, lines + 2)
        second.kill()  # which takes its lock with it
        second.communicate()
        with hold(run):
            assert json.loads((run / ".lock").read_text())["pid"] != second.pid
    finally:
        second.kill()
        second.communicate()
    epochs = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1))


def test_a_folder_that_is_held_before_there_is_a_run_is_refused_too(tmp_path):
    data = write_data(tmp_path)
    with hold(tmp_path / "r"):
        for command in ("train", "pretrain", "tune"):
            more = () if command == "pretrain" else SMALL
            status, _, err = metarec(command, *data, *more, "--out", "r", cwd=tmp_path)
            assert (status, "the folder r is in use by process" in err) == (2, True), err
        assert [path.name for path in (tmp_path / "r").iterdir()] == [".lock"]
    assert not (tmp_path / "r").exists()
