"""How programs are compiled quickly, and are slow to run. All tests compile so: see conftest.py, which has to be ahead
of the package, so that this file imports nothing of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax

QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Options of XLA. Small programs take a third of the time and less, large ones about as long as ever. A program is not
split to be compiled by several threads, of which each has a cost of its own."""
USUAL: dict[str, Any] = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_parallel_codegen_split_count": 32,
}
"""What these are for users."""
if jax.__version_info__ < (0, 11):  # later versions have no other emitters, and refuse the option
    QUICK["xla_cpu_use_fusion_emitters"] = False
    USUAL["xla_cpu_use_fusion_emitters"] = True


def library_environment() -> dict[str, str]:
    """Variables of a process in which the package of this folder is used as a library: what it compiles is kept for the
    next one, for which commands see themselves."""
    return {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.path.join(os.environ["METAREC_CACHE"], "library"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "XLA_FLAGS": quick_flags(),
    }


def quick_flags() -> str:
    """$XLA_FLAGS as they are, and `QUICK`."""
    own = (f"--{name}={str(value).lower()}" for name, value in QUICK.items())
    return " ".join([os.environ.get("XLA_FLAGS", ""), *own])
