"""Seconds of a training by phase, lost steps, and the share of a chip's speed."""

import dataclasses
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from training import Watch, small_config, small_experiment

from metarec_jax.core.flops import products
from metarec_jax.train import goodput, loop, run_folder
from metarec_jax.train.aot.chips import CHIPS, peak_flops
from metarec_jax.train.goodput import PHASES, Goodput, sentence
from metarec_jax.train.monitor import Monitor
from metarec_jax.train.start import fit, program_of


class Unplugged(Exception):
    """Ends a training between two steps without a chance to save."""


@pytest.fixture(scope="module")
def experiment():
    return small_experiment(small_config())


@pytest.fixture
def run(experiment, tmp_path):
    return run_folder.create(tmp_path / "run", experiment.config)


def rounded(seconds):
    return pytest.approx(seconds, abs=1e-3 * len(PHASES))  # each phase is rounded to milliseconds


def test_every_second_belongs_to_one_phase_and_nested_compilations_count_once(compilations):
    @jax.jit
    def inner(x):
        time.sleep(0.05)  # while it is traced
        return jnp.sin(x)

    @jax.jit
    def outer(x):
        return inner(x) + inner(2 * x[:2]).sum()

    began = time.perf_counter()
    with Goodput(began=began) as clock:
        time.sleep(0.02)
        clock.enter("data")
        time.sleep(0.03)
        clock.enter("steps")
        outer(jnp.ones(5)).block_until_ready()
        found = clock.summary()["seconds"]
        elapsed = time.perf_counter() - began
        outer(jnp.ones(5)).block_until_ready()
        again = clock.summary()["seconds"]
    assert compilations
    assert found["total"] == rounded(sum(found[phase] for phase in PHASES))
    assert found["total"] <= elapsed + 1e-3
    assert found["start_up"] >= 0.019
    assert found["data"] >= 0.029
    assert 0.1 <= found["compiling"] <= elapsed
    assert again["compiling"] == found["compiling"], "what is compiled already is not compiled again"
    assert found["steps"] >= 0


def test_lines_add_up_to_the_summary(run, experiment):
    jax.clear_caches()  # other tests may have compiled the programs
    with Monitor() as monitor:
        fitted = fit(run, experiment, monitor=monitor)
    lines, total = list(run.read_metrics()), fitted.goodput["seconds"]
    assert len(lines) == 4
    for phase in ("start_up", "compiling", "data", "steps", "evaluating"):
        of_lines = sum(line["seconds"].get(phase, 0.0) for line in lines)
        # Lines are rounded to a millisecond. What a phase takes after the last line, on a busy machine, is in no line.
        assert of_lines - 0.005 <= total[phase] < of_lines + 0.1
        assert total[phase] > 0, phase
    assert total["saving"] > sum(line["seconds"].get("saving", 0.0) for line in lines), "the last one is saved later"
    assert fitted.goodput["goodput"] == pytest.approx(total["steps"] / total["total"], abs=1e-3)
    users = json.loads(run.goodput.read_text())["users"]
    assert users == 4 * len(experiment.division.train_users)
    assert fitted.goodput["users_per_second"] == pytest.approx(users / total["total"], abs=0.1)
    assert fitted.goodput["lost_steps"] == total["lost"] == 0
    assert "goodput" in sentence(fitted.goodput)
    assert "model_flop_utilisation" not in fitted.goodput, "the speed of this processor is not published"


class SlowFeed:
    """Batches that each take a while."""

    def __init__(self, feed):
        self._feed = feed

    def __getattr__(self, name):
        return getattr(self._feed, name)

    def __next__(self):
        time.sleep(0.1)
        return next(self._feed)


@pytest.mark.slow
def test_data_is_waited_for_only_where_the_devices_have_nothing_to_do(run, experiment):
    @jax.jit
    def busy(number, x):
        return number + 0 * jax.lax.fori_loop(0, 40, lambda _, x: jnp.tanh(x @ x), x).sum()

    x = jnp.zeros((1000, 1000))  # 40 products take more than a tenth of a second
    busy(jnp.zeros(()), x).block_until_ready()
    program = program_of(run, experiment)

    def long_step(*arguments):
        state, losses = program.step(*arguments)
        with jax.transfer_guard("allow"):
            return state, losses._replace(query=busy(losses.query, x))

    slow = dataclasses.replace(program, feed=lambda: SlowFeed(program.feed()))
    waited = loop.train(run, slow).goodput["seconds"]
    other = run_folder.create(run.folder.parent / "other", experiment.config)
    program = program_of(other, experiment)
    slow = dataclasses.replace(program, step=long_step, feed=lambda: SlowFeed(program.feed()))
    computed = loop.train(other, slow).goodput["seconds"]
    steps, epochs = len(experiment.train.source), experiment.config.train.epochs
    assert waited["data"] >= 0.1 * steps
    # There is nothing to compute beside the first batch of an epoch.
    assert 0.1 * epochs <= computed["data"] < 0.1 * epochs + 0.05 * steps
    assert computed["steps"] >= 0.1 * (steps - epochs)


@pytest.mark.parametrize(("unplugged", "lost"), [(6, 2), (11, 3)])
def test_steps_after_the_last_checkpoint_are_lost(run, experiment, monkeypatch, unplugged, lost):
    monkeypatch.setattr(goodput, "EVERY", 0.0)  # as if each step took long

    def unplug(done):
        if done == unplugged:
            raise Unplugged

    with pytest.raises(Unplugged):
        fit(run, experiment, reporter=Watch(on_step=unplug))
    before = json.loads(run.goodput.read_text())
    assert before["step"] == unplugged
    with Monitor() as monitor:
        fitted = fit(run, experiment, monitor=monitor)
    assert fitted.goodput["lost_steps"] == lost
    assert fitted.goodput["seconds"]["lost"] == pytest.approx(before["seconds"]["steps"] * lost / unplugged, abs=1e-3)
    assert fitted.goodput["seconds"]["total"] > sum(before["seconds"].values())
    assert f"{lost} steps taken again" in sentence(fitted.goodput)
    once_more = fit(run, experiment).goodput
    assert once_more["lost_steps"] == lost, "a finished run that is opened again has lost nothing more"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"step": 3}', '{"step": 9, "lost_steps": 0, "users": 1, "flops": 1, "seconds": {"steps": "x"}}'],
)
def test_a_damaged_record_counts_nothing(run, text):
    run.goodput.write_text(text)
    with Goodput() as clock:
        clock.resume(run.goodput, 2)
        clock.enter("steps")
        assert clock.summary()["lost_steps"] == 0


def test_utilisation_is_flops_by_time_and_peak_of_all_devices(run):
    step = jax.jit(lambda state, x: state @ x)
    a = jnp.ones((64, 32)), jnp.ones((32, 16))
    with Goodput(peak=1e9) as clock:
        clock.resume(run.goodput, 0)
        for number in range(3):
            clock.enter("steps")
            clock.count(step, *a)
            step(*a).block_until_ready()
            clock.took(number + 1, 8)
        line, found = clock.line(), clock.summary()
        clock.write()
    record = json.loads(run.goodput.read_text())
    assert record["flops"] == 3 * 2 * 64 * 32 * 16
    assert record["users"] == 24
    want = record["flops"] / (record["seconds"]["steps"] * 1e9 * jax.device_count())
    assert found["model_flop_utilisation"] == pytest.approx(want, rel=0.05)
    assert line["model_flop_utilisation"] >= found["model_flop_utilisation"]
    assert "model FLOP utilisation" in sentence(found)


def test_products_of_a_program_for_each_device_count_for_all():
    mesh, split = Mesh(np.array(jax.devices()[:4]), ("users",)), PartitionSpec("users")
    a, b = np.ones((8, 5), np.float32), np.ones((5, 3), np.float32)
    whole = PartitionSpec()
    mapped = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False)
    assert products(mapped, a, b) == products(jnp.matmul, a, b) == 2 * 8 * 5 * 3 / 1e9


def test_the_slowest_process_waited_longest_for_data():
    with Goodput(gather=lambda seconds: [seconds, seconds + 5, seconds + 1]) as clock:
        clock.enter("data")
        found = clock.summary()
    assert found["slowest_process"]["process"] == 1
    assert math.isclose(found["slowest_process"]["data"], found["seconds"]["data"] + 5, abs_tol=2e-3)
    assert "process 1 waited longest for data" in sentence(found)


def test_peaks_of_chips():
    assert peak_flops("TPU v5 lite") == CHIPS["v5e"].flops
    assert peak_flops("NVIDIA H100 80GB HBM3") == CHIPS["h100"].flops
    assert peak_flops("NVIDIA H100 PCIe") is None, "its clock is another one"
    assert peak_flops("cpu") is None
