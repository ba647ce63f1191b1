"""The same seed gives the losses, gradients and parameters that are committed for this environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]
ANY_PROCESSOR = {"XLA_FLAGS": "--xla_cpu_max_isa=AVX2", "OPENBLAS_CORETYPE": "Haswell"}
"""Variables with which all recent x86 processors compute with the same instructions; wider ones sum otherwise."""
FIGURES = ROOT / "tests" / "golden" / f"py{sys.version_info.major}.{sys.version_info.minor}-jax{jax.__version__}.json"


@pytest.mark.skipif(not FIGURES.exists(), reason=f"no golden figures for this environment: {FIGURES.name}")
@pytest.mark.parametrize("case", ["synthetic-frozen", pytest.param("synthetic-joint", marks=pytest.mark.slow)])
def test_losses_gradients_and_parameters_are_the_committed_ones(case):
    """Compiled as users' programs are, in a process of its own."""
    environment = os.environ | ANY_PROCESSOR
    command = [sys.executable, "-m", "benchmarks.golden", "--check", str(FIGURES), case]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
