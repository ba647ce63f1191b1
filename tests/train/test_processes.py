"""Several processes train one run: they give what one gives, stop together, and end where one is lost."""

import re
import shutil
import signal

import numpy as np
import pytest
from helpers import assert_close, assert_equal, assert_says
from several import (
    FACTORS,
    FROZEN,
    JOINT,
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

TOGETHER, LOST = 75, 76
"""Exit statuses of processes that stopped together, and of those that lost another one."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """Runs of one process with four devices, by kind: the function that makes and keeps them."""
    folder, made = tmp_path_factory.mktemp("alone"), {}

    def run(name, options):
        if name not in made:
            made[name] = folder / name
            found = train_alone([*data, *options, "--out", str(made[name])], devices=4, cwd=folder)
            assert statuses([found]) == [0]
        return made[name]

    return run


def assert_same_training(run, other):
    """Two runs took the same steps, to rounding."""
    lines, want = metrics(run), metrics(other)
    assert [line["step"] for line in lines] == [line["step"] for line in want]
    assert want[-1]["step"] >= 20
    because = "the sums of devices of several processes are added in another order"
    for name in ("train_loss", "validation_loss"):
        losses, same = (np.array([line[name] for line in found]) for found in (lines, want))
        assert_close(losses, same, tolerance=1e-5, because=because)
    state, same = saved_state(run), saved_state(other)
    assert state.keys() == same.keys()
    for part in ("trainable/", "/mu/"):  # parameters, and means of gradients
        # A bias of keys changes no attention, so that its gradient is rounding alone.
        of_part = [name for name in same if part in name and "key/bias" not in name]
        moments, wanted = ({name: found[name] for name in of_part} for found in (state, same))
        assert_close(moments, wanted, tolerance=1e-5, because=because)
    for name in ("step", "key"):
        np.testing.assert_array_equal(state[name], same[name])


@pytest.mark.parametrize(("number", "devices"), [(2, 2), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_frozen_training_with_factors_is_that_of_one_process(number, devices, data, reference, tmp_path):
    want = reference("factors", FACTORS)
    found = run_together(number, [*data, *FACTORS, "--out", str(tmp_path / "run")], devices=devices, cwd=tmp_path)
    assert statuses(found) == [0] * number
    assert all(one.out == "" for one in found[1:])
    assert_same_training(tmp_path / "run", want)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("joint", JOINT),
        pytest.param("sharded", (*JOINT, "--train.shards", "2"), marks=pytest.mark.slow),
        pytest.param("lora", (*JOINT, "--encoder.train", "lora"), marks=pytest.mark.slow),
    ],
)
def test_joint_training_is_that_of_one_process(name, options, data, reference, tmp_path):
    want = reference(name, options)
    found = run_together(2, [*data, *options, "--out", str(tmp_path / "run")], devices=2, cwd=tmp_path)
    assert statuses(found) == [0, 0]
    assert_same_training(tmp_path / "run", want)


@pytest.mark.slow
def test_all_stop_together_and_go_on_in_any_number(data, reference, tmp_path):
    want, run = reference("frozen", FROZEN), tmp_path / "run"
    with several(2, [*data, *FROZEN, "--out", str(run)], devices=2, cwd=tmp_path) as running:
        wait_until(lambda: len(metrics(run)) >= 1, running)
        terminate(running[1])
        found = ended(running)
    assert statuses(found) == [TOGETHER] * 2
    assert_says(found[0].err, "SIGTERM", "--resume", "--distributed")
    assert len(metrics(run)) < len(metrics(want))
    for number in (1, 2, 4):
        copy = tmp_path / f"run-{number}"
        shutil.copytree(run, copy)
        found = run_together(number, ["--resume", str(copy)], devices=4 // number, cwd=tmp_path)
        assert statuses(found) == [0] * number
        assert_same_training(copy, want)


@pytest.mark.slow
def test_a_process_that_dies_is_named_by_the_others_and_a_restart_gives_the_bits_of_a_whole_run(data, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert statuses(run_together(2, [*data, *FROZEN, "--out", str(whole)], devices=1, cwd=tmp_path)) == [0, 0]
    for victim, lines, command in ((0, 2, [*data, *FROZEN, "--out", str(run)]), (1, 8, ["--resume", str(run)])):
        with several(2, command, devices=1, cwd=tmp_path) as running:
            wait_until(lambda least=lines: len(metrics(run)) >= least, running)
            running[victim].send_signal(signal.SIGKILL)
            found = ended(running, limit=30)
        assert statuses(found)[victim] == -signal.SIGKILL
        other = found[1 - victim]
        assert other.status == LOST
        assert_says(other.err, f"process {victim} of 2 (host ", "--resume")
    assert len(metrics(run)) < len(metrics(whole))
    assert statuses(run_together(2, ["--resume", str(run)], devices=1, cwd=tmp_path)) == [0, 0]
    assert metrics(run) == metrics(whole)
    assert_equal(saved_state(run), saved_state(whole))
    assert_equal(best_parameters(run), best_parameters(whole))


def test_a_private_run_draws_its_sample_and_its_noise_once_for_all(data, tmp_path):
    run = tmp_path / "run"
    private = [*data, *FROZEN, "--factors.rank", "0", "--learner.user-side", "none", "--privacy.epsilon", "8"]
    with several(2, [*private, "--out", str(run)], devices=2, cwd=tmp_path) as running:
        wait_until(lambda: len(metrics(run)) >= 1, running)
        terminate(running[0])
        assert statuses(ended(running)) == [TOGETHER] * 2
    alone, together = tmp_path / "alone", tmp_path / "together"
    shutil.copytree(run, alone)  # with the secret seed
    shutil.copytree(run, together)
    assert train_alone(["--resume", str(alone)], devices=4, cwd=tmp_path).status == 0
    assert statuses(run_together(2, ["--resume", str(together)], devices=2, cwd=tmp_path)) == [0, 0]
    assert_same_training(together, alone)
    assert (together / "privacy.json").read_text() == (alone / "privacy.json").read_text()


def test_a_process_that_sees_another_folder_is_told_so(data, tmp_path):
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    with several(2, [*data, *FROZEN, "--out", "run"], devices=1, cwd=lambda index: places[index]) as running:
        found = ended(running)
    assert statuses(found) == [2, 2]
    for one in found:
        assert_says(one.err, "run in process 1 of 2 (host ", "is another folder than in process 0 of 2", "share")


def test_processes_with_other_options_are_told_so(data, tmp_path):
    def options(index):
        return [*data, *FROZEN, "--seed", str(index), "--out", str(tmp_path / "run")]

    with several(2, options, devices=1, cwd=tmp_path) as running:
        found = ended(running)
    assert statuses(found) == [2, 2]
    for one in found:
        assert_says(one.err, "--seed", "'1' in process 1 of 2", "'0' in process 0 of 2", "the same command")
    assert not (tmp_path / "run").exists()


def test_processes_with_other_data_are_told_so(data, tmp_path):
    for index in range(2):
        write_data(tmp_path / str(index))
    changed = tmp_path / "1" / "ratings.csv"
    changed.write_text(re.sub(r"u0,(\d+),\d", r"u0,\1,1", changed.read_text()))
    options = ["--data.path", "ratings.csv", "--data.items-path", "items.csv", *FROZEN, "--out", str(tmp_path / "run")]
    with several(2, options, devices=1, cwd=lambda index: tmp_path / str(index)) as running:
        found = ended(running)
    assert statuses(found) == [2, 2]
    for one in found:
        assert_says(one.err, "the ratings", "in process 1 of 2", "in process 0 of 2", "--data.path")


def test_a_process_that_never_starts_is_not_waited_for_longer(data, tmp_path):
    options = [*data, *FROZEN, "--wait", "3", "--out", str(tmp_path / "run")]
    with several(2, options, devices=1, cwd=tmp_path, start=[0]) as running:
        found = ended(running, limit=60)
    assert statuses(found) == [LOST]
    assert_says(found[0].err, "not all 2 processes", "within 3 s (--wait)")


def test_a_process_that_nobody_told_of_others_says_how_to_tell_it(data, tmp_path):
    found = train_alone(["--distributed", *data, *FROZEN, "--out", "run"], devices=1, cwd=tmp_path)
    assert statuses([found]) == [2]
    assert_says(found.err, "--distributed", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "Slurm")
    assert "Traceback" not in found.err
