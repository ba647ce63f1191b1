"""A run is continued by a process that computes other roundings: with other XLA flags, or on another processor."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGIN = """
import dataclasses, sys
from metarec_jax import preset
from metarec_jax.train.start import start
base = preset("synthetic")
small = {
    "learner": dataclasses.replace(base.learner, hidden=4, user_side="none"),
    "updater": dataclasses.replace(base.updater, steps=1, order="first"),
    "train": dataclasses.replace(base.train, epochs=1, devices=1),
}
start(dataclasses.replace(base, **small), sys.argv[1])
"""
RESUME = """
import sys
from metarec_jax.train.start import fit, resume
print(fit(*resume(sys.argv[1])).progress.finished)
"""
DRAW = "from metarec_jax.encoder import random_encoder; print(random_encoder(3).digest)"


@functools.cache
def printed(script, flags, *arguments):
    """What a script prints in a process with these XLA flags."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--xla_cpu_max_isa=SSE4_2", "--xla_force_host_platform_device_count=2"])
def test_an_untrained_encoder_is_the_same_with_other_flags(flags):
    assert printed(DRAW, flags) == printed(DRAW, "")


@pytest.mark.slow
def test_a_run_with_an_untrained_encoder_is_resumed_with_other_flags(tmp_path):
    printed(BEGIN, "--xla_cpu_max_isa=SSE4_2", tmp_path / "run")
    assert printed(RESUME, "--xla_force_host_platform_device_count=2", tmp_path / "run") == "True"
