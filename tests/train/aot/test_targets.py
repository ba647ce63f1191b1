"""Names of targets, what compiling for them needs, and the command."""

import dataclasses
import importlib.util
import json
import math
import os
import re
import subprocess
import sys

import pytest

from metarec_jax import preset
from metarec_jax.cli import main
from metarec_jax.core.errors import MetarecError
from metarec_jax.privacy.options import PrivacyConfig
from metarec_jax.train.aot import report, targets, workload
from metarec_jax.train.aot.chips import CHIPS


@pytest.mark.parametrize(
    ("name", "family", "chips"),
    [
        ("v5e", "tpu", 1),
        ("v5e:1x1", "tpu", 1),
        ("v5e:16x16", "tpu", 256),
        ("v5p:2x2x1", "tpu", 4),
        ("v6e:2x4", "tpu", 8),
        ("cuda:h100", "cuda", 1),
        ("cuda:h100:8", "cuda", 8),
    ],
)
def test_a_target_is_a_chip_and_how_many(name, family, chips):
    found = targets.parse(name)
    assert (found.family, found.chips) == (family, chips)
    assert found.chip is not None


@pytest.mark.parametrize("names", targets.TOPOLOGIES.values())
def test_slices_go_from_one_chip_to_256(names):
    sizes = [math.prod(map(int, name.split("x"))) for name in names]
    assert (sizes[0], sizes[-1]) == (1, 256)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:3x3", "v5e has no topology '3x3'; there are 1x1, 2x2, "),
        ("v9", "no such target; write v5e:2x2"),
        ("cuda:h100:9", "9 GPUs; a machine holds 1 to 8"),
        ("here:2", "all devices of this machine are used"),
    ],
)
def test_other_targets_are_refused_with_what_there_is(name, message, capsys):
    assert main.main(["aot", "--target", name]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users-per-chip", "-1"], "--users-per-chip is -1; it must be at least 0"),
        (["--text-length", "2"], "--text-length is 2; it must be at least 3"),
        (["--train.shards", "4"], "only an encoder that is trained is split"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message, capsys):
    assert main.main(["aot", "--target", "v5e", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_private_run_is_refused():
    config = dataclasses.replace(preset("synthetic"), privacy=PrivacyConfig(epsilon=8.0, covers="updates"))
    with pytest.raises(MetarecError, match=r"privacy\.epsilon is 8, but only ordinary outer steps"):
        workload.workload(config)


@pytest.mark.parametrize(("name", "module", "extra"), [("v5e:2x2", "libtpu", "tpu"), ("cuda:h100", "xla_cuda", "cuda")])
def test_a_missing_extra_is_named_with_what_installs_it(name, module, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MetarecError, match=rf"{module}.* not installed: pip install 'metarec_jax\[{extra}\]'"):
        targets.devices(targets.parse(name))


def test_the_chips_published_figures_agree_with_each_other():
    """Peak over operations a clock is a clock; the ridge is where the roofline bends."""
    for chip in CHIPS.values():
        assert chip.source.startswith("https://")
        assert 100 < chip.ridge < 700
        if chip.flops_per_cycle:
            assert 0.9e9 < chip.flops / chip.flops_per_cycle < 2e9
            assert chip.seconds(chip.flops / chip.flops_per_cycle) == pytest.approx(1.0)


def test_the_environment_is_prepared_for_absent_devices_only(monkeypatch):
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=true"})
    targets.prepare_process([targets.parse("here")])
    assert set(os.environ) == {"XLA_FLAGS"}
    targets.prepare_process([targets.parse("v5e"), targets.parse("cuda:h100")])
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    assert os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1"
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_gpu_enable_triton_gemm=true",
        "--xla_gpu_collect_cost_model_stats=true",
    ]


@pytest.mark.slow
def test_the_command_prints_a_table_for_people():
    """Facts first, then what is estimated; and nothing is estimated of devices that no figures are published of."""
    arguments = ["aot", "--target", "here", "--preset", "synthetic", "--updater.steps", "1", "--items", "50"]
    done = subprocess.run(
        [sys.executable, "-m", "metarec_jax", *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
    assert lines[0] == ["The outer step, compiled ahead of time"]
    assert lines[1] == ["here"]
    labels = [line[0] for line in lines]
    facts, guesses = labels.index(f"-- {report.FACTS} --"), labels.index(f"-- {report.GUESS} --")
    assert facts < guesses
    told = {line[0]: line[1] for line in lines[facts:guesses] if len(line) == 2}
    assert (told["chips"], told["users a step, all chips"], told["fits in memory"]) == ("1", "32", "yes")
    sizes = ("peak memory, a chip", "of it arguments", "of it temporaries", "main memory traffic, a chip")
    assert all(re.fullmatch(r"[\d.]+ [MG]iB", told[name]) for name in sizes)
    assert re.fullmatch(r"[\d,]+", told["products, GFLOP a chip"])
    assert re.fullmatch(r"[\d.]+", told["FLOP a byte (ridge of the chip)"])
    guessed = {line[0]: line[1] for line in lines[guesses:] if len(line) == 2}
    assert guessed.pop("optimisation level") == "default"
    assert {"compiler's cycles", "users a second, at best"} <= set(guessed)
    assert set(guessed.values()) == {"-"}


@pytest.mark.slow
def test_the_command_says_what_the_devices_here_would_do():
    """As a user runs it, in a process of its own; the answer on stdout is JSON and nothing else."""
    arguments = ["aot", "--target", "here", "--preset", "synthetic", "--updater.steps", "1", "--items", "50", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "metarec_jax", *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["estimates"]
    assert found["fits"]
    assert found["flops"] > 0
    assert found["peak_memory"] > found["arguments"] > 0
    assert (found["cycles"], found["users_per_second"]) == (None, None), "nothing is known of this chip"
