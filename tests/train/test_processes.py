"""Several processes train one run: they give what one gives, stop together, and end where one is lost."""

import contextlib
import functools
import re
import shutil
import signal

import numpy as np
import pytest
from helpers import assert_close, assert_equal, assert_says
from several import (
    FACTORS,
    JOINT,
    PRIVATE,
    begin,
    best_parameters,
    ended,
    metrics,
    run_together,
    saved_state,
    several,
    statuses,
    terminate,
    train_alone,
    wait_until,
    write_data,
)

pytestmark = pytest.mark.long

STEPS = 20
"""Of the trainings that are compared."""
CANCELLING = ("choice/middle", "head/first")
"""Endings of names of single numbers whose gradient is a difference of sums."""
TOGETHER, LOST = 75, 76
"""Exit statuses of processes that stopped together, and of those that lost another one."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """The runs of one process with four devices by their options, each trained once."""

    @functools.cache
    def run(options):
        out = tmp_path_factory.mktemp("alone") / "run"
        assert statuses([train_alone([*data, *options, "--out", str(out)], devices=4, cwd=out.parent)]) == [0]
        return out

    return run


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A frozen run with factors of two processes with two devices each, which nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    found = run_together(2, [*data, *FACTORS, "--out", str(out)], devices=2, cwd=out.parent)
    assert statuses(found) == [0, 0]
    assert found[1].out == ""
    return out


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """The same run after a SIGTERM to one of its processes, before the first step or while they compile it."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with several(2, [*data, *FACTORS, "--out", str(out)], devices=2, cwd=out.parent) as running:
        wait_until((out / "checkpoints").exists, running)
        terminate(running[1])
        found = ended(running)
    assert statuses(found) == [TOGETHER] * 2
    assert_says(found[0].err, "SIGTERM", "--resume", "--distributed")
    assert int(re.search(r"after (\d+) steps", found[0].err)[1]) < STEPS
    return out


@pytest.fixture(scope="module")
def killed(stopped, tmp_path_factory):
    """The stopped run, resumed twice: each time another process is killed after an epoch."""
    run = shutil.copytree(stopped, tmp_path_factory.mktemp("killed") / "run")
    for victim in (0, 1):
        before = len(metrics(run))
        with several(2, ["--resume", str(run)], devices=2, cwd=run.parent) as running:
            wait_until(lambda least=before + 1: len(metrics(run)) >= least, running)
            running[victim].send_signal(signal.SIGKILL)
            found = ended(running, limit=30)
        assert statuses(found)[victim] == -signal.SIGKILL
        other = found[1 - victim]
        assert other.status == LOST
        assert_says(other.err, f"process {victim} of 2 (host ", "--resume")
    return run


def assert_same_training(run, other):
    """Two runs took the same steps, to rounding."""
    lines, want = metrics(run), metrics(other)
    assert [line["step"] for line in lines] == [line["step"] for line in want]
    assert want[-1]["step"] == STEPS
    because = "the sums of devices of several processes are added in another order"
    for name in ("train_loss", "validation_loss"):
        losses, same = (np.array([line[name] for line in found]) for found in (lines, want))
        assert_close(losses, same, tolerance=1e-5, because=because)
    state, same = saved_state(run), saved_state(other)
    assert state.keys() == same.keys()
    for part in ("trainable/", "/mu/"):  # parameters, and means of gradients
        # A bias of keys changes no attention: its gradient is rounding alone. The gradients of two single numbers are
        # differences of sums that nearly cancel: of their digits, one more is rounding.
        of_part = [name for name in same if part in name and "key/bias" not in name]
        for names, tolerance in (
            ([name for name in of_part if not name.endswith(CANCELLING)], 1e-5),
            ([name for name in of_part if name.endswith(CANCELLING)], 1e-4),
        ):
            moments, wanted = ({name: found[name] for name in names} for found in (state, same))
            assert_close(moments, wanted, tolerance=tolerance, because=because)
    for name in ("step", "key"):
        np.testing.assert_array_equal(state[name], same[name])


def test_frozen_training_with_factors_is_that_of_one_process(whole, reference):
    assert_same_training(whole, reference(FACTORS))


@pytest.mark.slow
def test_frozen_training_with_factors_in_four_processes_is_that_of_one(data, reference, tmp_path):
    found = run_together(4, [*data, *FACTORS, "--out", str(tmp_path / "run")], devices=1, cwd=tmp_path)
    assert statuses(found) == [0] * 4
    assert_same_training(tmp_path / "run", reference(FACTORS))


@pytest.mark.parametrize(
    ("number", "more"),
    [
        pytest.param(2, (), id="two processes", marks=pytest.mark.slow),
        pytest.param(4, (), id="four processes", marks=pytest.mark.slow),
        pytest.param(2, ("--train.shards", "2"), id="sharded", marks=pytest.mark.slow),
        pytest.param(2, ("--encoder.train", "lora"), id="lora", marks=pytest.mark.slow),
    ],
)
def test_joint_training_is_that_of_one_process(number, more, data, reference, tmp_path):
    options = (*JOINT, *more)
    found = run_together(number, [*data, *options, "--out", str(tmp_path / "run")], devices=4 // number, cwd=tmp_path)
    assert statuses(found) == [0] * number
    assert_same_training(tmp_path / "run", reference(options))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 4])
def test_a_stopped_training_goes_on_in_any_number(number, killed, reference, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    assert 0 < metrics(run)[-1]["step"] < STEPS
    found = run_together(number, ["--resume", str(run)], devices=4 // number, cwd=tmp_path)
    assert statuses(found) == [0] * number
    assert_same_training(run, reference(FACTORS))


def test_a_process_that_dies_is_named_by_the_others_and_a_restart_gives_the_bits_of_a_whole_run(
    killed, whole, tmp_path
):
    run = shutil.copytree(killed, tmp_path / "run")
    assert len(metrics(run)) < len(metrics(whole))
    assert statuses(run_together(2, ["--resume", str(run)], devices=2, cwd=tmp_path)) == [0, 0]
    assert metrics(run) == metrics(whole)
    assert_equal(saved_state(run), saved_state(whole))
    assert_equal(best_parameters(run), best_parameters(whole))


@pytest.mark.slow
def test_a_private_run_draws_its_sample_and_its_noise_once_for_all(data, tmp_path):
    together, alone = tmp_path / "together", tmp_path / "alone"
    with several(2, [*data, *PRIVATE, "--out", str(together)], devices=2, cwd=tmp_path) as running:
        wait_until((together / "secret.json").exists, running)
        # The run before its first step, with the secret seed.
        shutil.copytree(together, alone, ignore=shutil.ignore_patterns("checkpoints", ".*", "*.jsonl"))
        assert statuses(ended(running)) == [0, 0]
    assert statuses([train_alone(["--resume", str(alone)], devices=4, cwd=tmp_path)]) == [0]
    assert_same_training(together, alone)
    assert (together / "privacy.json").read_text() == (alone / "privacy.json").read_text()


@pytest.fixture(scope="module")
def mistaken(data, tmp_path_factory):
    """How processes with mistakes ended, by mistake. All are started at the same time, since most of them wait."""
    folder = tmp_path_factory.mktemp("mistaken")
    for index in range(2):
        (folder / str(index)).mkdir()
        write_data(folder / f"data-{index}")
    changed = folder / "data-1" / "ratings.csv"
    changed.write_text(re.sub(r"u0,(\d+),\d", r"u0,\1,1", changed.read_text()))
    options = [*data, *FACTORS]
    relative = ["--data.path", "ratings.csv", "--data.items-path", "items.csv", "--encoder.path", "encoder", *FACTORS]
    makers = {
        "folder": lambda: several(2, [*options, "--out", "run"], devices=1, cwd=lambda index: folder / str(index)),
        "options": lambda: several(
            2, lambda index: [*options, "--seed", str(index), "--out", "options"], devices=1, cwd=folder
        ),
        "data": lambda: several(
            2, [*relative, "--out", str(folder / "data")], devices=1, cwd=lambda index: folder / f"data-{index}"
        ),
        "absent": lambda: several(2, [*options, "--wait", "3", "--out", "absent"], devices=1, cwd=folder, start=[0]),
    }
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(make()) for name, make in makers.items()}
        running["unaware"] = [begin(["--distributed", *options], devices=1, cwd=folder)]
        stack.callback(running["unaware"][0].kill)
        found = {name: ended(own) for name, own in running.items()}
    return folder, found


@pytest.mark.parametrize(
    ("mistake", "status", "parts"),
    [
        ("folder", 2, ["run in process 1 of 2 (host ", "is another folder than in process 0 of 2", "share"]),
        ("options", 2, ["--seed", "'1' in process 1 of 2", "'0' in process 0 of 2", "the same command"]),
        ("data", 2, ["the ratings", "in process 1 of 2", "in process 0 of 2", "--data.path"]),
        ("absent", LOST, ["not all 2 processes", "within 3 s (--wait)"]),
        (
            "unaware",
            2,
            ["--distributed", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "Slurm"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_ends_all_processes_and_is_named_by_each(mistake, status, parts, mistaken):
    _, found = mistaken
    assert statuses(found[mistake]) == [status] * len(found[mistake])
    for one in found[mistake]:
        assert_says(one.err, *parts)
        assert "Traceback" not in one.err


def test_processes_with_mistakes_leave_no_run(mistaken):
    folder, _ = mistaken
    assert not list(folder.glob("**/inputs.json"))
    assert not [name for name in ("options", "data", "absent") if (folder / name).exists()]
