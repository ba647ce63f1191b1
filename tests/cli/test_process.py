"""The command line as a process: exit statuses, signals, pipes, and what is imported when."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "100"}


def metarec(environment: dict[str, str], *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "metarec_jax", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, **options)


def test_the_package_and_all_help_are_cheap_to_import(environment):
    code = (
        "import contextlib, sys, metarec_jax.cli.main as cli, metarec_jax; metarec_jax.preset('synthetic')\n"
        "cli.main(['--help'])\n"
        "for command in cli.COMMANDS:\n"
        "    with contextlib.suppress(SystemExit): cli.main([command, '--help'])\n"
        "heavy = {'jax', 'flax', 'orbax', 'transformers', 'pandas', 'pyarrow', 'matplotlib', 'grain'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert done.stderr == "[]\n"
    assert done.stdout.startswith("usage: metarec COMMAND")


def test_a_mistake_is_one_line_and_status_2(environment, tmp_path):
    done = metarec(environment, "recommend", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("metarec: nowhere is not a run folder: nowhere/config.json does not exist")


def test_a_reader_that_goes_away_is_no_error(environment):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "metarec_jax", "--help"]
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=600)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def started(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen:
    """`metarec train`, when it has trained for an epoch; its stderr goes to ``folder.log``."""
    log = folder.with_suffix(".log")
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "metarec_jax", "train", *arguments], env=environment, stderr=file, stdout=file
        )
    deadline = time.monotonic() + 240
    while "training loss" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return process


def test_a_stopped_training_saves_and_says_how_to_go_on(environment, tmp_path):
    run = tmp_path / "run"
    small = ["--preset", "synthetic", "--updater.steps", "1", "--updater.order", "first", "--learner.user-side", "none"]
    process = started(environment, run, *small, "--train.epochs", "500", "--train.patience", "0", "--out", str(run))
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM
    said = run.with_suffix(".log").read_text()
    assert "metarec: stopped by SIGTERM after" in said
    assert f"Continue with: metarec train --resume {run}" in said
    assert "Traceback" not in said
    epochs = len((run / "metrics.jsonl").read_text().splitlines())
    process = started(environment, run, "--resume", str(run))
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 128 + signal.SIGINT
    said = run.with_suffix(".log").read_text()
    assert "metarec: stopped by SIGINT after" in said
    assert "Traceback" not in said
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) > epochs
    done = metarec(environment, "recommend", str(run), "--rate", "id:1=5", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(json.loads(done.stdout)["recommended"]) == 10


def test_stopped_before_training_leaves_nothing(environment, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "metarec_jax", "train", "--preset", "synthetic", "--out", str(run)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=600)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert first.startswith("synthetic ratings of seed 0")
    assert rest.endswith("metarec: stopped\n")
    assert not run.exists()


SIGNALLED = """
import gc, os, signal, sys, time

def callback(phase, info):
    if "metarec_jax.train.loop" not in sys.modules:  # libraries that are being imported discard exceptions, too
        return
    gc.callbacks.remove(callback)
    os.kill(os.getpid(), signal.{name})
    time.sleep(0)  # Python handles the signal here, and discards the exception

gc.callbacks.append(callback)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_in_a_callback_of_the_garbage_collector_stops(number, environment, tmp_path):
    (tmp_path / "signalled.py").write_text(SIGNALLED.format(name=number.name))
    arguments = ("train", "--plugin", "signalled", "--preset", "synthetic", "--out", str(tmp_path / "run"))
    done = metarec(environment, *arguments, cwd=tmp_path)
    assert done.returncode == 128 + number
    assert "metarec: stopped" in done.stderr


DISCARDING = """
import os, signal, time

for n in range(3):
    try:
        if n == 0:
            os.kill(os.getpid(), signal.{name})
        time.sleep(60)
    except BaseException:
        print("discarded", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_a_library_discards_stops_all_the_same(number, environment, tmp_path):
    (tmp_path / "discarding.py").write_text(DISCARDING.format(name=number.name))
    done = metarec(environment, "--version", "--plugin", "discarding", cwd=tmp_path)
    assert done.stdout == "discarded\n" * 3
    assert done.returncode == 128 + number
    assert done.stderr == "metarec: stopped\n"


ENDING = """
import atexit, threading, time

class Kept:
    def __del__(self):
        print("finalised")

kept = Kept()
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.5), print("a thread"))).start()
"""


@pytest.mark.parametrize(("arguments", "status", "said"), [(["--version"], 0, "metarec_jax"), (["nothing"], 2, "")])
def test_a_process_ends_without_finalising_the_interpreter_under_threads_of_libraries(
    environment, tmp_path, arguments, status, said
):
    (tmp_path / "ending.py").write_text(ENDING)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = metarec(environment, *arguments, "--plugin", "ending")
    assert done.returncode == status
    assert said in done.stdout
    assert done.stdout.endswith("a thread\nat exit\n")
